"""Matrices that are trained and that no prunable layer holds, which the default names."""

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


def test_default_names_matrices_of_a_module():
    inputs = keras.Input([8])
    hidden = HoldsModule()(layers.Dense(8, name="hidden")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="out")(hidden))
    said = r"cannot reach matrices with \d+% .*\.matrix \(8, 8\), .*\.kernel \(8, 8\)\."
    with pytest.warns(UserWarning, match=said):
        pruned = tf_movprune.prune_low_movement(model, schedule())
    assert list(tf_movprune.pruned_layers(pruned)) == ["hidden"]


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
