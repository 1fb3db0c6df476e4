"""Models whose code asks which layers it has, and finds wrappers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from wrapped import prune

import tf_movprune

layers = keras.layers
X = np.random.RandomState(0).standard_normal([6, 8]).astype("float32")


class Asking(keras.Model):
    """Activates the outputs of layers for which `asks` is true."""

    def __init__(self, asks):
        super().__init__()
        self.asks = asks
        self.hidden = [layers.Dense(8, name="first"), layers.Dense(8, name="second")]
        self.out = layers.Dense(3)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
            if self.asks(layer):
                x = tf.nn.sigmoid(x)
        return self.out(x)


class AskingLayer(layers.Layer):
    """Does the same as a layer of a graph."""

    def __init__(self, asks):
        super().__init__()
        self.asks = asks
        self.dense = layers.Dense(8, name="first")

    def call(self, x):
        x = self.dense(x)
        return tf.nn.sigmoid(x) if self.asks(self.dense) else x


def graph(asks):
    return keras.Sequential([layers.Input([8]), AskingLayer(asks), layers.Dense(3)])


ASKS = {
    "isinstance": lambda layer: isinstance(layer, layers.Dense),
    "type": lambda layer: type(layer) is layers.Dense,
    "name of the class": lambda layer: layer.__class__.__name__ == "Dense",
    "name": lambda layer: layer.name == "first",
}


@pytest.mark.parametrize("make", [Asking, graph])
@pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)
def test_what_finds_a_wrapper_is_refused(asks, make):
    model = make(asks)
    before = model(X)
    with pytest.raises(ValueError, match=r"outputs of .* change .* isinstance\(layer, Dense\)"):
        prune(model)
    np.testing.assert_array_equal(model(X), before)


@pytest.mark.parametrize("make", [Asking, graph])
def test_what_finds_the_attributes_of_the_layer_is_not(make):
    model = make(lambda layer: hasattr(layer, "units") and layer.weights[0].shape.rank == 2)
    before = model(X)
    np.testing.assert_array_equal(prune(model)(X), before)


class Random(Asking):
    def call(self, x):
        return super().call(x) + tf.random.normal([3])


class Counting(Asking):
    def build(self, shape):
        self.calls = self.add_weight("calls", trainable=False, initializer="zeros")
        super().build(shape)

    def call(self, x):
        self.calls.assign_add(1.0)
        return super().call(x) * self.calls


class Demanding(Asking):
    def call(self, x):
        tf.debugging.assert_greater(tf.reduce_max(x), 1.5)
        return super().call(x)


@pytest.mark.parametrize("cls", [Random, Demanding, Counting])
def test_a_model_that_cannot_be_compared_is_pruned(cls):
    model = cls(lambda _: False)
    model(X)
    states = [weight.numpy() for weight in model.non_trainable_weights]
    assert len(tf_movprune.pruned_layers(prune(model))) == 2
    for weight, state in zip(model.non_trainable_weights[-len(states) :] if states else (), states):
        np.testing.assert_array_equal(weight, state)


def test_a_pruned_model_that_makes_metrics_is_not_compared():
    class Measuring(Asking):
        def call(self, x):
            if self.losses:
                self.add_metric(tf.add_n(self.losses), name="penalty")
            return super().call(x)

    model = Measuring(lambda _: False)
    model(X)
    assert tf_movprune.prune_low_movement(model, None, tf_movprune.L0()) is model


def test_methods_whose_first_outputs_are_gated_are_compared_without_gates():
    model = Asking(lambda _: False)
    before = model(X)
    pruned = tf_movprune.prune_low_movement(model, None, tf_movprune.L0())
    assert np.any(pruned(X) != before)
