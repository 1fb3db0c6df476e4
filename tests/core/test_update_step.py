"""What the callback of every shell does: arguments, refreshes, and whether steps are taken."""

import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
from records import matrix
from runs import cubic, top
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune.core.refresh import is_idle
from tf_movprune.core.update_step import (
    CompiledRefresh,
    StepCheck,
    check_step,
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


@pytest.mark.parametrize(
    "dtype, jit_compile",
    [
        (tf.int32, False),
        (tf.int64, True),
        pytest.param(tf.int32, True, marks=pytest.mark.slow),
        pytest.param(tf.int64, False, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_refresh_follows_the_optimizer(dtype, jit_compile):
    """The steps of one that counts batches, two for each step."""
    kernels = [matrix(8, 4, schedule=tf_movprune.CubicSparsity(0.75, 2, 4, frequency=2))]
    iterations = tf.Variable(0, dtype=dtype)
    refresh = CompiledRefresh(kernels, lambda: iterations // 2, jit_compile=jit_compile)
    unknown, seen = tf.constant(0.125), []
    for step in range(6):
        iterations.assign(2 * step + 1)
        seen.append(float(refresh(unknown, 1)))
    assert seen == [0.125, 0.125, 0.0, 0.125, 0.75, 0.125]  # at steps 2 and 4
    kernels[0].mask.assign(tf.ones_like(kernels[0].mask))
    assert float(refresh(unknown, 2)) == 0.75  # for the last two steps
    kernels[0].mask.assign(tf.ones_like(kernels[0].mask))
    assert float(refresh(unknown, 1, force=True)) == 0.75
    assert np.count_nonzero(kernels[0].mask) == 8


class TwoStages(tfmot.PruningSchedule):
    """A schedule of a user's own, which tells neither where it begins nor where it ends."""

    def __call__(self, step):
        return tf.equal(step % 5, 0), tf.where(step < 5, 0.25, 0.5)

    def get_config(self):
        return {}


EVERY = list(range(12))
REFRESHES = {
    "at each step": (cubic(8, begin_step=0), 1, EVERY),
    "first sparsity from the first step on": (cubic(8, initial_sparsity=0.25), 1, EVERY),
    "after the begin": (cubic(12, begin_step=8), 1, [8, 9, 10, 11]),
    "every few steps": (cubic(11, begin_step=1, frequency=4), 1, [1, 5, 9, 11]),
    "between executions": (cubic(12, begin_step=0, frequency=3), 2, [0, 4, 6, 10]),
    "end between executions": (
        tfmot.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=5, frequency=3),
        4,
        [0, 4, 8],
    ),
    "end is due": (tfmot.PolynomialDecay(0.25, 0.75, 2, 8, power=2, frequency=4), 1, [2, 6, 8]),
    "constant": (tfmot.ConstantSparsity(0.5, begin_step=3, frequency=100), 1, [3]),
    "constant with an end": (tfmot.ConstantSparsity(0.5, 3, 8, frequency=100), 1, [3, 8]),
    "of a user": (TwoStages(), 1, [0, 5, 10]),
}


@pytest.mark.parametrize("name", REFRESHES)
def test_masks_are_refreshed_as_schedules_say(name):
    """At the sparsity of the step at which they are, and at no other step."""
    schedule, window, due = REFRESHES[name]
    kernel = matrix(8, 8, schedule=schedule)
    step = tf.Variable(0, dtype=tf.int64)
    refresh = CompiledRefresh([kernel], lambda: step, jit_compile=False)
    expected, refreshed = np.ones([8, 8], bool), []
    for now in range(0, 12, window):
        step.assign(now)
        kernel.scores.assign(np.random.RandomState(now).standard_normal([8, 8]))
        if float(refresh(tf.constant(-1.0), window)) != -1:
            refreshed.append(now)
            sparsity = float(schedule(step)[1])
            expected = top(kernel.scores.numpy(), int(np.floor((1 - sparsity) * 64 + 1e-5)))
        np.testing.assert_array_equal(kernel.mask, expected)
    assert refreshed == due


def test_kernels_of_several_schedules_are_refreshed_each_by_its_own():
    kernels = [matrix(8, 8, schedule=cubic(12, begin_step=4)), matrix(8, 4, schedule=cubic(6))]
    step = tf.Variable(0, dtype=tf.int64)
    refresh = CompiledRefresh(kernels, lambda: step, jit_compile=False)
    for now in range(13):
        step.assign(now)
        refresh(tf.constant(0.0), 1)
        kept = [np.count_nonzero(kernel.mask) / kernel.size for kernel in kernels]
        expected = [1 - kernel.settings.ramp.value_at(now) for kernel in kernels]
        assert kept == pytest.approx(expected, abs=1 / 32)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_compiling_meanwhile_refreshes_nothing(jit_compile):
    """Whatever the step is by the time at which the thread runs the function."""
    kernel = matrix(8, 4, schedule=cubic(6, begin_step=0))
    step = tf.Variable(6, dtype=tf.int64)
    refresh = CompiledRefresh([kernel], lambda: step, jit_compile=jit_compile)
    refresh.compile_meanwhile(tf.constant(0.125), 1)
    refresh.wait()
    assert np.all(kernel.mask)
    assert float(refresh(tf.constant(0.125), 1)) == 0.75
    assert refresh._function.experimental_get_tracing_count() == 1


@pytest.mark.xla_refresh
def test_what_fails_meanwhile_is_raised_by_the_next_refresh():
    step = tf.Variable(0, dtype=tf.int64)
    kernel = matrix(8, 4, schedule=cubic(6, begin_step=0))

    def unknown_to_xla():
        return step + tf.ensure_shape(tf.py_function(lambda: 0, [], tf.int64), [])

    refresh = CompiledRefresh([kernel], unknown_to_xla, jit_compile=True)
    refresh.compile_meanwhile(tf.constant(0.0), 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        refresh(tf.constant(0.0), 1)


@pytest.mark.parametrize("name", REFRESHES)
def test_a_refresh_that_changes_nothing_is_idle(name):
    schedule, window, due = REFRESHES[name]
    kernel = matrix(8, 8, schedule=schedule)
    for step in range(0, 12, window):
        keeps_all = float(schedule(tf.constant(step, tf.int64))[1]) == 0
        assert is_idle([kernel], step, window, 0.0) == (step not in due or keeps_all)
        assert is_idle([kernel], step, window, 0.5) == (step not in due)


def test_noise_and_penalties_are_never_idle_where_they_are_due():
    schedule = cubic(6, begin_step=0)
    for method in (tf_movprune.SoftMovement(1.0, target=True), tf_movprune.L0(1.0)):
        drives = None if method.schedule_value is None else schedule
        assert not is_idle([matrix(8, 8, method=method, schedule=drives)], 0, 1, 0.0)


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
