"""Ways in which a kernel reaches the computation: each is masked, or refused by name."""

import collections
import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from wrapped import Everything, prune

import tf_movprune
from tf_movprune.keras2 import same_outputs

layers = keras.layers
X = np.random.RandomState(0).standard_normal([32, 8]).astype("float32")
Y = np.random.RandomState(1).randint(0, 3, 32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train(pruned, **kwargs):
    pruned.compile(keras.optimizers.SGD(0.1), LOSS, **kwargs)
    return pruned.fit(
        X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()]
    )


class Chain(keras.Model):
    """Two layers, of which the first is pruned, and how they are called."""

    def __init__(self, hidden=None):
        super().__init__()
        self.hidden = hidden or layers.Dense(16, "relu", name="hidden")
        self.out = layers.Dense(3, name="out")

    def call(self, x, training=False):
        return self.out(self.hidden(x))


class Decorated(Chain):
    call = tf.function(Chain.call)


class ReadsAttribute(Chain):
    def call(self, x, training=False):
        return self.out(tf.nn.relu(x @ self.hidden.kernel + self.hidden.bias))


def tied_through_the_layer():
    class Tied(layers.Layer):
        def __init__(self, source):
            super().__init__()
            self.source = source

        def call(self, x):
            return x @ tf.transpose(self.source.kernel)

    class Model(Chain):
        def __init__(self):
            super().__init__()
            self.back = Tied(self.hidden)

        def call(self, x, training=False):
            return self.out(self.back(self.hidden(x)))

    return Model()


RIGHT = {
    "function as call": Decorated,
    "attribute of the layer": ReadsAttribute,
    "attribute of the layer, read by another": tied_through_the_layer,
}


@pytest.mark.parametrize("run_eagerly", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RIGHT)
def test_is_masked(name, run_eagerly):
    model = RIGHT[name]()
    model.hidden.build([None, 8])
    model(X)
    model.compile("sgd", LOSS)
    model.predict(X, verbose=0)  # traces what is to be traced before pruning
    dense = model(X)
    pruned = prune(model)
    (layer,) = tf_movprune.pruned_layers(pruned).values()
    assert layer is pruned.hidden
    start = layer.scores[0].numpy()
    train(pruned, run_eagerly=run_eagerly)
    assert np.count_nonzero(layer.masks[0]) == layer.masks[0].shape.num_elements() // 4
    assert np.any(layer.scores[0] != start)
    masked = pruned(X)
    assert np.any(masked != dense)
    np.testing.assert_array_equal(pruned.predict(X, batch_size=32, verbose=0), masked)
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), masked)


class Tied(layers.Layer):
    """Reads a variable of another layer."""

    def __init__(self, kernel):
        super().__init__(name="tied")
        self.kernel_of_another = kernel

    def call(self, x):
        return tf.matmul(x, self.kernel_of_another, transpose_b=True)


def graph(read):
    x = keras.Input([8])
    hidden = layers.Dense(16, name="hidden")
    return keras.Model(x, layers.Dense(3, name="out")(read(hidden, hidden(x))))


class InList(Chain):
    def __init__(self):
        super().__init__()
        self.hidden.build([None, 8])
        self.kernels = {"hidden": [self.hidden.kernel]}

    def call(self, x, training=False):
        return self.out(self.hidden(x) + x @ self.kernels["hidden"][0])


class FromWeights(Chain):
    def call(self, x, training=False):
        h = self.hidden(x)
        kernel = self.trainable_weights[0]  # scores, where the layer is pruned
        return self.out(tf.matmul(h, kernel, transpose_b=True))


class PastTheWrapper(Chain):
    """Calls the layer that it remembers in a closure."""

    def __init__(self):
        super().__init__()
        hidden = self.hidden
        self.run = lambda x: hidden(x)

    def call(self, x, training=False):
        return self.out(self.run(x))


class PartOfALayer(Chain):
    """Calls the cell of a recurrent layer by itself."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.SimpleRNN(16, name="hidden")

    def call(self, x, training=False):
        h = self.hidden(x[:, tf.newaxis])
        return self.out(self.hidden.cell(x, [h])[0])


class KernelOverwritten(layers.Wrapper):
    """Computes the kernel of the layer inside, as weight normalizations do."""

    restores = True

    def build(self, shape):
        super().build(shape)
        self.v = self.layer.kernel
        self.g = self.add_weight("g", [int(self.v.shape[-1])], initializer="ones")

    def call(self, x):
        self.layer.kernel = tf.nn.l2_normalize(self.v, axis=0) * self.g
        outputs = self.layer(x)
        if self.restores:
            self.layer.kernel = self.v
        return outputs


def spectral():
    x = keras.Input([8])
    normalized = layers.SpectralNormalization(layers.Dense(16, name="hidden"))
    return keras.Model(x, layers.Dense(3, name="out")(normalized(x)))


REFUSED = {
    "closure": lambda: graph(
        lambda dense, h: layers.Lambda(lambda h: tf.matmul(h, dense.kernel, transpose_b=True))(h)
    ),
    "operation of a graph": lambda: graph(
        lambda dense, h: tf.matmul(h, dense.kernel, transpose_b=True)
    ),
    "layer in a closure": PastTheWrapper,
}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_at_the_first_step(name, run_eagerly, monkeypatch):
    monkeypatch.setattr(same_outputs.Example, "check", lambda *_: None)  # as if it were random
    model = REFUSED[name]()
    model(X)
    pruned = prune(model)
    with pytest.raises(ValueError, match=r"pruned layer '(hidden)'.* mapping of path patterns"):
        train(pruned, run_eagerly=run_eagerly)
    assert int(pruned.optimizer.iterations) <= (4 if run_eagerly else 1)


def overwritten(restores):
    x = keras.Input([8])
    wrapper = KernelOverwritten(layers.Dense(16, name="hidden"))
    wrapper.restores = restores
    return keras.Model(x, layers.Dense(3)(wrapper(x)))


REFUSED_BEFORE = {
    "variable of another layer": lambda: graph(lambda dense, h: Tied(dense.kernel)(h)),
    "spectral normalization": spectral,
    "weight normalization": lambda: overwritten(True),
    "weight normalization that leaves tensors": lambda: overwritten(False),
    "list": InList,
    "weights of the model": FromWeights,
    "layer in a closure": PastTheWrapper,
    "layer inside the layer": PartOfALayer,
}


@pytest.mark.parametrize("name", REFUSED_BEFORE)
def test_is_refused_before_anything_changes(name):
    model = REFUSED_BEFORE[name]()
    before = model(X)
    model.compile("sgd", LOSS, run_eagerly=True)
    types = [type(layer) for layer in model.submodules]
    with pytest.raises(ValueError, match=r"'hidden'.* mapping of path patterns"):
        prune(model, pruning_policy=Everything())
    np.testing.assert_array_equal(model(X), before)
    assert [type(layer) for layer in model.submodules] == types
    model.train_on_batch(X, Y)  # as it was compiled


def test_a_kernel_cannot_be_set():
    layer = prune(layers.Dense(4, name="hidden", input_shape=[8]))
    layer(X)
    with pytest.raises(AttributeError, match=r"kernel of the pruned layer 'hidden' is computed"):
        layer.kernel = tf.zeros([8, 4])
    layer.activation = tf.nn.relu  # other attributes are those of the layer
    assert layer.layer.activation is tf.nn.relu and np.all(layer(X) >= 0)


def test_the_original_model_may_be_called_in_training():
    class Reading(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            other(X)

    x = keras.Input([8])
    other = keras.Model(x, layers.Dense(3)(layers.Dense(16, name="hidden")(x)))
    pruned = prune(other)
    pruned.compile("adam", LOSS, run_eagerly=True)
    callbacks = [tf_movprune.UpdatePruningStep(), Reading()]
    pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.75


# ---- what is not refused


class Dropping(Chain):
    """Leaves a layer out in some steps, which runs eagerly only."""

    def __init__(self):
        super().__init__()
        self.also = layers.Dense(16, name="also")
        self.out.build([None, 16])
        self.turn = 0

    def call(self, x, training=False):
        self.turn += 1
        hidden = self.hidden(x)
        return self.out(hidden if training and self.turn % 2 else self.also(hidden))


class AddingLosses(Chain):
    def call(self, x, training=False):
        outputs = super().call(x)
        if self.losses:
            self.add_metric(tf.add_n(self.losses), name="penalty")
        return outputs


class TwoOutputs(Chain):
    """Trains one of two outputs."""

    def __init__(self):
        super().__init__()
        self.also = layers.Dense(16, name="also")
        self.other = layers.Dense(3, name="other")

    def call(self, x, training=False):
        hidden = self.hidden(x)
        return self.out(hidden), self.other(self.also(hidden))


class OddAttributes(Chain):
    def __init__(self):
        super().__init__()
        self.names = {"b": "x", "a": None}
        self.pair = collections.namedtuple("Pair", "a b")(self.hidden, self.out)
        self.ordered = collections.OrderedDict(first=self.hidden)

    def call(self, x, training=False):
        self.ordered.move_to_end("first")
        return self.pair.b(self.pair.a(x))


@pytest.mark.parametrize(
    "make, method, options",
    [
        (Dropping, tf_movprune.Magnitude(), {"run_eagerly": True}),
        (AddingLosses, tf_movprune.SoftMovement(10.0, target=True), {}),
        (TwoOutputs, tf_movprune.Magnitude(), {"loss": [LOSS, None]}),
        (OddAttributes, tf_movprune.Magnitude(), {"run_eagerly": True}),
    ],
)
def test_what_is_not_refused(make, method, options):
    model = make()
    model(X)
    model = tf_movprune.prune_low_movement(model, tf_movprune.CubicSparsity(0.75, 0, 4), method)
    model.compile(**{"optimizer": "sgd", "loss": LOSS, **options})
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    masked = tf.nest.flatten(model(X))
    for a, b in zip(tf.nest.flatten(tf_movprune.strip_pruning(model)(X)), masked):
        np.testing.assert_array_equal(a, b)


def sequence():
    shapes = [dict(units=64, input_shape=[8]), dict(units=64), dict(units=3)]
    return keras.Sequential([layers.Dense(**shape) for shape in shapes])


def test_threads_compute_one_after_the_other():
    model = prune(sequence())
    tf_movprune.update_masks(model, 4)
    expected = model(X)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(model, [X] * 40):
            np.testing.assert_array_equal(outputs, expected)
    for layer in tf_movprune.pruned_layers(model).values():
        assert isinstance(layer.layer.kernel, tf.Variable)


def test_reads_are_not_watched_any_more_once_stripped():
    model = sequence()
    for _ in range(2):
        tf_movprune.strip_pruning(prune(model))
    assert "_read_variable_op" not in vars(model.layers[0].kernel)
    with pytest.raises(TypeError):
        tf_movprune.prune_low_movement(model, {"*": 3})
    assert "_read_variable_op" not in vars(model.layers[0].kernel)


class Projecting(layers.Dense):
    def project(self, x):
        return x @ self.kernel


class UsesAMethod(Chain):
    def __init__(self):
        super().__init__(Projecting(16, name="hidden"))

    def call(self, x, training=False):
        return self.out(self.hidden.project(x))


class DictOfFunctions(Chain):
    """Traced before pruning, and called directly besides."""

    def __init__(self):
        super().__init__()
        self.fns = {"encode": [tf.function(lambda x: self.hidden(x))]}

    def call(self, x, training=False):
        return self.out(self.fns["encode"][0](x) + self.hidden(x))


@pytest.mark.parametrize("make", [UsesAMethod, DictOfFunctions])
def test_methods_and_functions_in_containers_are_masked(make):
    model = make()
    model.hidden.build([None, 8])
    dense = model(X)
    pruned = prune(model)
    tf_movprune.update_masks(pruned, 4)
    assert np.any(pruned(X) != dense)  # in evaluation, too
    train(pruned, run_eagerly=True)
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_read_without_the_training_argument_is_refused(run_eagerly):
    x = keras.Input([8])
    hidden = layers.Dense(16, name="hidden")
    read = layers.Lambda(lambda h: tf.matmul(h, hidden.kernel, transpose_b=True))
    inner = keras.Model(x, read(hidden(x)))
    y = keras.Input([8])
    pruned = prune(keras.Model(y, layers.Dense(3, name="out")(inner(y, training=False))))
    with pytest.raises(ValueError, match="pruned layer 'hidden'"):
        train(pruned, run_eagerly=run_eagerly)


class KeepsAKernel(layers.Layer):
    """Keeps, when it is built, the kernel of a layer that it may call or not."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(8, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.kept = self.inner.kernel
        super().build(shape)

    def call(self, x):
        return self.inner(x) @ tf.transpose(self.kept)


def chain(layer):
    return keras.Sequential([layer, layers.Dense(2)])


NORMALIZED = {
    "dense": lambda: layers.SpectralNormalization(layers.Dense(8, name="inner")),
    "own": KeepsAKernel,
}


@pytest.mark.parametrize("hold", [Chain, chain])
@pytest.mark.parametrize("kind", NORMALIZED)
def test_kernels_that_are_kept_when_a_layer_is_built_are_refused(kind, hold):
    """Built models are refused too, before they are pruned."""
    x = np.ones([4, 8], "float32")
    pruned = prune(hold(NORMALIZED[kind]()), pruning_policy=Everything())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"kernel of .*'inner' is read while another layer"):
            pruned(x)
    built = hold(NORMALIZED[kind]())
    built(x)
    with pytest.raises(ValueError, match=r"has the kernel of 'inner' as its"):
        prune(built, pruning_policy=Everything())
