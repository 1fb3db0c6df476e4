"""Layers that a gradient computes anew draw the noise of their call, in either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from shells import gradients, kernels, refresh
from small_models import X, prune

from tf_movprune import L0


def recomputing(keras):
    """A model with gates that computes its layer anew in gradients, if its attribute says so."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8)
            self.is_recomputed = True

        def call(self, x, training=False):
            hidden = tf.recompute_grad(self.hidden) if self.is_recomputed else self.hidden
            return hidden(x)

    model = Net()
    model(X)
    model = prune(model, {"hidden": None}, L0(final_lambda=0.0))
    refresh(model, 0)
    return model


@pytest.mark.parametrize("mode", [True, False])
def test_recomputed_gradients_are_those_of_the_same_noise(keras, mode):
    model = recomputing(keras)
    found = []
    for model.is_recomputed in (False, True):
        grads = gradients(model, lambda model: tf.reduce_sum(model(X, training=mode) ** 2))
        found.append(list(grads.values()))
    assert len(found[0]) == 3 and id(kernels(model)[0].scores) in grads
    for expected, received in zip(*found, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5)


def test_recomputed_gradients_of_two_modes_are_refused(keras):
    model = recomputing(keras)

    def gradient(*modes, evaluates=False):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(model(X, training=mode) ** 2) for mode in modes)
        if evaluates:  # which no tape records
            model(X, training=False)
        return tape.gradient(loss, kernels(model)[0].scores)

    expected = gradient(True)
    np.testing.assert_array_equal(gradient(True, evaluates=True), expected)
    for modes in [(True, False), (False, True)]:
        with pytest.raises(ValueError, match=r"leave tf\.recompute_grad out"):
            gradient(*modes)
    np.testing.assert_array_equal(gradient(True), expected)
