"""Kernels that reach the computation past their mask, in either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from shells import gradients, keras_of, kernels, refresh, sparsities, weights_by_name
from small_models import RAMP, X, Y, fit, prune

import tf_movprune
from tf_movprune import L0, Magnitude


def past_the_mask(keras, how):
    """A model whose first layer's kernel is used in another way than by the layer."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, name="hidden")
            self.out = keras.layers.Dense(3, name="out")
            self.kernels = {}

        def call(self, x, training=False):
            h = self.hidden(x)
            if how == "list":
                self.kernels = self.kernels or {"hidden": [self.trainable_weights[0]]}
                h = h + tf.matmul(x, tf.convert_to_tensor(self.kernels["hidden"][0]))
            elif how == "weights":
                h = tf.matmul(h, tf.convert_to_tensor(self.trainable_weights[0]), transpose_b=True)
            elif how == "no gradient":
                h = tf.stop_gradient(h)
            elif how == "no call":
                h = x
            return self.out(h)

    model = Net()
    model(X)
    return model


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("how", ["list", "weights", "no gradient", "no call"])
def test_kernels_past_the_mask_are_refused_by_name(keras, how, run_eagerly):
    model = past_the_mask(keras, how)
    with pytest.raises(ValueError, match=r"pruned layer '?\"?hidden.* mapping of path patterns"):
        fit(keras, prune(model, {"hidden": RAMP}), run_eagerly=run_eagerly)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_gradients_that_compute_a_layer_anew_past_its_mask_are_refused(keras, run_eagerly):
    def compute(layer, x):
        return tf.recompute_grad(lambda x: tf.matmul(x, layer.w))(x)

    pruned = prune(around(keras, Own(keras, compute=compute)))
    with pytest.raises(ValueError, match=r"pruned layer 'own'.* mapping of path patterns"):
        fit(keras, pruned, run_eagerly=run_eagerly)


def test_a_layer_that_a_later_compilation_leaves_out_is_noticed(keras):
    class Skipping(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, name="hidden")
            self.out = keras.layers.Dense(3, name="out")
            self.skips = False

        def call(self, x):
            return self.out(x if self.skips else self.hidden(x))

    model = Skipping()
    model(X)
    pruned = prune(model, {"hidden": RAMP}, Magnitude())
    fit(keras, pruned, run_eagerly=True)
    pruned.skips = True
    with pytest.raises(ValueError, match=r"'hidden' was not called in training"):
        fit(keras, pruned)


@pytest.mark.filterwarnings("error:.*movement scores")
def test_what_may_read_kernels(keras):
    """Regularizers, constraints and evaluation."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            options = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm"}
            self.hidden = keras.layers.Dense(16, name="hidden", **options)
            self.out = keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.hidden(x)) + 0.0 * tf.add_n(self.losses)

    class Reading(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.get_weights()
            if batch == 0:
                self.model.evaluate(X, Y, verbose=0)

    model = Net()
    model(X)
    pruned = prune(model, {"hidden": RAMP})
    fit(keras, pruned, callbacks=[Reading()])
    assert sparsities(pruned) == [0.75]


def test_scores_that_are_not_trained_are_warned_of(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.hidden(x))

        def train_step(self, batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(batch[0], training=True) ** 2)
            self.optimizer.apply_gradients(zip(tape.gradient(loss, mine), mine))
            return {"loss": loss}

    model = Net()
    model(X)
    mine = list(model.trainable_variables)
    pruned = prune(model, {"hidden": RAMP})
    with pytest.warns(UserWarning, match="not moved the movement scores of hidden"):
        fit(keras, pruned, run_eagerly=True)


def test_parts_of_layers_are_refused_in_evaluation_too(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = keras.layers.SimpleRNN(8, name="rnn"), keras.layers.Dense(3)

        def call(self, x):
            h = self.rnn(x[:, None])
            return self.out(self.rnn.cell(x, [h])[0])

    model = Net()
    model(X)
    with pytest.raises(ValueError, match=r"pruned layer 'rnn' is read by .* nothing masks it"):
        prune(model, {"rnn": RAMP}, Magnitude())(X)


class Own:
    """Makes a layer with a kernel of its own, under two names, in either Keras."""

    def __new__(cls, keras, returned=("w",), compute=lambda layer, x: tf.matmul(x, layer.again)):
        class Layer(keras.layers.Layer):
            def build(self, shape):
                self.w = self.again = self.add_weight(shape=(8, 8), name="w")
                self.built = True

            def call(self, x):
                return compute(self, x)

            def get_prunable_weights(self):
                return [getattr(self, name) for name in returned]

        return Layer(name="own")


def around(keras, layer, *others):
    """A model of some layers, called once."""
    model = keras.Sequential([keras.Input([8]), layer, *others, keras.layers.Dense(3)])
    model(X)
    return model


@pytest.mark.parametrize("returned", [("w",), ("again",), ("w", "again")])
def test_a_kernel_under_two_names_is_masked_once_and_under_both(keras, returned):
    pruned = prune(around(keras, Own(keras, returned)), RAMP, Magnitude())
    assert refresh(pruned, 6) == 0.75 and len(kernels(pruned)) == 1
    masked = np.array(pruned(X))
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


CALLS = {"call": lambda layer, x: layer.call(x), "itself": lambda layer, x: layer(x)}


@pytest.mark.parametrize("how", CALLS)
def test_a_layer_that_calls_itself_is_masked_once(keras, how):
    def compute(layer, x):
        return CALLS[how](layer, x[:, None])[:, 0] if len(x.shape) == 2 else tf.matmul(x, layer.w)

    plain, calls_itself = around(keras, Own(keras)), around(keras, Own(keras, compute=compute))
    calls_itself.set_weights(plain.get_weights())
    found = []
    for model in map(prune, (plain, calls_itself)):
        refresh(model, 6)
        grads = gradients(model, lambda model: tf.reduce_sum(model(X, training=True) ** 2))
        found.append(grads[id(kernels(model)[0].scores)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert np.all(found[1])
    model = tf_movprune.prune_low_movement(
        around(keras, Own(keras, compute=compute)), method=L0(final_lambda=0.0)
    )
    kernels(model)[0].scores.assign(np.linspace(-3, 3, 64).reshape(8, 8))
    refresh(model, 6)
    gated = np.array(model(X))
    np.testing.assert_allclose(tf_movprune.strip_pruning(model)(X), gated, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_another_layer_holds_is_refused(keras):
    dense = keras.layers.Dense(8, name="source")
    dense.build([None, 8])

    class Tied(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="tied")
            self.held = dense.kernel

        def call(self, x):
            return tf.matmul(x, self.held, transpose_b=True)

    twin = keras.layers.Dense(8, name="twin")
    twin.build([None, 8])
    name = next(n for n, value in vars(twin).items() if value is twin.kernel)
    vars(twin)[name] = dense.kernel
    for other in (Tied(), twin):
        model = around(keras, dense, other)
        before = weights_by_name(model)
        with pytest.raises(
            ValueError, match=rf"'{other.name}' .* has the kernel of 'source' .*as its"
        ):
            prune(model)
        assert len(weights_by_name(model)) == len(before) and not tf_movprune.pruned_layers(model)


def with_one_kernel(keras, kind):
    """Two layers that compute with one kernel, and would both be pruned."""
    if kind == "cell":
        cell = keras.layers.GRUCell(8)
        layers = [keras.layers.RNN(cell, return_sequences=True) for _ in range(2)]
        for layer in layers:
            layer(np.zeros([2, 5, 8], np.float32))
        return layers
    dense = keras.layers.Dense(8, name="dense")
    dense.build([None, 8])

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="around")
            self.dense = dense
            self.built = True

        def call(self, x):
            return self.dense(x)

        def get_prunable_weights(self):
            return [dense.kernel]

    return [dense, Around()]


@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("kind", ["cell", "layer inside"])
def test_two_pruned_layers_with_one_kernel_are_refused(keras, kind, is_list):
    for layers in (with_one_kernel(keras, kind), with_one_kernel(keras, kind)[::-1]):

        class Net(keras.Model):
            def __init__(self, layers):
                super().__init__()
                self.first, self.second = layers

            def call(self, x):
                return self.second(self.first(x))

        model = Net(layers)
        model(np.zeros([2, 5, 8], np.float32))
        with pytest.raises(ValueError, match=r"has the kernel of .* leave both out"):
            prune(
                layers if is_list else model, RAMP if is_list else {"first": RAMP, "second": RAMP}
            )
        assert not tf_movprune.pruned_layers(model)


def test_layers_that_share_a_cell_are_refused_when_they_are_built():
    """Those of Keras 3 have to be built before."""
    keras = keras_of("tf_keras")
    cell = keras.layers.SimpleRNNCell(8)
    layers = [keras.layers.RNN(cell, return_sequences=True, name=name) for name in ("one", "two")]
    first, second = tf_movprune.prune_low_movement(layers, RAMP)
    hidden = first(np.zeros([2, 5, 8], np.float32))
    with pytest.raises(ValueError, match=r"'one' .* and 'two' have one kernel, .* leave both out"):
        second(hidden)


ASSIGNMENTS = {
    "assign": lambda layer: layer.w.assign(tf.clip_by_value(layer.w, -1.0, 1.0)),
    "assign_sub": lambda layer: layer.w.assign_sub(0.01 * layer.w),
}


@pytest.mark.parametrize("how", ASSIGNMENTS)
def test_layers_that_assign_their_kernels_are_refused_by_name(keras, how):
    def compute(layer, x):
        ASSIGNMENTS[how](layer)
        return tf.matmul(x, layer.w)

    model = around(keras, Own(keras, compute=compute))
    with pytest.raises(ValueError, match=rf"'own' uses '{how}' of a tensor.* kernel_constraint"):
        prune(model)(X)


def test_other_attribute_errors_stay_what_they_are(keras):
    class Typo:
        is_made = False

    def compute(layer, x):
        return layer.kernal if Typo.is_made else tf.matmul(x, layer.w)

    pruned = prune(around(keras, Own(keras, compute=compute)))
    Typo.is_made = True
    with pytest.raises(AttributeError, match="object has no attribute 'kernal'"):
        next(iter(tf_movprune.pruned_layers(pruned).values()))(X)
