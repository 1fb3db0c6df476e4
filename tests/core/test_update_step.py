"""What the callback of every shell does: arguments, refreshes, and whether steps are taken."""

import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
from records import matrix

import tf_movprune
from tf_movprune.core.update_step import (
    StepCheck,
    check_step,
    compiled_refresh,
    run_of_epochs,
    run_of_steps,
    warn_if_unfinished,
)


class OfKeras(types.SimpleNamespace):
    """As variables of Keras 3 are: no tensor, with the name of a type as `dtype`."""


# ---- steps


@pytest.mark.parametrize(
    "step",
    [
        1.5,
        1.0,
        True,
        None,
        "1",
        tf.constant(1.5),
        np.float32(2),
        np.array([True]),
        OfKeras(dtype="float32"),
    ],
)
def test_steps_that_are_no_integers(step):
    with pytest.raises(TypeError, match=r"step must be an integer.* got .*Pass model\.optimizer"):
        check_step(step)


@pytest.mark.parametrize(
    "step", [-1, np.int64(-1), np.array(-1), tf.constant(-1), tf.Variable(-1)], ids=repr
)
def test_steps_below_zero(step):
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        check_step(step)


@pytest.mark.parametrize(
    "step", [np.array([1, 2]), tf.constant([1]), tf.Variable([1, 2])], ids=repr
)
def test_steps_of_several_numbers(step):
    with pytest.raises(ValueError, match=r"step must be a single integer, got one of shape \("):
        check_step(step)


@pytest.mark.parametrize(
    "step",
    [
        0,
        np.int64(3),
        np.array(3),
        tf.constant(3),
        tf.Variable(3, dtype=tf.int64),
        OfKeras(dtype="int32"),
    ],
    ids=str,
)
def test_steps_that_are_integers(step):
    check_step(step)


def test_steps_in_a_graph():
    @tf.function(autograph=False)
    def checked(step):
        check_step(step)
        return step

    assert int(checked(tf.constant(3))) == 3
    with pytest.raises(TypeError, match="must be an integer"):
        checked(tf.constant(3.0))


# ---- refreshes


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_a_compiled_refresh_follows_the_optimizer(jit_compile, dtype):
    """The steps of one that counts batches, two for each step."""
    kernels = [matrix(8, 4, schedule=tf_movprune.CubicSparsity(0.75, 2, 4, frequency=2))]
    iterations = tf.Variable(0, dtype=dtype)
    refresh = compiled_refresh(kernels, lambda: iterations // 2, jit_compile=jit_compile)
    no, unknown, seen = tf.constant(False), tf.constant(0.125), []
    for step in range(6):
        iterations.assign(2 * step + 1)
        seen.append(float(refresh(unknown, 1, no)))
    assert seen == [0.125, 0.125, 0.0, 0.125, 0.75, 0.125]  # at steps 2 and 4
    kernels[0].mask.assign(tf.ones_like(kernels[0].mask))
    assert float(refresh(unknown, 2, no)) == 0.75  # for the last two steps
    kernels[0].mask.assign(tf.ones_like(kernels[0].mask))
    assert float(refresh(unknown, 1, tf.constant(True))) == 0.75
    assert np.count_nonzero(kernels[0].mask) == 8


# ---- whether steps are taken

NO_STEP = r"taken no step in {} batch(es)?, so the masks"


def batches(check, count):
    """Counts batches; returns the numbers at which a check is due."""
    due = []
    for _ in range(count):
        check.begin_batch()
        if check.is_due:
            due.append(check.batches)
    return due


@pytest.mark.parametrize("accumulated, patience", [(1, 64), (64, 64), (100, 100)])
def test_a_check_is_due_once(accumulated, patience):
    assert batches(StepCheck(5, accumulated, None), 250) == [patience]


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("scale", [None, 1024.0])
def test_no_step_at_all(is_training, scale):
    check = StepCheck(5, 1, scale)
    batches(check, 7)
    with pytest.raises(RuntimeError, match=NO_STEP.format(7)):
        check.check(5, scale, is_training=is_training)


def test_gradients_that_are_accumulated_take_their_time():
    check = StepCheck(0, 8, None)
    batches(check, 7)
    check.check(0, None, is_training=True)
    with pytest.raises(RuntimeError, match=NO_STEP.format(7)):
        check.check(0, None, is_training=False)
    batches(check, 1)
    with pytest.raises(RuntimeError, match=NO_STEP.format(8)):
        check.check(0, None, is_training=True)


def test_a_step_is_seen_once_and_for_all():
    check = StepCheck(5, 1, None)
    batches(check, 2)
    check.check(6, None, is_training=True)
    batches(check, 2)
    check.check(5, None, is_training=True)


@pytest.mark.parametrize(
    "first, scale, overflowed",
    [(2.0**15, 2.0**12, True), (2.0**15, 2.0**13, False), (4.0, 1.0, True), (2.0**15, None, False)],
)
def test_steps_that_overflow_are_none(first, scale, overflowed):
    """The scale is halved by each of three steps, but never to less than 1."""
    check = StepCheck(0, 1, first)
    batches(check, 3)
    check.check(3, scale, is_training=True)  # the scale may still be found
    if overflowed:
        with pytest.raises(RuntimeError, match=NO_STEP.format(3)):
            check.check(3, scale, is_training=False)
        batches(check, 61)
        with pytest.raises(RuntimeError, match=NO_STEP.format(64)):
            check.check(3, scale, is_training=True)
    else:
        check.check(3, scale, is_training=False)


def test_a_scale_that_is_found_ends_the_check():
    check = StepCheck(0, 1, 2.0**15)
    batches(check, 3)
    check.check(3, 2.0**12, is_training=True)
    check.check(4, 2.0**12, is_training=True)
    check.check(4, 1.0, is_training=False)


# ---- runs


def test_runs_and_their_lengths():
    assert run_of_steps(5, 1200) == (5, 1200, "num_train_steps is 1200")
    assert run_of_epochs(5, 6, 2) == (5, 17, "this run has 12 steps (6 × 2)")
    assert run_of_epochs(5, 6, 2, 4) == (5, 13, "this run has 8 steps (6 × 2 - 4 done before)")
    assert run_of_epochs(0, 1, 1).description == "this run has 1 step (1 × 1)"


@pytest.mark.parametrize("start, end", [(0, 3), (5, 9)])  # later ones may begin within a step
def test_runs_that_take_a_step_for_several_batches(start, end):
    run = run_of_epochs(start, 5, 2, 3, accumulated=2)
    length = f"{end - start} steps (5 × 2 - 3 done before, 2 batches for each step)"
    assert run == (start, end, f"this run has {length}")


def test_a_run_that_stops_early():
    kernels = [
        matrix(4, 4, schedule=tf_movprune.CubicSparsity(0.75, 0, end_step)) for end_step in (4, 9)
    ]
    with pytest.warns(UserWarning, match=r"stopped at step 8, .* end_step 9: sparsity is 0\.500\."):
        warn_if_unfinished(kernels, 8, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unfinished(kernels, 9, 0.75)
