"""UpdatePruningStep with tf_keras: wrappers whose schedules are replaced, and tfmot's loop."""

import pytest
import tensorflow as tf
import tf_keras as keras
from runs import FIRST, SECOND, compiled, cubic, data, dense_model, fit, sparsity

import tf_movprune


def test_another_schedule_is_compiled_anew():
    model = compiled(cubic(), run_eagerly=True)
    update = tf_movprune.UpdatePruningStep()
    fit(model, update=update)
    later = tf_movprune.CubicSparsity(0.875, begin_step=12, end_step=20)
    for layer in tf_movprune.pruned_layers(model).values():
        layer.pruning_schedule = later
        assert layer.get_config()["pruning_schedule"]["config"]["final_sparsity"] == 0.875
    recorder, _ = fit(model, update=update)
    assert recorder.kept[-1] == [FIRST // 8, SECOND // 8]


def test_a_loop_as_in_the_documentation_of_tfmot():
    model = tf_movprune.prune_low_movement(dense_model(), cubic(), tf_movprune.Magnitude())
    callback = tf_movprune.UpdatePruningStep()
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"has no optimizer.*update_masks\(model, step\)"):
        callback.on_train_begin()
    model.optimizer = keras.optimizers.SGD(0.1)
    callback.on_train_begin()
    for _ in range(2):
        for x, y in data():
            callback.on_train_batch_begin(batch=-1)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(y - model(x, training=True)))
            weights = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        callback.on_epoch_end(batch=-1)
    assert sparsity(model) == 0.75
