"""Functions that were traced before pruning, in either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from shells import gradients, kernels, refresh
from small_models import X, Y, mlp, prune, subclassed

import tf_movprune


def traced(keras, kind):
    """A model with a `tf.function` in or around the layer to prune, called once."""

    class Inside(keras.layers.Dense):
        def __init__(self):
            super().__init__(8, use_bias=False)
            self.attribute = tf.function(lambda x: tf.matmul(x, self.kernel))

        @tf.function
        def method(self, x):
            return tf.matmul(x, self.kernel)

        def call(self, x):
            return self.attribute(x) if kind == "attribute inside" else self.method(x)

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(8, use_bias=False)
            self.held = [tf.function(lambda x: self.dense(x))]

        def build(self, shape):
            self.dense.build(shape)
            self.built = True

        @tf.function
        def method(self, x):
            return self.dense(x)

        def call(self, x):
            return self.held[0](x) if kind == "list around" else self.method(x)

    class Call(keras.layers.Dense):
        call = tf.function(keras.layers.Dense.call)

    class Super(Call):
        def call(self, x):
            return super().call(x)

    whole = {"call": Call, "call of super": Super}
    layer = whole[kind](8) if kind in whole else Inside() if "inside" in kind else Around()
    model = keras.Sequential([keras.Input([8]), layer, keras.layers.Dense(3)])
    model(X), layer(X)
    return model


@pytest.mark.parametrize(
    "kind",
    ["call", "call of super", "method inside", "attribute inside", "method around", "list around"],
)
def test_functions_that_were_traced_before_pruning(keras, kind):
    model = traced(keras, kind)
    dense = np.array(model(X))
    pruned = prune(model)
    for step in (3, 6):  # functions must not remember the masks of the first call
        refresh(pruned, step)
        grads = gradients(pruned, lambda model: tf.reduce_sum(model(X, training=True) ** 2))
        assert np.all(grads[id(kernels(pruned)[0].scores)])
        masked = np.array(pruned(X))
        assert np.any(masked != dense)
        dense = masked
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), masked)
    for weight in stripped.weights:
        weight.assign(tf.zeros(weight.shape))
    np.testing.assert_array_equal(stripped(X), np.zeros([32, 3]))


def test_outer_models_forget_in_fit_what_they_traced(keras):
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = subclassed(keras), keras.layers.Dense(3)
            self.traced = tf.function(lambda x: self.out(self.inner(x)))

        def call(self, x):
            return self.out(self.inner(x))

    model = Outer()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0), model.traced(X)
    prune(model.inner)
    callbacks = [tf_movprune.UpdatePruningStep()]
    data = {"validation_data": (X, Y), "batch_size": 8, "epochs": 2}
    history = model.fit(X, Y, verbose=0, callbacks=callbacks, **data).history
    logits = model(X)
    assert history["val_loss"][-1] == pytest.approx(float(loss(Y, logits)), rel=1e-5)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(float(loss(Y, logits)), rel=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.traced(X), logits, rtol=1e-4, atol=1e-6)


def test_a_step_that_was_traced_before_pruning_is_warned_of(keras):
    model, optimizer = mlp(keras), keras.optimizers.SGD(0.1)
    weights = model.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(X, training=True) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))

    step()
    pruned = prune(model)
    refresh(pruned, 1)
    next(iter(tf_movprune.pruned_layers(pruned).values()))(X)  # trains nothing
    step()
    with pytest.warns(
        UserWarning, match=r"trained without calling its pruned layers.*tf\.function"
    ):
        refresh(pruned, 2)
    refresh(pruned, 6)
    with pytest.warns(UserWarning, match=r"without calling its pruned layers second: their masks"):
        tf_movprune.strip_pruning(pruned)
