"""Matrices that are trained and that no prunable layer holds, which the default names."""

import warnings

import pytest
import tensorflow as tf

import tf_movprune

RAMP = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)


def holds_matrices(keras, count=1):
    class HoldsMatrices(keras.layers.Layer):
        def build(self, shape):
            self.matrices = [
                self.add_weight(name=f"matrix_{i}", shape=(8, 8)) for i in range(count)
            ]
            self.built = True

        def call(self, x):
            for matrix in self.matrices:
                x = tf.einsum("bi,io->bo", x, tf.convert_to_tensor(matrix))
            return x

    return HoldsMatrices(name="own")


def holds_tables(keras):
    """Makes a layer whose weights have several axes, and multiply nothing as a matrix."""

    class HoldsTables(keras.layers.Layer):
        def build(self, shape):
            self.positions = self.add_weight(name="positions", shape=(1, 4, shape[-1]))
            self.bias = self.add_weight(name="bias", shape=(4, shape[-1]))
            self.built = True

        def call(self, x):
            return tf.reduce_sum(tf.expand_dims(x, 1) * self.positions + self.bias, 1)

    return HoldsTables()


def model_with(keras, *parts, hidden=True):
    parts = [keras.layers.Dense(8, name="hidden"), *parts] if hidden else parts
    return keras.Sequential([keras.Input([8]), *parts, keras.layers.Dense(2, name="out")])


def prune(model, schedule=RAMP):
    return tf_movprune.prune_low_movement(model, schedule)


@pytest.mark.parametrize("count, more", [(1, r"\."), (9, ".* and 3 more")])
def test_default_names_matrices_that_it_cannot_reach(keras, count, more):
    share = f"{64 * count / (64 * count + 72 + 18):.0%}"
    said = rf"cannot reach matrices with {share} of the weights.*matrix_0 \(8, 8\){more}"
    said += ".*get_prunable_weights"
    with pytest.warns(UserWarning, match=said):
        pruned = prune(model_with(keras, holds_matrices(keras, count)))
    assert list(tf_movprune.pruned_layers(pruned)) == ["hidden"]


def test_nothing_but_such_matrices(keras):
    said = r"(?s)Nothing to prune.*cannot reach matrices with 78% .*matrix_0 \(8, 8\)"
    with pytest.raises(ValueError, match=said):
        prune(model_with(keras, holds_matrices(keras), hidden=False))


def test_layers_that_keras_tracks_in_a_set():
    keras = pytest.importorskip("keras")  # tf_keras does not track them, and trains none

    class HoldsSet(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = keras.layers.Dense(8), keras.layers.Dense(2)
            self.others = {keras.layers.Dense(8, name="other")}

        def call(self, x):
            x = self.hidden(x)
            for layer in self.others:
                x = layer(x)
            return self.out(x)

    model = HoldsSet()
    model(tf.ones([2, 8]))
    with pytest.warns(UserWarning, match=r"holds: .*other/kernel \(8, 8\)\. .*lists or dicts"):
        prune(model)


def test_other_weights_are_not_named(keras):
    layers = keras.layers
    parts = [holds_tables(keras), layers.LayerNormalization(), layers.PReLU()]
    parts += [layers.Reshape([8, 1]), layers.DepthwiseConv1D(2), layers.Flatten()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned = prune(model_with(keras, *parts))
    assert list(tf_movprune.pruned_layers(pruned)) == ["hidden"]


def test_chosen_layers_are_nobodys_news(keras):
    model = model_with(keras, holds_matrices(keras))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, {"out": RAMP})
