"""A small dense model, its data, and what is seen of its training under the callback."""

import numpy as np
import tensorflow as tf
import tf_keras as keras
from wrapped import mask_of, scores_of, wrappers

import tf_movprune

STEPS = 6  # of one epoch of `data()`
FIRST, SECOND = 64, 32  # sizes of the pruned kernels


def data(steps=STEPS, size=4):
    random = np.random.RandomState(1)
    inputs = random.standard_normal((steps * size, 8)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((inputs, inputs[:, :2] * 2)).batch(size)


def dense_model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", name="first"),
            keras.layers.Dense(4, activation="tanh", name="second"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def compiled(schedule, method=None, optimizer=None, **kwargs):
    # Scores that start at zero are warned of.
    method = method or tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.01))
    model = tf_movprune.prune_low_movement(dense_model(), schedule, method)
    model.compile(optimizer or keras.optimizers.SGD(0.2), "mse", **kwargs)
    return model


def cubic(end_step=10, final_sparsity=0.75, begin_step=2, **kwargs):
    return tf_movprune.CubicSparsity(final_sparsity, begin_step, end_step, **kwargs)


def masks(model):
    return [mask_of(layer) for layer in wrappers(model)]


def kept(model):
    return [int(mask.sum()) for mask in masks(model)]


def sparsity(model):
    return 1 - sum(kept(model)) / sum(mask.size for mask in masks(model))


def sparsity_at(schedule, step):
    """Eq. 5, written out for CubicSparsity and PolynomialDecay alike."""
    progress = (step - schedule.begin_step) / (schedule.end_step - schedule.begin_step)
    left = 1 - min(max(progress, 0.0), 1.0)
    power = getattr(schedule, "power", 3)
    return (
        schedule.final_sparsity
        + (schedule.initial_sparsity - schedule.final_sparsity) * left**power
    )


def kept_at(schedule, step):
    """Per matrix; 1e-5 because 1 - 0.9 is a little less than 0.1."""
    return [int(np.floor((1 - sparsity_at(schedule, step)) * n + 1e-5)) for n in (FIRST, SECOND)]


def top(scores, count):
    order = np.argsort(-scores.ravel(), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def assert_masks_are_top_of_scores(model, counts):
    for layer, count in zip(wrappers(model), counts):
        scores = scores_of(layer)
        assert len(np.unique(scores)) > scores.size // 2
        np.testing.assert_array_equal(mask_of(layer), top(scores, count))


class Recorder(keras.callbacks.Callback):
    """Records what each step computed with; comes after UpdatePruningStep."""

    def __init__(self):
        super().__init__()
        self.steps, self.kept, self.epoch_sparsity = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(int(self.model.optimizer.iterations))
        self.kept.append(kept(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_sparsity.append(sparsity(self.model))


def fit(model, epochs=2, dataset=None, update=None, callbacks=(), **kwargs):
    """Trains with the callback and a recorder, which it returns together with the history."""
    recorder = Recorder()
    update = update or tf_movprune.UpdatePruningStep()
    kwargs.setdefault("verbose", 0)
    history = model.fit(
        data() if dataset is None else dataset,
        epochs=epochs,
        callbacks=[update, recorder, *callbacks],
        **kwargs,
    )
    return recorder, history
