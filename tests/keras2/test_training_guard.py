"""Steps for which nothing refreshed the masks, and training after stripping."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from accumulating import Accumulating
from runs import compiled, cubic, data, dense_model, sparsity

import tf_movprune

NOTHING = r"'prune_low_movement_first' is being trained, but nothing refreshes its masks\. Add"


def test_fit_without_the_callback_raises_outside_of_traced_code():
    model = compiled(cubic())
    with pytest.raises(RuntimeError, match=f"^The pruned layer {NOTHING}"):
        model.fit(data(), verbose=0)
    x, y = next(iter(data()))
    with pytest.raises(RuntimeError, match=f"^The pruned layer {NOTHING}"):
        model.train_on_batch(x, y)


def test_one_update_allows_one_step():
    model = compiled(cubic())
    x, y = next(iter(data()))
    for step in range(3):
        tf_movprune.update_masks(model, step)
        model.train_on_batch(x, y)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.train_on_batch(x, y)
    tf_movprune.update_masks(model, 3)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.fit(data(), verbose=0)
    assert int(model.optimizer.iterations) == 4


def test_fit_after_an_interrupted_one_raises():
    model = compiled(cubic())

    class Interrupting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callbacks = [tf_movprune.UpdatePruningStep(), Interrupting()]
        model.fit(data(), epochs=2, callbacks=callbacks, verbose=0)
    with pytest.raises(RuntimeError, match=NOTHING):
        model.fit(data(), verbose=0)


def test_a_model_that_users_put_together_is_guarded_too():
    layer = tf_movprune.prune_low_movement(
        keras.layers.Dense(4, name="first", input_shape=[8]), cubic(), tf_movprune.Magnitude()
    )
    model = keras.Sequential([layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match=NOTHING):
        model.fit(data(), verbose=0)
    model.fit(data(), epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    with pytest.raises(RuntimeError, match=f"^The pruned layer {NOTHING}"):
        model.fit(data(), verbose=0)


class OwnOptimizers(keras.Model):
    """Trains with two optimizers, neither of them `model.optimizer`."""

    def __init__(self, refreshes=False):
        super().__init__()
        self.first, self.out = keras.layers.Dense(8, name="first"), keras.layers.Dense(2)
        self.own_optimizers = [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2)]
        self.refreshes = refreshes

    def call(self, x, training=False):
        return self.out(self.first(x))

    def train_step(self, batch):
        x, y = batch
        if self.refreshes:
            tf_movprune.update_masks(self, self.own_optimizers[0].iterations)
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(tf.square(y - self(x, training=True)))
        for optimizer, layer in zip(self.own_optimizers, (self.first, self.out)):
            weights = layer.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


@pytest.mark.parametrize("steps, batches", [(6, 6), (80, 64)])
def test_an_optimizer_that_never_steps_is_an_error(steps, batches):
    model = OwnOptimizers()
    model(np.ones([1, 8], "float32"))
    model = tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())
    model.compile()
    with pytest.raises(RuntimeError, match=rf"no step in {batches} batches.*update_masks\(model"):
        model.fit(data(steps), epochs=4, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    assert int(model.own_optimizers[0].iterations) == batches


def scaled(optimizer):
    return keras.mixed_precision.LossScaleOptimizer(optimizer, dynamic=False, initial_scale=8)


def accumulating(steps, declares=True, wrap=lambda optimizer: optimizer):
    schedule = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=1)
    model = tf_movprune.prune_low_movement(dense_model(), schedule, tf_movprune.Magnitude())
    model.compile(wrap(Accumulating(steps, declares)), "mse")
    return model


@pytest.mark.parametrize("steps, size, epochs", [(70, 140, 1), (70, 20, 7), (8, 5, 4)])
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, scaled], ids=["plain", "scaled"])
def test_an_optimizer_that_says_over_how_many_batches_it_accumulates(wrap, steps, size, epochs):
    model = accumulating(steps, wrap=wrap)
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(data(size), epochs=epochs, verbose=0, callbacks=callbacks)
    assert int(model.optimizer.iterations) == 2 and sparsity(model) == 0.75


@pytest.mark.parametrize(
    "steps, declares, size, epochs, batches",
    [(70, False, 140, 1, 64), (8, False, 5, 4, 5), (70, True, 20, 2, 40)],
)
def test_an_optimizer_that_accumulates_without_a_word_or_for_ever(
    steps, declares, size, epochs, batches
):
    model = accumulating(steps, declares)
    message = rf"no step in {batches} batches.* its attribute gradient_accumulation_steps"
    with pytest.raises(RuntimeError, match=message):
        callbacks = [tf_movprune.UpdatePruningStep(num_train_steps=2)]
        model.fit(data(size), epochs=epochs, verbose=0, callbacks=callbacks)


def test_optimizers_of_ones_own_with_update_masks():
    model = OwnOptimizers(refreshes=True)
    model(np.ones([1, 8], "float32"))
    model = tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())
    model.compile(run_eagerly=True)
    model.fit(data(), epochs=2, verbose=0)
    assert sparsity(model) == 0.75


def test_half_precision_that_always_overflows_is_an_error():
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD())
    model = compiled(cubic(), optimizer=scaled)
    model.compile(model.optimizer, lambda y, x: tf.reduce_mean(x) * np.inf)
    with pytest.raises(RuntimeError, match=r"no step in 24 batches.*overflow in half precision"):
        model.fit(data(), epochs=4, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])


def test_a_loop_as_in_the_documentation_of_tfmot():
    schedule = cubic()
    model = tf_movprune.prune_low_movement(dense_model(), schedule, tf_movprune.Magnitude())
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


def test_training_a_stripped_model_warns_once():
    model = tf_movprune.prune_low_movement(dense_model(), cubic(), tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 10)
    stripped = tf_movprune.strip_pruning(model)
    stripped.compile("sgd", "mse")
    stripped.evaluate(data(), verbose=0)
    with pytest.warns(UserWarning, match=r"was stripped .* will not stay zero.*Magnitude\(\)"):
        stripped.fit(data(), verbose=0)
    assert np.all(stripped.layers[0].kernel != 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stripped.fit(data(), verbose=0)


def test_what_the_warning_advises_keeps_the_zeros():
    model = tf_movprune.prune_low_movement(dense_model(), cubic(), tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 10)
    stripped = tf_movprune.strip_pruning(model)
    zeros = [layer.kernel.numpy() == 0 for layer in stripped.layers[:2]]
    again = tf_movprune.prune_low_movement(
        stripped,
        tf_movprune.CubicSparsity(0.75, 0, 1, initial_sparsity=0.75),
        tf_movprune.Magnitude(),
    )
    again.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again.fit(data(), epochs=3, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    for layer, expected in zip(tf_movprune.strip_pruning(again).layers, zeros):
        np.testing.assert_array_equal(layer.kernel.numpy() == 0, expected)


class OwnStep(keras.Model):
    """Trains as Keras does, in a train step of its own, which may refresh the masks."""

    def __init__(self, refreshes, training=True):
        super().__init__()
        self.first, self.out = keras.layers.Dense(8, name="first"), keras.layers.Dense(2)
        self.refreshes, self.training_argument = refreshes, training

    def call(self, x, training=False):
        return self.out(self.first(x))

    def train_step(self, batch):
        x, y = batch
        if self.refreshes:
            tf_movprune.update_masks(self, self.optimizer.iterations)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - self(x, training=self.training_argument)))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


def own_step(refreshes, **kwargs):
    model = OwnStep(refreshes, **kwargs)
    model(np.ones([1, 8], "float32"))
    model = tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())
    model.compile("sgd")
    return model


@pytest.mark.parametrize("size", [4, 5])
def test_a_train_step_that_refreshes_masks_as_it_is_traced(size):
    model = own_step(refreshes=True)
    model.fit(data(size=size), epochs=2, verbose=0)
    model.fit(data(size=size + 1), epochs=1, verbose=0)  # is traced again
    assert sparsity(model) == 0.75 and int(model.optimizer.iterations) == 18


@pytest.mark.parametrize("training", [True, False])
def test_a_train_step_that_does_not_refresh_masks(training):
    model = own_step(refreshes=False, training=training)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"^The pruned layer {NOTHING}"):
            model.fit(data(), verbose=0)
    model.fit(data(), epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    assert sparsity(model) == 0.75
    with pytest.raises(RuntimeError, match=f"^The pruned layer {NOTHING}"):
        model.fit(data(), verbose=0)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt("mine")])
def test_errors_of_a_train_step_are_its_own(error):
    model = own_step(refreshes=True)
    model.compile("sgd", run_eagerly=True)

    def broken():
        raise error
        yield

    with pytest.raises((type(error), tf.errors.UnknownError, tf.errors.InvalidArgumentError)) as e:
        model.fit(broken(), verbose=0)
    assert "mine" in str(e.value)


def test_a_frozen_first_layer_in_half_precision():
    model = dense_model()
    model.layers[0].trainable = False
    model = tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())
    rate = tf_movprune.create_optimizer(1e-3, 12, 2)  # at rate 0 at first
    model.compile(keras.mixed_precision.LossScaleOptimizer(rate), "mse")
    model.fit(data(), epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    assert sparsity(model) == 0.75


def test_a_layer_that_a_later_compilation_leaves_out_is_noticed():
    class Skipping(OwnStep):
        skips = False
        train_step = keras.Model.train_step

        def call(self, x, training=False):
            return self.out(x if self.skips else self.first(x))

    model = Skipping(False)
    model.out.build([None, 8])
    model(np.ones([1, 8], "float32"))
    model = tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())
    for skips in (False, True):
        model.skips = skips
        model.compile("sgd", "mse")
        update = tf_movprune.UpdatePruningStep(24)
        if not skips:
            model.fit(data(), epochs=2, verbose=0, callbacks=[update])
        else:
            with pytest.raises(ValueError, match=r"'first' was not called in training"):
                model.fit(data(), epochs=2, verbose=0, callbacks=[update])
