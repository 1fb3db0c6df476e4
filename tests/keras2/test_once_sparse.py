"""Callbacks that choose among epochs see sparse ones only."""

import numpy as np
import pytest
import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import (
    PruningSchedule,
)

import tf_movprune

EPOCHS, STEPS = 6, 5


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("train_begin")

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(f"batch_{batch}")

    def on_epoch_end(self, epoch, logs=None):
        assert logs["sparsity"] == pytest.approx(0.75)
        self.seen.append(f"epoch_{epoch}")

    def on_train_end(self, logs=None):
        self.seen.append("train_end")


def fit(*callbacks, schedule=None, method=None, epochs=EPOCHS):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu", input_shape=[4]), keras.layers.Dense(2)]
    schedule = schedule or tf_movprune.CubicSparsity(0.75, 2, 3 * STEPS)
    model = tf_movprune.prune_low_movement(keras.Sequential(layers), schedule, method)
    model.compile("sgd", "mse")
    x = np.random.RandomState(0).standard_normal([4 * STEPS, 4]).astype("float32")
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    y = x[:, :2]
    model.fit(
        x, y, validation_data=(x, y), batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return model


def test_holds_a_callback_back_until_the_target():
    """The schedule ends with the third epoch, whose end counts and whose batches do not."""
    watch = Watch()
    fit(tf_movprune.OnceSparse(watch))
    sparse = [
        event
        for epoch in range(3, EPOCHS)
        for event in (*(f"batch_{i}" for i in range(STEPS)), f"epoch_{epoch}")
    ]
    assert watch.seen == ["train_begin", "epoch_2", *sparse, "train_end"]


def test_best_checkpoint_is_sparse(tmp_path):
    """The loss is lowest in the first epoch, which an ordinary ModelCheckpoint would keep."""

    class WorseAndWorse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = float(epoch)

    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.weights.h5"), "score", save_best_only=True, save_weights_only=True
    )
    model = fit(WorseAndWorse(), tf_movprune.OnceSparse(checkpoint))
    assert checkpoint.best == 2.0
    model.load_weights(tmp_path / "best.weights.h5")
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.75


def test_early_stopping_starts_to_wait_at_the_target():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)
    fit(tf_movprune.OnceSparse(stop), epochs=20)
    assert stop.stopped_epoch == 3


def test_least_sparsity():
    watch = Watch()
    schedule = tf_movprune.CubicThreshold(0.1, 2, 3 * STEPS)
    held = tf_movprune.OnceSparse(watch, min_sparsity=0.5)
    with pytest.warns(UserWarning, match=r"Watch has seen no epoch: .* 0\.5 sparsity; it is 0\.2"):
        fit(held, schedule=schedule, method=tf_movprune.SoftMovement(0.0))
    assert watch.seen == ["train_begin", "train_end"]

    watch = Watch()
    schedule = tf_movprune.CubicSparsity(0.75, 4 * STEPS - 2, 4 * STEPS)
    held = tf_movprune.OnceSparse(watch, min_sparsity=0.5)
    fit(held, schedule={"dense*": schedule}, epochs=4)
    assert watch.seen == ["train_begin", "epoch_3", "train_end"]


class Endless(PruningSchedule):
    def __call__(self, step):
        return True, 0.75

    def get_config(self):
        return {"class_name": "Endless", "config": {}}


def test_schedule_that_does_not_tell_its_end():
    with pytest.raises(ValueError, match=r"waits for every schedule to end, but Endless has no"):
        fit(tf_movprune.OnceSparse(Watch()), schedule=Endless())


def test_arguments():
    with pytest.raises(TypeError, match=r"must be a Keras callback .*, got 'best'"):
        tf_movprune.OnceSparse("best")
    with pytest.raises(ValueError, match=r"min_sparsity must be in \[0, 1\), got 1\.5"):
        tf_movprune.OnceSparse(Watch(), min_sparsity=1.5)
    with pytest.raises(TypeError, match=r"min_sparsity must be a number such as 0\.5, got 'x'"):
        tf_movprune.OnceSparse(Watch(), min_sparsity="x")
