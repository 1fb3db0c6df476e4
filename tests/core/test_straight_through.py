"""Masking with a gradient that passes the mask."""

import numpy as np
import pytest
import tensorflow as tf
from modes import compiled, every_mode

from tf_movprune.core.straight_through import apply_mask, straight_through


def value_and_gradients(kernel, scores, mask, upstream):
    with tf.GradientTape() as tape:
        tape.watch([kernel, scores])
        value = straight_through(kernel, scores, mask)
    return value, *tape.gradient(value, [kernel, scores], output_gradients=upstream)


def as_arrays(tensors):
    return [tensor.numpy() for tensor in tensors]


@every_mode
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_straight_through(mode, dtype):
    random = np.random.default_rng(1)
    kernel, upstream = random.normal(size=(2, 4, 5)).astype(dtype)
    scores = random.normal(size=(4, 5)).astype(np.float32)
    mask = random.random((4, 5)) < 0.5
    assert 0 < mask.sum() < mask.size

    value, to_kernel, to_scores = as_arrays(
        compiled(mode, value_and_gradients)(*map(tf.constant, (kernel, scores, mask, upstream)))
    )
    assert (value.dtype, to_kernel.dtype, to_scores.dtype) == (dtype, dtype, np.float32)
    np.testing.assert_array_equal(value, np.where(mask, kernel, 0))
    np.testing.assert_array_equal(to_kernel, np.where(mask, upstream, 0))
    np.testing.assert_array_equal(to_scores, upstream.astype("f4") * kernel.astype("f4"))


@every_mode
def test_gradient_of_the_scores_does_not_overflow_in_float16(mode):
    kernel, upstream = np.array([[300.0, 1e-4], [-400.0, 1e-4]], np.float16)
    _, _, to_scores = as_arrays(
        compiled(mode, value_and_gradients)(
            tf.constant(kernel), tf.zeros([2]), tf.constant([True, False]), tf.constant(upstream)
        )
    )
    np.testing.assert_array_equal(to_scores, kernel.astype("f4") * upstream.astype("f4"))
    assert np.all(np.isfinite(to_scores)) and np.all(to_scores != 0)


@every_mode
def test_masked_entries_are_zero_whatever_they_hold(mode):
    bad = np.array([np.nan, np.inf, -np.inf, -1.0, 2.0], np.float32)
    mask = np.array([False, False, False, False, True])
    value, to_kernel, _ = as_arrays(
        compiled(mode, value_and_gradients)(*map(tf.constant, (bad, np.zeros(5, "f4"), mask, bad)))
    )
    for array in (value, to_kernel):
        np.testing.assert_array_equal(array, [0, 0, 0, 0, 2])
        assert not np.any(np.signbit(array))


@every_mode
def test_scores_do_not_change_the_value(mode):
    kernel, mask = tf.constant([1.0, -2.0, 3.0]), tf.constant([True, True, False])
    function = compiled(mode, value_and_gradients)
    for scores in ([0.0, 0.0, 0.0], [np.nan, np.inf, -5.0]):
        value, _, to_scores = as_arrays(function(kernel, tf.constant(scores), mask, tf.ones([3])))
        assert value.tolist() == [1, -2, 0]
        assert to_scores.tolist() == [1, -2, 3]


@every_mode
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_apply_mask(mode, dtype):
    values = np.array([[1.5, -2.5, np.nan], [np.inf, 0.0, -4.0]], dtype)
    mask = np.array([[True, False, False], [False, True, True]])
    masked = compiled(mode, apply_mask)(tf.constant(values), tf.constant(mask)).numpy()
    assert masked.dtype == dtype
    np.testing.assert_array_equal(masked, np.array([[1.5, 0, 0], [0, 0, -4]], dtype))
    assert not np.any(np.signbit(masked[~mask]))
