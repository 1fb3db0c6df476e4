"""Training of tf_keras models: what clones share, metrics, devices and scaled losses."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from runs import compiled, cubic, data, fit

import tf_movprune


def test_a_callback_that_fails_before_the_first_step_leaves_nothing_in_the_metrics():
    def fail(epoch, logs):
        raise KeyboardInterrupt

    model = compiled(cubic(), run_eagerly=True)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=fail)])
    fit(model)
    assert set(model.evaluate(data(), verbose=0, return_dict=True)) == {"loss"}


def test_training_a_model_that_was_stripped():
    """It shares its layers with the plain one, and computes with folded weights."""
    model = compiled(cubic())
    tf_movprune.update_masks(model, 10)
    inputs = np.ones((2, 8), "float32")
    masked = model(inputs)
    tf_movprune.strip_pruning(model)
    message = r"'prune_low_movement_first' cannot be trained further.*strip_pruning"
    for train in (
        lambda: fit(model),
        lambda: model.fit(data(), verbose=0),
        lambda: tf_movprune.update_masks(model, 12),
        lambda: model(inputs, training=True),
    ):
        with pytest.raises(RuntimeError, match=message):
            train()
    assert int(model.optimizer.iterations) == 0
    np.testing.assert_array_equal(model(inputs), masked)
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.75


X = np.random.RandomState(0).standard_normal([64, 8]).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def pruned_classifier(score_optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(16, "relu", input_shape=(8,), name="hidden"), keras.layers.Dense(2)]
    )
    schedule = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)
    start = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    pruned = tf_movprune.prune_low_movement(model, schedule, start)
    pruned.compile(
        tf_movprune.create_optimizer(1e-2, 8, 2, score_optimizer=score_optimizer),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return pruned


def fit_classifier(model):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    return model.fit(data, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])


@pytest.mark.parametrize(
    "score_optimizer", [pytest.param(None, marks=pytest.mark.slow), keras.optimizers.SGD(1.0)]
)
def test_mirrored_variables(score_optimizer):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = pruned_classifier(score_optimizer)
    fit_classifier(mirrored)
    plain = pruned_classifier(score_optimizer)
    fit_classifier(plain)
    assert tf_movprune.summarize_sparsity(mirrored).sparsity == 0.75
    for expected, received in zip(plain.get_weights(), mirrored.get_weights()):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


def test_skipped_steps_of_loss_scaling_keep_the_rates_together():
    model = pruned_classifier(keras.optimizers.SGD(1.0))
    inner = model.optimizer
    optimizer = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=8.0)
    variables = model.trainable_variables
    optimizer.build(variables)
    for step in range(4):
        value = np.inf if step < 3 else 1.0
        optimizer.apply_gradients([(tf.fill(v.shape, value), v) for v in variables])
    assert int(inner.iterations) == int(inner.score_optimizer.iterations) == 4
    np.testing.assert_allclose(
        inner.score_optimizer.learning_rate / 1.0, inner.learning_rate / 1e-2
    )
