"""Tests of `compact` on models of either Keras."""

import collections.abc
import warnings

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_movprune
from tf_movprune.core.empty_units import Matrix
from tf_movprune.shells import module_for

TOLERANCE = 1e-5
X = np.random.RandomState(0).standard_normal([4, 8]).astype("float32")
SEQUENCES = np.random.RandomState(1).standard_normal([2, 7, 8]).astype("float32")


def draw(model, seed=0):
    """Weights and biases of a size at which every one of them counts."""
    random = np.random.RandomState(seed)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])


def zero(layer, index, axis=0):
    kernel = np.array(layer.kernel)
    kernel[(slice(None),) * axis + (index,)] = 0
    layer.kernel.assign(kernel)


def outputs_of(model, inputs):
    return np.asarray(model(inputs, training=False))


def chain(keras, kind="sequential", activation="sigmoid", between=(), **kwargs):
    layers = [
        keras.layers.Dense(12, activation, name="first", **kwargs),
        *between,
        keras.layers.Dropout(0.1),
        keras.layers.Dense(10, "gelu", name="second", **kwargs),
        keras.layers.LeakyReLU(),
        keras.layers.Dense(3, name="third"),
    ]
    if kind == "sequential":
        return keras.Sequential([keras.Input([8]), *layers])
    if kind == "without input":
        model = keras.Sequential(layers)
        model(X)
        return model
    x = inputs = keras.Input([8])
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def empty_some(model):
    """Empties 4 of 12 neurons and 1 of 10, in both ways."""
    zero(model.get_layer("second"), [0, 5])
    zero(model.get_layer("first"), [1, 5, 7], axis=1)
    zero(model.get_layer("third"), [9])


def widths(model):
    return [layer.units for layer in model.layers if hasattr(layer, "units")]


@pytest.mark.parametrize(
    "kind, multiple_of, expected",
    [
        ("sequential", 1, [8, 9, 3]),
        ("functional", 5, [10, 10, 3]),
        ("without input", 1, [8, 9, 3]),
    ],
)
def test_neurons_go_and_outputs_stay(keras, kind, multiple_of, expected, tmp_path):
    model = chain(keras, kind)
    draw(model)
    empty_some(model)
    outputs = outputs_of(model, X)
    smaller = tf_movprune.compact(model, multiple_of=multiple_of)
    assert widths(smaller) == expected and isinstance(smaller, type(model))
    np.testing.assert_allclose(outputs_of(smaller, X), outputs, rtol=0, atol=TOLERANCE)
    smaller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs_of(loaded, X), outputs_of(smaller, X))
    smaller.compile("sgd", "mse")
    smaller.fit(X, X[:, :3], verbose=0)
    assert tf_movprune.summarize_sparsity(smaller).sparsity < 0.2
    assert tf_movprune.size_report(smaller) is not None


def assert_compacts_to(model, expected, inputs=X, **kwargs):
    """Asserts that the layers of a model get some widths, and that its outputs stay."""
    outputs = outputs_of(model, inputs)
    smaller = tf_movprune.compact(model, **kwargs)
    assert widths(smaller) == expected
    np.testing.assert_allclose(outputs_of(smaller, inputs), outputs, rtol=0, atol=TOLERANCE)
    return smaller


def test_one_neuron_stays(keras):
    model = chain(keras)
    draw(model)
    zero(model.get_layer("second"), slice(None))
    assert_compacts_to(model, [1, 1, 3])


def test_what_is_removed_can_be_all_that_reads_another(keras):
    model = chain(keras)
    draw(model)
    kernel = np.array(model.get_layer("second").kernel)
    kernel[4, 1:] = 0  # only neuron 0 of the second layer reads it
    model.get_layer("second").kernel.assign(kernel)
    zero(model.get_layer("third"), [0])
    assert_compacts_to(model, [11, 9, 3])


def test_no_more_neurons_stay_than_there_are(keras):
    model = chain(keras)
    draw(model)
    empty_some(model)
    with pytest.warns(UserWarning, match="as multiple_of asks for"):
        assert tf_movprune.compact(model, multiple_of=7) is model
    assert_compacts_to(model, [8, 10, 3], multiple_of=4)


def test_what_is_kept_to_round_a_number_needs_no_other_neurons(keras):
    model = chain(keras)
    draw(model)
    kernel = np.array(model.get_layer("second").kernel)
    kernel[4:9, 1:] = 0
    model.get_layer("second").kernel.assign(kernel)
    zero(model.get_layer("third"), [0, 1, 2])
    smaller = assert_compacts_to(model, [8, 8, 3], multiple_of=4)
    dense = (smaller.get_layer(name) for name in ("first", "second", "third"))
    assert [np.sum(~np.any(layer.kernel, axis=0)) for layer in dense] == [1, 1, 0]


def test_without_a_bias_to_fold_into_only_what_adds_nothing_goes(keras):
    model = chain(keras, use_bias=False)
    draw(model)
    zero(model.get_layer("first"), [1], axis=1)  # sigmoid(0) is not 0
    zero(model.get_layer("second"), [2])
    zero(model.get_layer("second"), [6], axis=1)  # gelu(0) is
    assert_compacts_to(model, [11, 9, 3])


def test_dropout_of_whole_channels_is_passed(keras):
    layers = [keras.layers.Dense(12, "sigmoid"), keras.layers.SpatialDropout1D(0.5)]
    model = keras.Sequential([keras.Input([7, 8]), *layers, keras.layers.Dense(2)])
    draw(model)
    zero(layers[0], [2, 3], axis=1)
    assert_compacts_to(model, [10, 2], SEQUENCES)


def test_mixed_precision(keras):
    model = chain(keras, dtype="mixed_bfloat16")
    draw(model)
    zero(model.get_layer("second"), [0, 5])
    outputs = outputs_of(model, X)
    smaller = tf_movprune.compact(model)
    first = smaller.get_layer("first")
    assert (first.units, first.compute_dtype, first.kernel.dtype) == (10, "bfloat16", "float32")
    # Sums of fewer terms are rounded in another order.
    np.testing.assert_allclose(outputs_of(smaller, X), outputs, rtol=0, atol=0.05)


def test_neurons_that_depend_on_each_other_stay(keras):
    for model in (
        chain(keras, activation="softmax"),
        chain(keras, between=[keras.layers.LayerNormalization()]),
        chain(keras, "functional", between=[keras.layers.Activation("softmax")]),
        chain(keras, activation=lambda x: x / (1 + tf.reduce_sum(x**2, axis=-1, keepdims=True))),
    ):
        draw(model)
        zero(model.get_layer("second"), [0, 5])
        with pytest.warns(UserWarning, match="nothing was removed"):
            assert tf_movprune.compact(model) is model
        assert widths(model) == [12, 10, 3]


@pytest.mark.parametrize(
    "kind", ["two readers", "an output", "used twice", "used on two inputs", "elsewhere"]
)
def test_neurons_that_others_see_stay(keras, kind):
    inputs = keras.Input([8])
    first, second = keras.layers.Dense(8, "relu"), keras.layers.Dense(3)
    hidden = first(inputs)
    outputs = [second(hidden)]
    if kind == "two readers":
        outputs.append(keras.layers.Dense(2)(hidden))
    elif kind == "an output":
        outputs.append(hidden)
    elif kind == "used twice":
        outputs.append(keras.layers.Add()([first(hidden), inputs]))
    elif kind == "used on two inputs":  # each use has one reader
        inputs = [inputs, keras.Input([8])]
        outputs.append(keras.layers.Dense(2)(first(inputs[1])))
    else:
        outputs.append(keras.Model(inputs, first(inputs))(inputs))
    model = keras.Model(inputs, outputs)
    zero(second, [0, 5])
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)


@pytest.mark.parametrize("kind", ["wrapped", "called"])
def test_neurons_that_others_use_in_their_own_code_stay(keras, kind):
    class Holder(keras.Model):
        def __init__(self, *parts):
            super().__init__()
            self.parts = parts

        def call(self, x):
            network, other = self.parts
            return network(x), other(x if kind == "called" else x[None])

    network = chain(keras)
    zero(network.get_layer("second"), [0, 5])
    first = network.get_layer("first")
    model = Holder(network, first if kind == "called" else keras.layers.TimeDistributed(first))
    model(X)
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)


def attention_model(keras, kind, scores=False):
    attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5)
    head = keras.layers.Dense(2)
    if kind == "functional":
        inputs = keras.Input([None, 8])
        attended = attention(inputs, inputs, return_attention_scores=scores)
        if scores:
            return keras.Model(inputs, [head(attended[0]), attended[1]]), attention
        return keras.Model(inputs, head(attended)), attention

    class Encoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention, head

        def call(self, inputs):
            return self.head(self.attention(inputs, inputs))

    model = Encoder()
    model(SEQUENCES)
    return model, attention


def empty_heads(attention, heads=(1, 2)):
    """Lets one head be read by nothing, and the others read nothing."""
    zero(attention._output_dense, heads[0])
    zero(attention._value_dense, list(heads[1:]), axis=1)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
@pytest.mark.parametrize("heads", [(1, 2), (0, 1, 2, 3)])
def test_heads_go_and_outputs_stay(keras, kind, heads):
    model, attention = attention_model(keras, kind)
    draw(model)
    empty_heads(attention, heads)
    outputs = outputs_of(model, SEQUENCES)
    smaller = tf_movprune.compact(model, multiple_of=4)  # which is for neurons alone
    (remaining,) = (x for x in smaller._flatten_layers() if hasattr(x, "_num_heads"))
    assert remaining._num_heads == max(1, 4 - len(heads))
    np.testing.assert_allclose(outputs_of(smaller, SEQUENCES), outputs, rtol=0, atol=TOLERANCE)


def test_attention_keeps_its_names_and_what_is_frozen(keras):
    def names():
        of_model = model.weights, model.trainable_weights
        return [[getattr(weight, "path", weight.name) for weight in some] for some in of_model]

    model, attention = attention_model(keras, "subclassed")
    attention._key_dense.trainable = False
    empty_heads(attention)
    before = names()
    tf_movprune.compact(model)
    assert model.attention._num_heads == 2
    assert names() == before and len(before[0]) == len(before[1]) + 2


def test_heads_whose_scores_a_graph_shows_stay(keras):
    model, attention = attention_model(keras, "functional", scores=True)
    empty_heads(attention)
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)
    assert attention._num_heads == 4


@pytest.mark.filterwarnings("ignore:.*heads and neurons of .* stay|No head and no neuron")
@pytest.mark.parametrize("by_position", [True, False])
def test_heads_stay_that_a_mask_has_an_axis_for(keras, by_position):
    inputs, masks = keras.Input([None, 8]), keras.Input([4, None, None])
    attention = keras.layers.MultiHeadAttention(4, 6)
    if by_position:
        if keras.__name__ == "keras":
            pytest.skip("Keras 3 takes the mask by name.")
        attended = attention(inputs, inputs, None, masks)
    else:
        attended = attention(inputs, inputs, attention_mask=masks)
    model = keras.Model([inputs, masks], attended)
    draw(model)
    empty_heads(attention)
    given = [SEQUENCES, np.tril(np.ones([2, 4, 7, 7], "float32"))]
    outputs = outputs_of(model, given)
    found = outputs_of(tf_movprune.compact(model), given)
    np.testing.assert_allclose(found, outputs, rtol=0, atol=TOLERANCE)
    assert attention._num_heads == 4


def test_neurons_stay_that_a_function_reads(keras):
    read, first = keras.layers.Dense(8, "relu", name="read"), keras.layers.Dense(8, "relu")
    inputs = keras.Input([8])
    outputs = keras.layers.Dense(3, name="third")(first(inputs))
    others = keras.layers.Dense(3, name="other")(read(inputs))
    total = keras.layers.Lambda(lambda x: tf.reduce_sum(read(x), -1, keepdims=True))(inputs)
    model = keras.Model(inputs, keras.layers.Add()([outputs, others * total]))
    draw(model)
    for name in ("third", "other"):
        zero(model.get_layer(name), [0, 5])
    outputs, size = outputs_of(model, X), model.count_params()
    if (
        keras.__name__ == "keras"
    ):  # in tf_keras the function goes on to call the layer that it knows
        with pytest.warns(UserWarning, match=r"empty heads and neurons of 'read' stay"):
            smaller = tf_movprune.compact(model)
        assert read.units == 8 and first.units == 6
    else:
        smaller = tf_movprune.compact(model)
    assert smaller.count_params() < size
    np.testing.assert_allclose(outputs_of(smaller, X), outputs, rtol=0, atol=TOLERANCE)


def read_by_a_function(before, after):
    """A Keras 3 model in which a function of a Lambda layer reads one that has empty neurons."""
    read = keras3.layers.Dense(16, "relu", name="read")
    layers = [read, keras3.layers.Dense(16, "relu"), keras3.layers.Dense(3)]
    inputs, x = before()
    outputs = keras3.Sequential(layers)(x)
    read_outside = keras3.layers.Lambda(lambda x: 10 * read(x)[:, 6:9], name="function")(x)
    model = keras3.Model(inputs, after(outputs + read_outside))
    for layer in layers[:2]:
        zero(layer, range(6), axis=1)
    return model, read


def test_neurons_stay_that_labels_hang_on():
    def inputs():
        return [keras3.Input([8])] * 2

    for after in (lambda x: keras3.ops.argmax(x, -1), lambda x: x > 0.1):
        model, read = read_by_a_function(inputs, after)
        given = np.random.RandomState(0).standard_normal([64, 8]).astype("float32")
        outputs = outputs_of(model, given)
        with pytest.warns(UserWarning, match=r"empty heads and neurons of 'read'"):
            tf_movprune.compact(model)
        assert read.units == 16
        np.testing.assert_array_equal(outputs_of(model, given), outputs)
    model = chain(keras3, "functional")
    draw(model)
    empty_some(model)
    labels = keras3.Model(model.input, keras3.ops.argmax(model.output, -1))
    assert widths(tf_movprune.compact(labels)) == [8, 9, 3]


def test_code_of_users_is_named_where_outputs_cannot_be_compared():
    def strings():
        inputs = keras3.Input([8], dtype="string")
        ids = keras3.layers.TextVectorization(vocabulary=["a"], output_sequence_length=8)
        return inputs, keras3.ops.cast(ids(inputs[:, 0]), "float32")

    def floats():
        inputs = keras3.Input([8])
        return inputs, inputs

    def noisy(x):
        return keras3.layers.Lambda(lambda x: x + tf.random.normal([3]), name="noise")(x)

    message = r"were not compared: .* code of .*'function'.* may read"
    for before, after in ((strings, lambda x: x), (floats, noisy)):
        with pytest.warns(UserWarning, match=message):
            tf_movprune.compact(read_by_a_function(before, after)[0])


def test_functions_that_were_traced_before_compute_with_no_weights_of_before(keras):
    class Around(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    outer = Around(Around(chain(keras)))
    models = outer, outer.inner
    draw(outer.inner.inner)
    empty_some(outer.inner.inner)
    for model in models:
        model.predict(X, verbose=0)
    compacted = tf_movprune.compact(outer).inner.inner
    assert widths(compacted) == [8, 9, 3]
    compacted.set_weights([np.zeros(weight.shape) for weight in compacted.get_weights()])
    for model in models:
        assert not np.any(model.predict(X, verbose=0))


def test_traces_of_outer_models_raise_after_compaction_in_place():
    import keras

    inner = chain(keras)
    draw(inner)
    empty_some(inner)
    x = keras.Input([8])
    outer = keras.Model(x, inner(x))
    outer.compile("sgd", "mse")
    outer.train_on_batch(X, X[:, :3])
    traced = tf.function(lambda x: outer(x))
    traced(X)
    empty_some(inner)
    tf_movprune.compact(inner)
    for stale in (lambda: outer.train_on_batch(X, X[:, :3]), lambda: traced(X)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            stale()
    outer.compile("sgd", "mse")
    before = np.array(inner.get_layer("first").kernel)
    outer.train_on_batch(X, X[:, :3])
    assert np.any(before != np.array(inner.get_layer("first").kernel))


def test_what_was_shrunk_for_a_file_is_as_it_was(keras, tmp_path):
    model = chain(keras, "functional")
    draw(model)
    empty_some(model)
    outputs, weights = outputs_of(model, X), model.get_weights()
    report = tf_movprune.export_tflite(model, tmp_path / "model.tflite", quantization=None)
    assert report.max_abs_diff < TOLERANCE
    assert widths(model) == [12, 10, 3]
    for found, expected in zip(model.get_weights(), weights):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(outputs_of(model, X), outputs)
    tf_movprune.export_tflite(model, tmp_path / "full.tflite", quantization=None, shrink=False)
    sizes = [(tmp_path / name).stat().st_size for name in ("model.tflite", "full.tflite")]
    assert sizes[0] < sizes[1]


STEPS = {
    "tf_keras": [
        *("_rebuilt", "_smaller_attention", "_smaller_dense", "record_sizes", "replace_layers"),
        *("forget_compilation", "LayerTree.forget_traces", "unguard_training"),
    ],
    "keras": [
        *("shrink", "fit_attention", "record_sizes", "resize_dense"),
        *("compat.forget_compilation", "compat.forget_all_traces", "unguard_training"),
    ],
}


def attributes_of(model):
    """All layers, with their classes, their attributes, and what is in lists and mappings."""

    def contents(value):
        if isinstance(value, list):
            return [id(item) for item in value]
        if isinstance(value, dict):
            return {key: id(item) for key, item in value.items()}
        return None if isinstance(value, collections.abc.MutableMapping) else id(value)

    return [
        (layer, type(layer), {name: contents(vars(layer)[name]) for name in vars(layer)})
        for layer in model._flatten_layers()
    ]


def failing_after(function):
    def fail(*args, **kwargs):
        function(*args, **kwargs)
        raise MemoryError

    return fail


@pytest.mark.parametrize(
    "keras, step",
    [(name, step) for name, steps in STEPS.items() for step in steps],
    indirect=["keras"],
)
def test_nothing_is_changed_if_a_step_fails(keras, step, monkeypatch):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(4, 2)
            self.chain = chain(keras)

        def call(self, x):
            return self.chain(self.attention(x, x)[:, 0])

    model = Net()
    model.compile("adam", "mse")
    model.fit(SEQUENCES, SEQUENCES[:, 0, :3], verbose=0)
    empty_some(model.chain)
    zero(model.attention._output_dense, [1, 3])
    outputs, names = outputs_of(model, SEQUENCES), [weight.name for weight in model.weights]
    before, weights = attributes_of(model), model.get_weights()

    *owners, name = step.split(".")
    owner = module_for(model, "compact")
    for attribute in owners:
        owner = getattr(owner, attribute)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing_after(getattr(owner, name)))
        with pytest.raises(MemoryError):
            tf_movprune.compact(model)

    assert attributes_of(model) == before
    assert [weight.name for weight in model.weights] == names
    for found, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(outputs_of(model, SEQUENCES), outputs)
    model.fit(SEQUENCES, SEQUENCES[:, 0, :3], verbose=0)
    smaller = tf_movprune.compact(model)
    assert smaller is model and len(smaller.weights) == len(names)


def test_pruned_and_unbuilt_models_are_refused(keras):
    pruned = tf_movprune.prune_low_movement(chain(keras), tf_movprune.CubicSparsity(0.5, 0, 1))
    with pytest.raises(ValueError, match=r"still .*strip_pruning"):
        tf_movprune.compact(pruned)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(2)

    with pytest.raises(ValueError, match=r"has no weights\. Call it once"):
        tf_movprune.compact(Net())
    with pytest.raises(TypeError, match="Expected a model or layer"):
        tf_movprune.compact("model")


@pytest.mark.parametrize(
    "multiple_of, error", [(0, ValueError), (True, TypeError), (8.0, TypeError)]
)
def test_multiple_of_is_a_positive_integer(keras, multiple_of, error):
    model = chain(keras)
    empty_some(model)
    with pytest.raises(error, match="multiple_of must be"):
        tf_movprune.compact(model, multiple_of=multiple_of)
    assert widths(model) == [12, 10, 3]


def test_kernels_are_read_without_a_warning_of_numpy(keras):
    layer = keras.layers.Dense(2)
    layer.build([None, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = Matrix(layer)
    assert matrix.kernel.flags.writeable and matrix.is_that_of(layer)
