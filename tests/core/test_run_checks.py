"""Mistakes in a run, as records of kernels, schedules and variables show them."""

import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
from records import CUBIC, kernel_of, matrix, weight
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune.core import run_checks
from tf_movprune.core.granularity import NEURONS
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.run_checks import Run
from tf_movprune.core.schedules import Ramp

TWELVE = Run(0, 12, "this run has 12 steps")
SHORT_RUN = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- schedules and runs


@pytest.mark.parametrize("start, words", [(0, "6 steps"), (4, "6 steps after the first 4")])
def test_words_for_the_length_of_a_run(start, words):
    assert run_checks.length_of(Run(start, start + 6, "6 steps")) == words


@pytest.mark.parametrize(
    "kernels, text",
    [
        ([(8, 4), (4, 4)], "48 weights in 2 matrices. Sparsity by step: 0.00 at 0, 0.66 at 2, "),
        ([(8, 1)], "8 weights in 1 matrix. Sparsity by step: "),
    ],
)
def test_a_ramp_in_one_line(kernels, text):
    assert run_checks.describe_ramp([matrix(*shape) for shape in kernels]).startswith(
        f"Pruning {text}"
    )


@pytest.mark.parametrize("size, pieces", [(1, "1 neuron in 1 layer"), (4, "4 neurons in 1 layer")])
def test_a_ramp_of_units_in_one_line(size, pieces):
    kernel = kernel_of([Part(weight(8, size), 1)], (size,), block_size=NEURONS)
    assert run_checks.describe_ramp([kernel]).startswith(f"Pruning {pieces}. Sparsity by step: ")


def test_a_method_without_a_schedule_has_no_values_to_tell():
    kernel = matrix(8, 4, method=tf_movprune.L0(), schedule=None)
    assert run_checks.describe_ramp([kernel]) == "Pruning 32 weights in 1 matrix."


@pytest.mark.parametrize(
    "begin, end, frequency, message",
    [
        (0, 13, 1, r"ends at step 13, but this run has 12 steps: it would stop at sparsity 0\.75"),
        (4, 12, 8, r"CubicSparsity never prunes .* begin_step 4 and frequency 8 .* is 12, but"),
    ],
)
def test_a_schedule_that_does_not_fit_its_run(begin, end, frequency, message):
    schedule = tf_movprune.CubicSparsity(0.75, begin, end, frequency=frequency)
    with pytest.raises(ValueError, match=message):
        run_checks.check_schedule(Ramp.of(schedule), TWELVE)


@pytest.mark.parametrize(
    "schedule, message",
    [
        (
            tfmot.PolynomialDecay(0.0, 0.5, 0, 10),
            "PolynomialDecay never prunes.*begin_step 0 and frequency 100.*12 steps",
        ),
        (
            tfmot.PolynomialDecay(0.0, 0.5, 4, 10, frequency=7),
            "PolynomialDecay never prunes.*begin_step 4 and frequency 7.*12 steps",
        ),
        (
            tfmot.ConstantSparsity(0.5, begin_step=12),
            "ConstantSparsity never prunes.*begin_step 12 and frequency 100.*12 steps",
        ),
        (
            tfmot.ConstantSparsity(0.5, begin_step=500),
            "ConstantSparsity never prunes.*begin_step 500",
        ),
    ],
)
def test_a_schedule_of_tfmot_that_never_fires_in_its_run(schedule, message):
    with pytest.raises(ValueError, match=message):
        run_checks.check_schedule(Ramp.of(schedule), TWELVE)


@pytest.mark.parametrize("begin, end, frequency", [(0, 12, 1), (4, 10, 6), (0, 1, 1)])
def test_a_schedule_that_fits_its_run(begin, end, frequency):
    schedule = tf_movprune.CubicSparsity(0.75, begin, end, frequency=frequency)
    run_checks.check_schedule(Ramp.of(schedule), TWELVE)


def test_a_schedule_that_fires_once_or_was_over_before_its_run():
    schedule = tfmot.ConstantSparsity(0.5, begin_step=11, frequency=100)
    run_checks.check_schedule(Ramp.of(schedule), TWELVE)
    run_checks.check_schedule(Ramp.of(CUBIC), Run(12, 18, "this run has 6 steps"))


# ---- scores


def test_scores_are_named_once_by_the_path_of_their_first_layer():
    query, key, dense = matrix(4, 4), matrix(4, 4), matrix(4, 2)
    magnitude = matrix(4, 2, method=tf_movprune.Magnitude())
    kernels = {"attention": [query, key], "a/dense": [dense], "b": [dense, magnitude]}
    scores = run_checks.scores_by_path(kernels)
    assert list(scores) == ["attention", "attention (2)", "a/dense"]
    for found, kernel in zip(scores.values(), (query, key, dense)):
        assert found is kernel.scores


def test_scores_that_stood_still_are_named():
    scores = {name: tf.Variable([1.0, 2.0]) for name in ("first", "second", "third")}
    before = run_checks.sums_of_scores(scores)
    scores["first"].assign([2.0, 2.0])
    scores["third"].assign([0.0, 3.0])  # of the same sum
    with pytest.warns(UserWarning, match=r"not moved the movement scores of second: "):
        run_checks.warn_if_scores_stood_still(scores, before)


def test_scores_that_moved(no_warnings):
    scores = {"first": tf.Variable([1.0, 2.0])}
    before = run_checks.sums_of_scores(scores)
    scores["first"].assign_add([1e-3, 0.0])
    run_checks.warn_if_scores_stood_still(scores, before)


def test_scores_that_are_noise():
    kernel = matrix(4, 4)
    kernel.scores.assign(tf.zeros_like(kernel.scores))
    with pytest.warns(UserWarning, match=r"start at zero and pruning begins at step 0\."):
        run_checks.warn_if_scores_are_noise([kernel], 0)


def test_scores_that_are_no_noise(no_warnings):
    run_checks.warn_if_scores_are_noise([matrix(4, 4)], 0)
    late = matrix(4, 4, schedule=tf_movprune.CubicSparsity(0.75, 1000, 2000))
    for kernel, step in ((matrix(4, 4), 1), (late, 0)):
        kernel.scores.assign(tf.zeros_like(kernel.scores))
        run_checks.warn_if_scores_are_noise([kernel], step)


# ---- learning rates


def rate(num_train_steps):
    class Falling(types.SimpleNamespace):
        def __call__(self, step):
            return 0.5 * max(1 - step / num_train_steps, 0)

    return Falling(num_train_steps=num_train_steps, peak_learning_rate=0.5)


@pytest.mark.parametrize(
    "steps, message",
    [
        (11, r"rate is 0 from step 11 on.*this run has 12 steps: .* num_train_steps=12"),
        (14, r"made for num_train_steps=14, but .* still be 14% of its peak"),
        (
            24,
            r"made for num_train_steps=24, but .* still be 50% of its peak .*=12, or train longer",
        ),
    ],
)
def test_rates_that_do_not_fit_the_run(steps, message):
    with pytest.warns(UserWarning, match=message):
        run_checks.warn_if_rate_ends(rate(steps), TWELVE)


@pytest.mark.parametrize("steps", [12, 13])
def test_rates_that_fit_the_run(steps, no_warnings):
    run_checks.warn_if_rate_ends(rate(steps), TWELVE)


@pytest.mark.parametrize(
    "is_plain, rate, what",
    [
        (False, 1.0, "by Adam"),
        (True, 0.05, r"at rate 0\.05"),
        (True, lambda step: 1e-3 * step, r"at rate 0\.004"),
    ],
)
def test_scores_of_a_short_run_that_learn_otherwise(is_plain, rate, what):
    message = rf"here they learn {what}: .* a Keras optimizer SGD\(1\.0\) as score_optimizer"
    with pytest.warns(UserWarning, match=message):
        run_checks.warn_if_scores_learn_otherwise(
            [matrix(4, 4, method=SHORT_RUN)], "Adam", is_plain, rate
        )


@pytest.mark.parametrize(
    "method, is_plain, rate",
    [
        (SHORT_RUN, True, 1.0),
        (SHORT_RUN, True, None),
        (SHORT_RUN, True, lambda step: step / 4),
        (tf_movprune.HardMovement(), False, 0.01),
        (tf_movprune.Magnitude(), False, 0.01),
    ],
)
def test_scores_that_learn_as_they_should(method, is_plain, rate, no_warnings):
    run_checks.warn_if_scores_learn_otherwise([matrix(4, 4, method=method)], "SGD", is_plain, rate)


# ---- masks


def keep(kernel, count):
    kernel.mask.assign(np.arange(kernel.size).reshape(kernel.mask.shape) < count)
    kernel.threshold.assign(0.0)
    return kernel


def test_masks_that_are_ahead_of_their_schedule():
    with pytest.warns(UserWarning, match=r"sparsity 0\.750, but .* step 0, .* says 0\.000"):
        run_checks.warn_if_ahead([keep(matrix(4, 4), 4)], 0)


@pytest.mark.parametrize("kept, step", [(4, 4), (16, 0), (16, 4)])
def test_masks_that_are_not_ahead(kept, step, no_warnings):
    run_checks.warn_if_ahead([keep(matrix(4, 4), kept)], step)


def test_masks_that_were_never_refreshed():
    with pytest.warns(UserWarning, match=r"masks of 'model' were never refreshed"):
        run_checks.warn_if_behind("model", {"first": [matrix(4, 4)]})


@pytest.mark.parametrize(
    "kept, method, schedule, message",
    [
        (
            8,
            None,
            CUBIC,
            r"Sparsity is 0\.6250 in masks whose CubicSparsity says 0\.7500 at .* 4\.",
        ),
        (16, tf_movprune.L0(), None, r"L0 has pruned nothing in 'model'"),
        (0, None, CUBIC, r"Nothing remains of a kernel of second\. Prune less"),
    ],
)
def test_masks_that_are_not_as_they_should_be_at_the_end(kept, method, schedule, message):
    good = keep(matrix(4, 4), 4)
    kernels = [good, keep(matrix(4, 4, method=method, schedule=schedule), kept)]
    with pytest.warns(UserWarning, match=message) as caught:
        run_checks.warn_if_behind("model", {"first": [good], "second": kernels})
    assert len(caught) == 1


def test_masks_may_keep_one_more_than_their_schedule_says(no_warnings):
    run_checks.warn_if_behind("model", {"first": [keep(matrix(8, 4), 9)]})
    with pytest.warns(UserWarning, match=r"0\.6875 .* says 0\.7500 "):
        run_checks.warn_if_behind("model", {"first": [keep(matrix(8, 4), 10)]})


@pytest.mark.parametrize(
    "method, schedule",
    [
        (tf_movprune.SoftMovement(1.0), tf_movprune.CubicThreshold(0.1, 0, 4)),
        (None, tfmot.ConstantSparsity(0.75, begin_step=0)),
    ],
)
def test_masks_of_which_no_schedule_says_how_they_end(method, schedule, no_warnings):
    kernel = matrix(8, 4, method=method, schedule=schedule)
    run_checks.warn_if_behind("model", {"first": [keep(kernel, 20)]})


def test_masks_may_keep_the_minimum_that_their_method_was_given(no_warnings):
    method = tf_movprune.HardMovement(minimum_remaining=0.5)
    run_checks.warn_if_behind("model", {"first": [keep(matrix(4, 4, method=method), 8)]})


def test_masks_that_two_layers_share_count_once(no_warnings):
    """One entry more than the target is rounding; of two kernels it would be two."""
    shared = keep(matrix(4, 4), 5)
    run_checks.warn_if_behind("model", {"first": [shared], "second": [shared]})
