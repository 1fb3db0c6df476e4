"""The layers that the outputs of models come from, whatever holds them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import schedule

import tf_movprune
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.output_layers import find_outputs

layers = keras.layers


def dense(name, units=5, **kwargs):
    return layers.Dense(units, name=name, **kwargs)


class Temperature(layers.Layer):
    def build(self, _):
        self.temperature = self.add_weight("temperature", (), initializer="ones")

    def call(self, x):
        return x / self.temperature


class Head(layers.Layer):
    """Its output layer is the first of its attributes."""

    def __init__(self):
        super().__init__()
        self.out, self.hidden = dense("out"), dense("hidden", 6)

    def call(self, x):
        return self.out(tf.nn.relu(self.hidden(x)))


class Cosines(layers.Layer):
    """Computes outputs with a matrix of its own, which is not prunable."""

    def build(self, shape):
        self.directions = self.add_weight("directions", (shape[-1], 5))

    def call(self, x):
        return tf.nn.l2_normalize(x, -1) @ tf.nn.l2_normalize(self.directions, 0)


class Subclassed(keras.Model):
    """A model that computes `function(model, inputs)` with layers as its attributes."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, x):
        return self.function(self, x)


class InFunction(Subclassed):
    @tf.function
    def call(self, x):
        return self.function(self, x)


def chain(*parts, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *parts])


def graph(outputs, shape=(8,)):
    x = keras.Input(shape)
    return keras.Model(x, outputs(x))


def called(model, shape=(2, 8)):
    model(np.ones(shape, np.float32))
    return model


def residual(model, x):
    for up, down in model.blocks:
        x = model.norm(x + down(up(x)))
    return x


def cascade(x):
    first = dense("first")(dense("hidden")(x))
    return [first, dense("second")(layers.Concatenate()([x, first]))]


def used_twice(x):
    shared = dense("shared")
    return [shared(dense("hidden", 8)(x)), shared(x)]


def blocks():
    return [[dense(f"up{i}", 16), dense(f"down{i}", 8)] for i in range(3)]


MODELS = {
    "TimeDistributed": (
        lambda: chain(dense("a"), layers.TimeDistributed(dense("out")), shape=(7, 8)),
        ["out"],
    ),
    "head in TimeDistributed": (
        lambda: chain(dense("a"), layers.TimeDistributed(Head()), shape=(7, 8)),
        ["out"],
    ),
    "Bidirectional": (
        lambda: chain(dense("a"), layers.Bidirectional(layers.GRU(2, name="g")), shape=(7, 8)),
        ["forward_g", "backward_g"],
    ),
    "batch normalization": (
        lambda: chain(dense("a"), dense("out"), layers.BatchNormalization()),
        ["out"],
    ),
    "normalization and scaling": (
        lambda: chain(
            *(dense("a"), dense("out"), layers.LayerNormalization()),
            *(layers.PReLU(), layers.Rescaling(2.0), layers.Dropout(0.5)),
        ),
        ["out"],
    ),
    "temperature": (lambda: chain(dense("a"), dense("out"), Temperature()), ["out"]),
    "head": (lambda: chain(dense("a"), Head()), ["out"]),
    "matrix of its own": (lambda: chain(dense("a"), dense("b"), Cosines()), []),
    "nested models": (
        lambda: graph(lambda x: chain(dense("b"), dense("out"))(chain(dense("a", 8))(x))),
        ["out"],
    ),
    "operations": (
        lambda: graph(lambda x: [tf.nn.softmax(dense("p")(dense("a")(x))) * 2, dense("q")(x)]),
        ["p", "q"],
    ),
    "Lambda without a gradient": (
        lambda: graph(lambda x: layers.Lambda(tf.argmax)(dense("out")(dense("a")(x)))),
        ["out"],
    ),
    "convolution and pooling": (
        lambda: chain(
            layers.SeparableConv2D(4, 3),
            *(layers.Conv2D(2, 3, name="out"), layers.GlobalAveragePooling2D()),
            shape=(8, 8, 3),
        ),
        ["out"],
    ),
    "attention": (
        lambda: graph(
            lambda x: layers.MultiHeadAttention(2, 4, name="out")(dense("a")(x), dense("b")(x)),
            shape=(7, 8),
        ),
        ["out"],
    ),
    "gate": (lambda: graph(lambda x: dense("p")(x) * tf.sigmoid(dense("q")(x))), ["p", "q"]),
    "shared output layer": (lambda: graph(used_twice), ["shared"]),
    "outputs that others read": (lambda: graph(cascade), ["first", "second"]),
    "head before body": (
        lambda: called(Subclassed(lambda m, x: m.a(m.b(x)), a=dense("out"), b=dense("b"))),
        ["out"],
    ),
    "head of its own before body": (
        lambda: called(Subclassed(lambda m, x: m.a(m.b(x)), a=Head(), b=dense("b"))),
        ["out"],
    ),
    "list of heads": (
        lambda: called(
            Subclassed(
                lambda m, x: {str(i): head(m.body(x)) for i, head in enumerate(m.heads)},
                heads=[dense("p"), dense("q")],
                body=dense("a"),
            )
        ),
        ["p", "q"],
    ),
    "residual stream": (
        lambda: called(
            Subclassed(residual, blocks=blocks(), norm=layers.LayerNormalization()),
        ),
        ["down2"],
    ),
    "tied embedding": (
        lambda: called(
            Subclassed(
                lambda m, x: tf.matmul(m.a(m.table(x)), m.table.embeddings, transpose_b=True),
                table=layers.Embedding(11, 8, name="table"),
                a=dense("a", 8),
            ),
            (2, 3),
        ),
        ["table"],
    ),
    "tf.function": (
        lambda: called(InFunction(lambda m, x: m.a(m.b(x)), a=dense("out"), b=dense("b"))),
        ["out"],
    ),
    "several in one loop": (
        lambda: called(
            Subclassed(
                lambda m, x: tf.map_fn(lambda row: m.a(m.b(row)), x), a=dense("out"), b=dense("b")
            ),
            (2, 3, 8),
        ),
        ["out", "b"],
    ),
    "half precision": (
        lambda: chain(dense("a"), dense("out", dtype="mixed_float16"), layers.Softmax()),
        ["out"],
    ),
}


def names(model):
    tree = LayerTree(model)
    outputs = find_outputs(tree)
    assert outputs.guessed is None
    return {layer.name for layer in tree.layers() if id(layer) in outputs.layers}


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_come_from(kind):
    make, expected = MODELS[kind]
    assert names(make()) == set(expected)


@pytest.mark.parametrize("kind", ["TimeDistributed", "head", "head before body", "residual stream"])
def test_output_layers_stay_dense(kind):
    make, expected = MODELS[kind]
    pruned = tf_movprune.prune_low_movement(make(), schedule())
    wrapped = {wrapper.layer.name for wrapper in tf_movprune.pruned_layers(pruned).values()}
    assert wrapped and not wrapped & set(expected)
    tf_movprune.update_masks(pruned, 2)
    paths = [weight.path for weight in tf_movprune.summarize_sparsity(pruned).weights]
    plain = tf_movprune.strip_pruning(pruned)
    assert [weight.path for weight in tf_movprune.summarize_sparsity(plain).weights] == paths


def test_mirrored_variables():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = chain(dense("a"), Head())
    assert names(model) == {"out"}


class Busy(keras.Model):
    """Leaves something behind in every call."""

    def __init__(self):
        super().__init__()
        self.out, self.hidden, self.calls = dense("out"), dense("hidden"), 0

    @tf.function
    def inner(self, x):
        return self.out(self.hidden(x))

    def call(self, x, training=None):
        self.calls += 1
        self.add_loss(tf.reduce_mean(x))
        self.add_metric(tf.reduce_mean(x), name="mean")
        self.last = x
        return self.inner(x)


def test_tracing_leaves_the_model_as_it_was():
    model = called(Busy())
    before = dict(vars(model))
    losses, traces = model.losses, model.inner.experimental_get_tracing_count()
    weights, metrics = list(map(id, model.weights)), list(map(id, model.metrics))
    nodes = [len(layer._inbound_nodes) for layer in (model, model.out, model.hidden)]
    assert names(model) == {"out"}
    assert vars(model).keys() == before.keys()
    assert model.calls == 1 and model.last is before["last"] and tf.is_tensor(model.last)
    assert model.losses == losses
    assert model.inner.experimental_get_tracing_count() == traces
    assert (list(map(id, model.weights)), list(map(id, model.metrics))) == (weights, metrics)
    assert [len(x._inbound_nodes) for x in (model, model.out, model.hidden)] == nodes
    assert not tf.config.functions_run_eagerly()


class MakesAVariable(Subclassed):
    def call(self, x):
        if not isinstance(x, np.ndarray) and tf.is_symbolic_tensor(x):
            self.add_weight("late")
        return self.b(self.a(x))


def test_the_last_layer_is_taken_for_the_output_if_a_model_cannot_be_traced():
    class Outside(Subclassed):
        def call(self, x):
            y = tf.py_function(lambda x: self.b(self.a(x)), [x], tf.float32)
            return tf.ensure_shape(y, [None, 5])

    outside = called(Outside(None, a=dense("a"), b=dense("b")))
    uncalled = Subclassed(lambda m, x: m.b(m.a(x)), a=dense("a"), b=dense("b"))
    numbers = called(Subclassed(lambda m, x: m.b(m.a(x.numpy())), a=dense("a"), b=dense("b")))
    late = called(MakesAVariable(None, a=dense("a"), b=dense("b")))
    for model, reason in (
        *((uncalled, "never called"), (numbers, "numpy"), (late, "variables")),
        (outside, "from no kernel"),
    ):
        outputs = find_outputs(LayerTree(model))
        assert outputs.layers == {id(model.b)} and outputs.guessed == "b"
        assert reason in outputs.reason
        with pytest.warns(UserWarning, match=r"b is taken for the output layer .*Call the model"):
            tf_movprune.prune_low_movement(model, schedule())
        assert list(tf_movprune.pruned_layers(model)) == ["a"]
    assert len(late.a.layer.weights) == 2 and not any("late" in w.name for w in late.weights)


def test_the_last_layer_of_an_unbuilt_chain_is_no_guess():
    model = keras.Sequential([dense("a"), dense("out"), layers.Softmax()])
    outputs = find_outputs(LayerTree(model))
    assert outputs.layers == {id(model.layers[1])} and outputs.guessed is None


def test_layers_have_no_outputs():
    assert not find_outputs(LayerTree(Head())).layers
