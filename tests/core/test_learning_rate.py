"""The rate with warm-up and decay, at every step, and the names of what does not decay."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES, every_mode

from tf_movprune.core.learning_rate import check_warmup, decays, linear_warmup_decay


def linear(step, peak, total, warmup):
    if step < warmup:
        return peak * step / warmup
    return peak * max(total - step, 0) / (total - warmup)


@every_mode
@pytest.mark.parametrize("total, warmup", [(20, 5), (20, 0), (7, 6), (1, 0)])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_rate_over_a_whole_run(mode, total, warmup, dtype):
    rate = MODES[mode](lambda step: linear_warmup_decay(step, 3e-5, total, warmup))
    rates = [rate(tf.constant(step, dtype)) for step in range(total + 3)]
    assert all(rate.dtype == tf.float32 for rate in rates)
    expected = [linear(step, 3e-5, total, warmup) for step in range(total + 3)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("suffix", ["", ":0", "/replica_1", "/replica_1:0"])
@pytest.mark.parametrize(
    "name, rank, expected",
    [
        ("dense/kernel", 2, True),
        ("encoder/bias/kernel", 2, True),
        ("debias", 2, True),
        ("dense/kernel/movement_scores", 2, False),
        ("heads/movement_scores", 1, False),
        ("attention/query/bias", 2, False),
        ("bias", 1, False),
        ("norm/gamma", 2, False),
        ("norm/beta", 1, False),
        ("rms/scale", 2, False),
        ("t5_norm/weight", 1, False),
    ],
)
def test_what_decays(name, rank, suffix, expected):
    assert decays(name + suffix, rank) == expected


def test_arguments_as_python_numbers():
    peak, total, warmup = check_warmup(np.float32(0.5), np.int64(10), np.int32(3))
    assert (peak, total, warmup) == (0.5, 10, 3)
    assert [type(value) for value in (peak, total, warmup)] == [float, int, int]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((0.0, 10, 0), ValueError, r"learning_rate must be greater than 0, got 0"),
        (("1", 10, 0), TypeError, r"learning_rate must be a number such as 3e-05, got '1'"),
        ((0.1, 10.5, 0), TypeError, r"num_train_steps must be an integer .* got 10\.5"),
        ((0.1, 10, 0.1), TypeError, r"num_warmup_steps must be an integer .* got 0\.1"),
        ((0.1, 10, 10), ValueError, r"num_warmup_steps must be .* less than .* got 10 and 10"),
        ((0.1, 10, -1), ValueError, r"num_warmup_steps must be at least 0.* got -1 and 10"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        check_warmup(*arguments)
