"""Single layers of either Keras are pruned as their tests here say."""

import numpy as np
import pytest
import tensorflow as tf
from shells import gradients, kernels

import tf_movprune

RAMP = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)
X = np.random.RandomState(0).standard_normal([5, 8]).astype("float32")


def prune(keras, layer, method=None, shape=(None, 8), **kwargs):
    if not layer.built:
        layer.build(shape)
    method = method or tf_movprune.HardMovement(keras.initializers.RandomNormal(seed=1))
    return tf_movprune.prune_low_movement(layer, RAMP, method, **kwargs)


def plain(layer):
    """The layer inside the wrapper, in tf_keras."""
    return getattr(layer, "layer", layer)


def test_the_effective_kernel_is_masked_and_the_weight_is_not(keras):
    layer = prune(keras, keras.layers.Dense(4, use_bias=False))
    identity = np.eye(8, dtype="float32")
    weight = np.array(layer(identity))
    (kernel,) = kernels(layer)
    np.testing.assert_array_equal(weight, kernel.parts[0].weight)
    tf_movprune.update_masks(layer, 2)
    scores = kernel.scores.numpy()
    lowest = np.sort(scores.ravel())[-8]
    np.testing.assert_array_equal(layer(identity), np.where(scores >= lowest, weight, 0))
    np.testing.assert_array_equal(kernel.parts[0].weight, weight)
    assert kernel.threshold.numpy() == lowest


@pytest.mark.parametrize("multiplier", [1.0, 100.0])
def test_the_multiplier_scales_the_rate_and_not_the_gradient(keras, multiplier):
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(scale=2.0))
    layer = keras.layers.Dense(4)
    layer = prune(keras, layer, method, score_learning_rate_multiplier=multiplier)
    (kernel,) = kernels(layer)
    weight, before = np.array(kernel.parts[0].weight), kernel.importance()
    np.testing.assert_allclose(before, 2 * np.abs(weight) / np.abs(weight).mean(), rtol=1e-5)
    tf_movprune.update_masks(layer, 0)
    ones = np.ones([1, 8], "float32")
    gradient = gradients(layer, lambda layer: tf.reduce_sum(layer(ones)))[id(kernel.scores)]
    np.testing.assert_allclose(gradient, weight, rtol=1e-6)
    kernel.scores.assign_sub(0.01 * gradient)
    expected = multiplier * 0.01 * weight
    np.testing.assert_allclose(before - kernel.importance(), expected, rtol=1e-2, atol=1e-5)


def test_evaluation_changes_nothing(keras):
    layer = prune(keras, keras.layers.Dense(4))
    tf_movprune.update_masks(layer, 2)
    before = [np.array(weight) for weight in layer.weights]
    layer(X, training=False)
    for old, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, weight)


def test_graphs_compute_as_eager_calls_do(keras):
    layer = prune(keras, keras.layers.Dense(4))
    x = keras.Input([8])
    model = keras.Model(x, layer(x))
    tf_movprune.update_masks(model, 2)
    np.testing.assert_allclose(model.predict(X, verbose=0), layer(X), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_scores_are_float32_under_mixed_precision(keras, policy):
    layer = prune(keras, keras.layers.Dense(4, dtype=policy))
    assert layer(X).dtype == policy.removeprefix("mixed_")
    (kernel,) = kernels(layer)
    tf_movprune.update_masks(layer, 2)
    found = gradients(layer, lambda layer: tf.reduce_sum(tf.cast(layer(X), "float32")))
    assert kernel.scores.dtype == found[id(kernel.scores)].dtype == tf.float32


def test_masks_of_keras_pass_through(keras):
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, 8, mask_zero=True)
    dense = prune(keras, keras.layers.Dense(8), shape=(None, 4, 8))
    lstm, other = keras.layers.LSTM(3), keras.layers.LSTM(3)
    for layer in (lstm, other):
        layer.build((None, 4, 8))
    other.set_weights(lstm.get_weights())
    lstm = prune(keras, lstm)
    x = dense(embedding(ids))
    np.testing.assert_array_equal(x._keras_mask, ids != 0)
    expected = other(tf.convert_to_tensor(np.array(x)), mask=tf.constant(ids != 0))
    np.testing.assert_allclose(lstm(x), expected, rtol=1e-5)


def test_arguments_of_attention_by_name(keras):
    attention = keras.layers.MultiHeadAttention(2, 4)
    q, v = np.random.RandomState(0).standard_normal([2, 3, 5, 8]).astype("float32")
    expected = attention(query=q, value=v, return_attention_scores=True)
    received = prune(keras, attention)(query=q, value=v, return_attention_scores=True)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_subclasses_of_known_layers(keras):
    class Scaled(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    layer = Scaled(4)
    expected = layer(X)
    layer = prune(keras, layer)
    np.testing.assert_array_equal(layer(X), expected)
    tf_movprune.update_masks(layer, 2)
    (kernel,) = kernels(layer)
    masked = np.where(kernel.mask, kernel.parts[0].weight, 0)
    np.testing.assert_allclose(layer(X), 2 * X @ masked, rtol=1e-5)


def test_frozen_layers_stay_frozen(keras):
    assert prune(keras, keras.layers.Dense(4, trainable=False)).trainable_weights == []


def test_the_kernel_is_put_back_after_an_error(keras):
    class Failing(keras.layers.Dense):
        def call(self, x):
            raise RuntimeError("inside")

    layer = Failing(4)
    layer.build([None, 8])
    kernel = layer.kernel
    layer = prune(keras, layer)
    with pytest.raises(RuntimeError, match="inside"):
        layer(X)
    assert plain(layer).kernel is kernel


def test_cells_in_a_stack_are_pruned(keras):
    stack = keras.layers.RNN([keras.layers.LSTMCell(3), keras.layers.GRUCell(2)])
    layer = prune(keras, stack, shape=(None, 5, 8))
    x = np.random.RandomState(0).standard_normal([2, 5, 8]).astype("float32")
    shapes = [tuple(kernel.mask.shape) for kernel in kernels(layer)]
    assert shapes == [(8, 12), (3, 12), (3, 6), (2, 6)]
    tf_movprune.update_masks(layer, 2)
    masked = layer(x)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(layer)(x), masked)
    assert np.count_nonzero(stack.cell.cells[0].kernel) == 24


def test_cells_say_what_is_pruned_of_them(keras):
    class Cell(keras.layers.SimpleRNNCell):
        def get_prunable_weights(self):
            return [self.recurrent_kernel]

    layer = prune(keras, keras.layers.RNN(Cell(4)), shape=(None, 5, 8))
    assert [tuple(kernel.mask.shape) for kernel in kernels(layer)] == [(4, 4)]


def test_weights_that_cannot_be_pruned(keras):
    class InList(keras.layers.Layer):
        def build(self, shape):
            self.held = [self.add_weight(name="kernel", shape=[8, 4])]
            self.built = True

        def get_prunable_weights(self):
            return self.held

    class Nothing(keras.layers.Layer):
        def get_prunable_weights(self):
            return []

    with pytest.raises(ValueError, match=r"is not .* attribute.*not in a list"):
        prune(keras, InList())
    with pytest.raises(ValueError, match=r"(returned no weights|no kernels).*leave the layer out"):
        prune(keras, Nothing())
