"""Matrices that are trained and that no prunable layer holds, which the default names."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import schedule

import tf_movprune

layers = keras.layers


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        self.matrix = tf.Variable(tf.ones([8, 8]), name="matrix")
        self.dense = layers.Dense(8, name="dense_in_module")

    def __call__(self, x):
        return self.dense(x @ self.matrix)


class HoldsModule(layers.Layer):
    def __init__(self):
        super().__init__()
        self.module = Module()

    def call(self, x):
        return self.module(x)


class HoldsMatrix(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight("matrix", (shape[-1], 8))

    def call(self, x):
        return tf.einsum("bi,io->bo", x, self.matrix)


class HoldsList(layers.Layer):
    def build(self, shape):
        self.matrices = [self.add_weight(f"matrix_{i}", (8, 8)) for i in range(9)]

    def call(self, x):
        for matrix in self.matrices:
            x = tf.matmul(x, matrix)
        return x


class HoldsTables(layers.Layer):
    """Its weights have several axes, and multiply nothing as a matrix."""

    def build(self, shape):
        self.positions = self.add_weight("positions", (1, 4, shape[-1]))
        self.bias = self.add_weight("bias", (4, shape[-1]))

    def call(self, x):
        return tf.reduce_sum(tf.expand_dims(x, 1) * self.positions + self.bias, 1)


def model_with(layer, *, hidden=True):
    parts = [layers.Dense(8, name="hidden")] if hidden else []
    return keras.Sequential([keras.Input([8]), *parts, layer, layers.Dense(2, name="out")])


KINDS = {
    "tf.Module": (HoldsModule, r"\.matrix \(8, 8\), .*\.kernel \(8, 8\)"),
    "a weight": (HoldsMatrix, r"\.matrix \(8, 8\)\."),
    "a list": (HoldsList, r"\.matrix_0 \(8, 8\), .* and 3 more"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_default_names_matrices_that_it_cannot_reach(kind):
    layer, named = KINDS[kind]
    said = rf"cannot reach matrices with \d+% of the weights.*{named}.*get_prunable_weights"
    with pytest.warns(UserWarning, match=said):
        pruned = tf_movprune.prune_low_movement(model_with(layer()), schedule())
    assert list(tf_movprune.pruned_layers(pruned)) == ["hidden"]
    with pytest.raises(ValueError, match=rf"(?s)Nothing to prune.*{said}"):
        tf_movprune.prune_low_movement(model_with(layer(), hidden=False), schedule())


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(8), layers.Dense(2)
        self.matrix = tf.Variable(tf.ones([8, 8]), name="own_matrix")

    def call(self, x):
        return self.out(self.hidden(x) @ self.matrix)


def test_matrices_of_the_model_itself():
    model = Subclassed()
    model(np.ones([2, 8], np.float32))
    with pytest.warns(UserWarning, match=r"holds: own_matrix \(8, 8\)"):
        tf_movprune.prune_low_movement(model, schedule())


def test_other_weights_are_not_named():
    parts = [HoldsTables(), layers.LayerNormalization(), layers.PReLU()]
    parts += [layers.Reshape([8, 1]), layers.DepthwiseConv1D(2), layers.Flatten()]
    model = keras.Sequential(
        [keras.Input([8]), layers.Dense(8, name="hidden"), *parts, layers.Dense(2)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned = tf_movprune.prune_low_movement(model, schedule())
    assert list(tf_movprune.pruned_layers(pruned)) == ["hidden"]


def test_chosen_layers_are_nobodys_news():
    model = model_with(HoldsMatrix())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.prune_low_movement(model, {"out": schedule()})
