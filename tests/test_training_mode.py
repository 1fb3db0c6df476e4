"""Layers that are told another mode than the model, as in Monte-Carlo dropout, in either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from shells import sparsities

import tf_movprune
from tf_movprune import L0, CubicSparsity, HardMovement

X = np.random.RandomState(0).standard_normal([16, 8]).astype("float32")
RAMP = CubicSparsity(0.75, begin_step=0, end_step=4)


def dropout(keras, rate):
    x = keras.Input([8])
    h = keras.layers.Dropout(rate)(x, training=True)
    h = keras.layers.Dense(8, "tanh", name="hidden")(h)
    return keras.Model(x, keras.layers.Dense(2)(h))


def nested(keras, rate):
    base = [keras.Input([8]), keras.layers.Dense(8, name="hidden"), keras.layers.Dropout(rate)]
    x = keras.Input([8])
    return keras.Model(x, keras.layers.Dense(2)(keras.Sequential(base)(x, training=True)))


def attention(keras, rate):
    x = keras.Input([8])
    h = keras.layers.Reshape([2, 4])(x)
    h = keras.layers.MultiHeadAttention(2, 4, dropout=rate)(h, h, training=True)
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(h)))


def default(keras, rate):
    class Noisy(keras.layers.Dense):
        def call(self, x, training=True):
            return super().call(tf.nn.dropout(x, rate) if training else x)

    return keras.Sequential([keras.Input([8]), Noisy(8, name="hidden"), keras.layers.Dense(2)])


def subclassed(keras, rate, mode=True):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dropout, self.hidden = keras.layers.Dropout(rate), keras.layers.Dense(8)
            self.out = keras.layers.Dense(2)

        def call(self, x):
            return self.out(self.hidden(self.dropout(x, training=mode)))

    model = Net()
    model(X)
    return model


MODELS = {f.__name__: f for f in (dropout, nested, attention, default, subclassed)}


def pruned_by_gates(model):
    """Its gates are noisy while they are trained, and about half of them are not all or nothing."""
    return tf_movprune.prune_low_movement(model, None, L0())


@pytest.mark.parametrize("kind", MODELS)
def test_layers_that_are_always_in_training_mode(keras, kind):
    start = tf_movprune.MagnitudeScores(0.01)
    model = MODELS[kind](keras, 0.5)
    pruned = tf_movprune.prune_low_movement(model, RAMP, HardMovement(start))
    pruned.predict(X, verbose=0)
    pruned.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        pruned.fit(X, X[:, :2], verbose=0)
    callbacks = [tf_movprune.UpdatePruningStep()]
    data = X, X[:, :2]
    pruned.fit(*data, 4, 2, verbose=0, validation_data=data, callbacks=callbacks)
    assert set(sparsities(pruned)) == {0.75}
    assert np.any(np.array(pruned(X)) != np.array(pruned(X)))  # dropout goes on
    stripped = tf_movprune.strip_pruning(pruned)
    assert np.any(np.array(stripped(X)) != np.array(stripped(X)))


@pytest.mark.filterwarnings("ignore:L0 has pruned nothing")
@pytest.mark.parametrize("kind", MODELS)
def test_gates_of_layers_in_training_mode_have_no_noise_in_evaluation(keras, kind):
    pruned = pruned_by_gates(MODELS[kind](keras, 0.0))
    tf_movprune.update_masks(pruned, 1)  # lets steps be taken, and the model be evaluated between
    outputs = pruned(X, training=False)
    with tf.GradientTape():
        noisy = pruned(X, training=True) if kind != "subclassed" else pruned(X)
    assert np.max(np.abs(noisy - outputs)) > 1e-3
    np.testing.assert_array_equal(pruned(X, training=False), outputs)
    np.testing.assert_allclose(tf_movprune.strip_pruning(pruned)(X), outputs, atol=1e-5)


def test_gates_are_noisy_in_steps_whatever_other_layers_are_told(keras):
    """Keras 3 notes the mode of the layer before, here one that is never in training mode."""
    pruned = pruned_by_gates(subclassed(keras, 0.5, mode=False))
    tf_movprune.update_masks(pruned, 1)
    with tf.GradientTape():
        noisy = pruned(X)
    assert np.max(np.abs(noisy - pruned(X))) > 1e-3


@pytest.mark.filterwarnings("ignore:The masks of .* were never refreshed")
def test_a_mode_that_is_not_known_when_a_step_is_traced_needs_refreshed_masks(keras):
    layers = [keras.Input([8]), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)]
    pruned = tf_movprune.prune_low_movement(keras.Sequential(layers), RAMP)

    def functions():
        @tf.function
        def call(training):
            return pruned(X, training=training)

        @tf.function
        def step(training):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(pruned(X, training=training) ** 2)
            return tape.gradient(
                loss, [getattr(v, "_value", v) for v in pruned.trainable_variables]
            )

        return call, step

    call, step = functions()
    np.testing.assert_allclose(call(tf.constant(True)), pruned(X), rtol=1e-5)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        step(tf.constant(True))
    tf_movprune.update_masks(pruned, 4)
    _, step = functions()
    assert all(np.any(gradient) for gradient in step(tf.constant(True)))
