"""The layers that the outputs of models of either Keras come from, whatever holds them."""

import functools
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf

import tf_movprune
from tf_movprune.shells import module_for

RAMP = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)


@functools.cache
def kit(keras):
    """Layers of a Keras, and functions that make models of them."""
    layers = keras.layers

    def dense(name, units=5, **kwargs):
        return layers.Dense(units, name=name, **kwargs)

    class Temperature(layers.Layer):
        def build(self, _):
            self.temperature = self.add_weight(name="temperature", shape=(), initializer="ones")

        def call(self, x):
            return x / self.temperature

    class Head(layers.Layer):
        """Its output layer is the first of its attributes."""

        def __init__(self):
            super().__init__()
            self.out, self.hidden = dense("out"), dense("hidden", 6)

        def build(self, shape):
            self.hidden.build(shape)
            self.out.build((*shape[:-1], 6))
            self.built = True

        def compute_output_shape(self, shape):
            return (*shape[:-1], 5)

        def call(self, x):
            return self.out(tf.nn.relu(self.hidden(x)))

    class Cosines(layers.Layer):
        """Computes outputs with a matrix of its own, which is not prunable."""

        def build(self, shape):
            self.directions = self.add_weight(name="directions", shape=(shape[-1], 5))

        def call(self, x):
            directions = tf.nn.l2_normalize(tf.convert_to_tensor(self.directions), 0)
            return tf.nn.l2_normalize(x, -1) @ directions

    class Subclassed(keras.Model):
        """A model that computes `function(model, inputs)` with layers as its attributes."""

        def __init__(self, function, shape=(2, 8), **parts):
            super().__init__()
            self.function = function
            for name, part in parts.items():
                setattr(self, name, part)
            if shape:
                self(np.ones(shape, "float32"))

        def call(self, x):
            return self.function(self, x)

    class InFunction(Subclassed):
        call = tf.function(Subclassed.call)

    def chain(*parts, shape=(8,)):
        return keras.Sequential([keras.Input(shape), *parts])

    def graph(outputs, shape=(8,)):
        x = keras.Input(shape)
        return keras.Model(x, outputs(x))

    found = {cls.__name__: cls for cls in (Temperature, Head, Cosines, Subclassed, InFunction)}
    ops = keras.ops if hasattr(keras, "ops") else tf.nn
    found |= {"layers": layers, "dense": dense, "chain": chain, "graph": graph, "ops": ops}
    return types.SimpleNamespace(**found)


def residual(model, x):
    for up, down in model.blocks:
        x = model.norm(x + down(up(x)))
    return x


def cascade(k):
    def outputs(x):
        first = k.dense("first")(k.dense("hidden")(x))
        return [first, k.dense("second")(k.layers.Concatenate()([x, first]))]

    return k.graph(outputs)


def used_twice(k):
    shared = k.dense("shared")
    return k.graph(lambda x: [shared(k.dense("hidden", 8)(x)), shared(x)])


MODELS = {
    "TimeDistributed": (
        lambda k: k.chain(k.dense("a"), k.layers.TimeDistributed(k.dense("out")), shape=(7, 8)),
        ["out"],
    ),
    "head in TimeDistributed": (
        lambda k: k.chain(k.dense("a"), k.layers.TimeDistributed(k.Head()), shape=(7, 8)),
        ["out"],
    ),
    "Bidirectional": (
        lambda k: k.chain(
            k.dense("a"), k.layers.Bidirectional(k.layers.GRU(2, name="g")), shape=(7, 8)
        ),
        ["forward_g", "backward_g"],
    ),
    "batch normalization": (
        lambda k: k.chain(k.dense("a"), k.dense("out"), k.layers.BatchNormalization()),
        ["out"],
    ),
    "normalization and scaling": (
        lambda k: k.chain(
            *(k.dense("a"), k.dense("out"), k.layers.LayerNormalization()),
            *(k.layers.PReLU(), k.layers.Rescaling(2.0), k.layers.Dropout(0.5)),
        ),
        ["out"],
    ),
    "temperature": (lambda k: k.chain(k.dense("a"), k.dense("out"), k.Temperature()), ["out"]),
    "head": (lambda k: k.chain(k.dense("a"), k.Head()), ["out"]),
    "matrix of its own": (lambda k: k.chain(k.dense("a"), k.dense("b"), k.Cosines()), []),
    "nested models": (
        lambda k: k.graph(
            lambda x: k.chain(k.dense("b"), k.dense("out"))(k.chain(k.dense("a", 8))(x))
        ),
        ["out"],
    ),
    "operations": (
        lambda k: k.graph(
            lambda x: [k.ops.softmax(k.dense("p")(k.dense("a")(x))) * 2, k.dense("q")(x)]
        ),
        ["p", "q"],
    ),
    "Lambda without a gradient": (
        lambda k: k.graph(lambda x: k.layers.Lambda(tf.argmax)(k.dense("out")(k.dense("a")(x)))),
        ["out"],
    ),
    "convolution and pooling": (
        lambda k: k.chain(
            k.layers.SeparableConv2D(4, 3),
            *(k.layers.Conv2D(2, 3, name="out"), k.layers.GlobalAveragePooling2D()),
            shape=(8, 8, 3),
        ),
        ["out"],
    ),
    "attention": (
        lambda k: k.graph(
            lambda x: k.layers.MultiHeadAttention(2, 4, name="out")(
                k.dense("a")(x), k.dense("b")(x)
            ),
            shape=(7, 8),
        ),
        ["out"],
    ),
    "gate": (
        lambda k: k.graph(lambda x: k.dense("p")(x) * k.ops.sigmoid(k.dense("q")(x))),
        ["p", "q"],
    ),
    "shared output layer": (used_twice, ["shared"]),
    "outputs that others read": (cascade, ["first", "second"]),
    "head before body": (
        lambda k: k.Subclassed(lambda m, x: m.a(m.b(x)), a=k.dense("out"), b=k.dense("b")),
        ["out"],
    ),
    "head of its own before body": (
        lambda k: k.Subclassed(lambda m, x: m.a(m.b(x)), a=k.Head(), b=k.dense("b")),
        ["out"],
    ),
    "list of heads": (
        lambda k: k.Subclassed(
            lambda m, x: {str(i): head(m.body(x)) for i, head in enumerate(m.heads)},
            heads=[k.dense("p"), k.dense("q")],
            body=k.dense("a"),
        ),
        ["p", "q"],
    ),
    "residual stream": (
        lambda k: k.Subclassed(
            residual,
            blocks=[[k.dense(f"up{i}", 16), k.dense(f"down{i}", 8)] for i in range(3)],
            norm=k.layers.LayerNormalization(),
        ),
        ["down2"],
    ),
    "tied embedding": (
        lambda k: k.Subclassed(
            lambda m, x: tf.matmul(
                m.a(m.table(x)), tf.convert_to_tensor(m.table.embeddings), transpose_b=True
            ),
            (2, 3),
            table=k.layers.Embedding(11, 8, name="table"),
            a=k.dense("a", 8),
        ),
        ["table"],
    ),
    "tf.function": (
        lambda k: k.InFunction(lambda m, x: m.a(m.b(x)), a=k.dense("out"), b=k.dense("b")),
        ["out"],
    ),
    "several in one loop": (
        lambda k: k.Subclassed(
            lambda m, x: tf.map_fn(lambda row: m.a(m.b(row)), x),
            (2, 3, 8),
            a=k.dense("out"),
            b=k.dense("b"),
        ),
        ["out", "b"],
    ),
    "half precision": (
        lambda k: k.chain(k.dense("a"), k.dense("out", dtype="mixed_float16"), k.layers.Softmax()),
        ["out"],
    ),
}


IN_KERAS_3 = {
    "attention": ["attention_output"],  # whose layers are pruned one by one
}


def names(model):
    """Names of the output layers of a model."""
    tree = module_for(model, "layer_tree")
    root = tree.LayerTree(model) if hasattr(tree, "LayerTree") else model
    outputs = module_for(model, "output_layers").find_outputs(root)
    assert getattr(outputs, "guessed", None) is None
    return {layer.name for layer in model._flatten_layers() if id(layer) in outputs.layers}


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_come_from(keras, kind):
    make, expected = MODELS[kind]
    if keras.__name__ == "keras":
        expected = IN_KERAS_3.get(kind, expected)
    model = make(kit(keras))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # in Keras 3, of a guess
        assert names(model) == set(expected)


@pytest.mark.parametrize("kind", ["TimeDistributed", "head", "head before body", "residual stream"])
def test_output_layers_stay_dense(keras, kind):
    make, expected = MODELS[kind]
    pruned = tf_movprune.prune_low_movement(make(kit(keras)), RAMP)
    found = tf_movprune.pruned_layers(pruned).values()
    chosen = {getattr(layer, "layer", layer).name for layer in found}
    assert chosen and not chosen & set(expected)
    tf_movprune.update_masks(pruned, 2)
    paths = [weight.path for weight in tf_movprune.summarize_sparsity(pruned).weights]
    plain = tf_movprune.strip_pruning(pruned)
    assert [weight.path for weight in tf_movprune.summarize_sparsity(plain).weights] == paths


def test_mirrored_variables(keras):
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = MODELS["head"][0](kit(keras))
    assert names(model) == {"out"}


def test_the_last_layer_is_taken_for_the_output_if_a_model_cannot_be_traced(keras):
    k = kit(keras)

    def outside(model, x):
        y = tf.py_function(lambda x: model.b(model.a(x)), [x], tf.float32)
        return tf.ensure_shape(y, [None, 5])

    for function in (outside, lambda m, x: m.b(m.a(x.numpy()))):
        model = k.Subclassed(function, shape=None, a=k.dense("a"), b=k.dense("b"))
        model.b(model.a(np.ones([2, 8], "float32")))
        model(np.ones([2, 8], "float32"))
        with pytest.warns(UserWarning, match=r"b is taken for the output layer "):
            tf_movprune.prune_low_movement(model, RAMP)
        assert list(tf_movprune.pruned_layers(model)) == ["a"]


def test_layers_have_no_outputs(keras):
    layer = kit(keras).Head()
    layer.build((None, 8))
    tree = module_for(layer, "layer_tree")
    root = tree.LayerTree(layer) if hasattr(tree, "LayerTree") else layer
    assert not module_for(layer, "output_layers").find_outputs(root).layers
