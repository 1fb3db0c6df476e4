"""update_masks: masks in training loops of one's own."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from runs import (
    FIRST,
    SECOND,
    assert_masks_are_top_of_scores,
    cubic,
    data,
    dense_model,
    fit,
    kept,
    kept_at,
    sparsity,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import mask_of, scores_of, threshold_of, wrappers

import tf_movprune
from tf_movprune.core.schedules import Ramp


def loop(model, schedule, steps, in_graph):
    """Keeps of every step, from scores that a step of gradient descent moves."""
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    def train_step(inputs, targets):
        overall = tf_movprune.update_masks(model, optimizer.iterations)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return overall

    step = tf.function(train_step) if in_graph else train_step
    seen = []
    for inputs, targets in data(steps):
        overall = step(inputs, targets)
        seen.append(kept(model))
        assert float(overall) == pytest.approx(sparsity(model), abs=1e-6)
    overall = tf_movprune.update_masks(model, optimizer.iterations, force=True)
    assert float(overall) == pytest.approx(sparsity(model), abs=1e-6)
    return seen


@pytest.mark.parametrize("in_graph", [False, True])
def test_custom_loop(in_graph):
    schedule = cubic(begin_step=2, end_step=8, frequency=4)
    model = tf_movprune.prune_low_movement(dense_model(), schedule)
    seen = loop(model, schedule, 7, in_graph)
    assert seen == [[FIRST, SECOND]] * 2 + [kept_at(schedule, 2)] * 4 + [kept_at(schedule, 6)]
    assert kept(model) == kept_at(schedule, 7) != kept_at(schedule, 6)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 7))


def with_distinct_scores(schedule):
    model = tf_movprune.prune_low_movement(dense_model(), schedule)
    for layer in wrappers(model):
        layer.kernels[0].scores.assign(
            np.random.RandomState(3)
            .permutation(layer.kernels[0].scores.shape[0] * layer.kernels[0].scores.shape[1])
            .reshape(layer.kernels[0].scores.shape)
        )
    return model


@pytest.mark.parametrize(
    "step", [7, np.int64(7), tf.constant(7), tf.constant(7, tf.int64), tf.Variable(7)]
)
def test_update_masks_takes_any_integer(step):
    schedule = cubic(begin_step=0, end_step=10)
    model = with_distinct_scores(schedule)
    result = tf_movprune.update_masks(model, step)
    assert result.dtype == tf.float32 and result.shape == ()
    assert float(result) == pytest.approx(1 - sum(kept_at(schedule, 7)) / 96, abs=1e-6)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 7))


def test_force():
    schedule = cubic(begin_step=4, end_step=10, initial_sparsity=0.25, frequency=5)
    model = with_distinct_scores(schedule)
    assert float(tf_movprune.update_masks(model, 3, force=True)) == 0  # has not begun
    assert float(tf_movprune.update_masks(model, 5)) == 0  # not due
    assert kept(model) == [FIRST, SECOND]
    tf_movprune.update_masks(model, 5, force=True)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 5))
    tf_movprune.update_masks(model, 10)  # the end is due by itself
    assert_masks_are_top_of_scores(model, [16, 8])


def test_thresholds_are_the_lowest_score_that_is_kept():
    model = with_distinct_scores(cubic(begin_step=0, end_step=10))
    assert [threshold_of(layer) for layer in wrappers(model)] == [-np.inf] * 2
    tf_movprune.update_masks(model, 10)
    for layer in wrappers(model):
        kept_scores = scores_of(layer)[mask_of(layer)]
        assert threshold_of(layer) == kept_scores.min()


def test_update_masks_of_a_single_layer():
    layer = tf_movprune.prune_low_movement(keras.layers.Dense(4), cubic(begin_step=0))
    layer.build((None, 8))
    assert float(tf_movprune.update_masks(layer, 10)) == 0.75


@pytest.mark.parametrize("step", [-1, np.int64(-5)])
def test_negative_step(step):
    model = with_distinct_scores(cubic())
    with pytest.raises(ValueError, match=rf"step must be at least 0, got {step}"):
        tf_movprune.update_masks(model, step)


def test_update_masks_of_a_dense_model():
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        tf_movprune.update_masks(dense_model(), 0)


def test_model_that_is_not_built():
    model = keras.Sequential([keras.layers.Dense(8, name="first"), keras.layers.Dense(2)])
    model = tf_movprune.prune_low_movement(model, cubic())
    with pytest.raises(ValueError, match=r"'prune_low_movement_first' is not built yet.*Call it"):
        tf_movprune.update_masks(model, 0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"'prune_low_movement_first' is not built yet.*Call it"):
        fit(model)
    model(np.zeros((1, 8), "float32"))
    assert float(tf_movprune.update_masks(model, 10)) == 0.75


def test_own_loop_without_update_masks():
    model = tf_movprune.prune_low_movement(dense_model(), cubic())
    with pytest.raises(RuntimeError, match=r"update_masks\(model, step\)"):
        model(np.zeros((1, 8), "float32"), training=True)
    tf_movprune.update_masks(model, 0)
    model(np.zeros((1, 8), "float32"), training=True)


def masks_over_time(schedule, steps=12):
    """The first mask before each step of a training, and after it."""
    model = tf_movprune.prune_low_movement(
        dense_model(), schedule, tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.01))
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(mask_of(wrappers(model)[0]))
    )
    fit(model, epochs=steps // 6, callbacks=[watch])
    return [*seen, mask_of(wrappers(model)[0])]


@pytest.mark.parametrize(
    "schedule, last",
    [
        (tfmot.PolynomialDecay(0.0, 0.75, 0, 6, frequency=1), 6),
        (tfmot.PolynomialDecay(0.0, 0.75, 0, 6, frequency=4), 6),
        (tfmot.PolynomialDecay(0.0, 0.75, 1, 6, frequency=4), 6),
        (tfmot.ConstantSparsity(0.75, 0, 6, frequency=1), 6),
        (cubic(begin_step=0, end_step=4, freeze_step=7), 7),
        (cubic(begin_step=0, end_step=4, freeze_step=4), 4),
        (cubic(begin_step=0, end_step=4, frequency=4, freeze_step=6), 6),
        (cubic(begin_step=0, end_step=4, freeze_step=12), 12),
        (cubic(begin_step=0, end_step=4), None),
        (tfmot.ConstantSparsity(0.75, 0, frequency=1), None),
    ],
)
def test_a_schedule_that_is_over_fixes_its_masks(schedule, last):
    seen = masks_over_time(schedule)
    assert Ramp.of(schedule).last_step == last
    changes = [i for i in range(1, len(seen)) if np.any(seen[i] != seen[i - 1])]
    assert max(changes) == (last if last in (4, 6, 7) else 12)


def test_an_end_that_is_over_is_not_forced():
    model = with_distinct_scores(cubic(begin_step=0, end_step=4, freeze_step=6))
    tf_movprune.update_masks(model, 6)
    before = [mask_of(layer) for layer in wrappers(model)]
    for layer in wrappers(model):
        layer.scores[0].assign(-layer.scores[0])
    for step in (7, 100):
        assert float(tf_movprune.update_masks(model, step, force=True)) == 0.75
    for layer, mask in zip(wrappers(model), before):
        np.testing.assert_array_equal(mask_of(layer), mask)
    tf_movprune.update_masks(model, 5, force=True)
    assert np.any(mask_of(wrappers(model)[0]) != before[0])
