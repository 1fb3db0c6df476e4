"""Models that read strings, through files of their weights."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

pytest.importorskip("zstandard")
pytest.importorskip("safetensors")

ODD = ["new\nline", 'quo"te', "né", "\0", "日本", "a,b"]


def model_of(layer, shape=(3,), dtype=tf.string, vocabulary=20):
    layers = [keras.Input(shape, dtype=dtype), layer]
    if getattr(layer, "output_mode", getattr(layer, "_output_mode", "int")) == "int":
        layers += [keras.layers.Embedding(vocabulary, 2), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(2, use_bias=False)])


def text(adapt, seed, **options):
    keras.utils.set_random_seed(seed)
    if options.get("output_mode", "int") == "int":
        options["output_sequence_length"] = 3
    layer = keras.layers.TextVectorization(**options)
    layer.adapt(adapt)
    return model_of(layer, [])


def lookup(cls, dtype, adapt, seed, **options):
    keras.utils.set_random_seed(seed)
    layer = cls(**options)
    layer.adapt(adapt)
    return model_of(layer, dtype=dtype)


def normalization(adapt, seed):
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Normalization(axis=(1, 2))
    layer.adapt(adapt)
    return keras.Sequential(
        [keras.Input([2, 3]), layer, keras.layers.Flatten(), keras.layers.Dense(2)]
    )


def discretization(adapt, seed):
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Discretization(num_bins=4)
    layer.adapt(adapt)
    return model_of(layer, dtype=tf.float32)


def nested(adapt, seed):
    inner = text(adapt, seed)
    inputs = keras.Input([], dtype=tf.string)
    return keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))


STRINGS = (keras.layers.StringLookup, tf.string)
INTEGERS = (keras.layers.IntegerLookup, tf.int64)
RANDOM = np.random.RandomState(0).normal(size=[2, 40, 2, 3]).astype(np.float32)
SENTENCES = tf.constant(["a b c", "d e f b", "zz"])
WORDS = tf.constant([["x", "y", ODD[0]], [ODD[2], ODD[3], "z"]])
NUMBERS = tf.constant([[5, 6, 2**40], [-3, 7, 9]], tf.int64)

CASES = {
    "text": (text, ["a b c d", "b d b"], ["e f g", "x"], SENTENCES, {}),
    "text, multi-hot": (
        *(text, ["a b c d", "b d b"], ["e f g", "x"], SENTENCES),
        {"output_mode": "multi_hot", "max_tokens": 9, "pad_to_max_tokens": True},
    ),
    "text, tf-idf": (
        *(text, ["a b c d", "b d b"], ["e f g", "x a b b"], SENTENCES),
        {"output_mode": "tf_idf", "max_tokens": 9, "pad_to_max_tokens": True},
    ),
    "text, tf-idf of open size": (
        *(text, ["a b c d", "b d b"], ["e f g x", "x f"], SENTENCES),
        {"output_mode": "tf_idf"},
    ),
    "text in a nested model": (nested, ["a b c d", "b d b"], ["e f g", "x"], SENTENCES, {}),
    "strings": (
        *(lambda *a, **o: lookup(*STRINGS, *a, **o), ["x", "y", *ODD], ["z"], WORDS),
        {},
    ),
    "strings, no words": (
        *(lambda *a, **o: lookup(*STRINGS, *a, **o), ["x", "y"], ["z"], WORDS),
        {"num_oov_indices": 2, "mask_token": ""},
    ),
    "integers": (lambda *a, **o: lookup(*INTEGERS, *a, **o), [5, 6, 5], [2**40, -3], NUMBERS, {}),
    "integers, counted": (
        *(lambda *a, **o: lookup(*INTEGERS, *a, **o), [5, 6, 5], [2**40, -3], NUMBERS),
        {"output_mode": "count"},
    ),
    "normalization": (normalization, RANDOM[0], RANDOM[1] * 3 + 1, RANDOM[0, :2], {}),
    "discretization": (
        *(discretization, RANDOM[0].ravel(), RANDOM[1].ravel() * 9, RANDOM[0, :2, 0]),
        {},
    ),
}


@pytest.mark.parametrize("make, first, second, inputs, options", CASES.values(), ids=CASES)
def test_models_that_learned_from_data_come_back(make, first, second, inputs, options, tmp_path):
    model = make(first, 0, **options)
    expected = model.predict(inputs, verbose=0)
    report = tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    assert report.max_abs_error == 0
    arrays = tf_movprune.load_compressed(tmp_path / "x")
    assert all(array.dtype != object for array in arrays.values())
    sizes = tf_movprune.size_report(model)
    assert sizes.total("compressed float32") == sum(part.bytes for part in report.parts.values())

    other = make(second, 1, **options)
    assert np.abs(other.predict(inputs, verbose=0) - expected).max() > 1e-3
    tf_movprune.load_compressed(tmp_path / "x", other)
    np.testing.assert_array_equal(other.predict(inputs, verbose=0), expected)
    np.testing.assert_array_equal(other(inputs), model(inputs))
    for found, weight in zip(other.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(found, weight)

    tf_movprune.export_compressed(model, tmp_path / "x")  # int8 rounds matrices and nothing else
    tf_movprune.load_compressed(tmp_path / "x", other)
    for name, array in tf_movprune.load_compressed(tmp_path / "x").items():
        if "kernel" not in name and "embeddings" not in name:
            np.testing.assert_array_equal(array, arrays[name])


def test_vocabularies_are_vectors(tmp_path):
    model = lookup(*STRINGS, ["x", *ODD], 0, name="words")
    tf_movprune.export_compressed(model, tmp_path / "x")
    array = tf_movprune.load_compressed(tmp_path / "x")["words/vocabulary"]
    assert array.dtype == np.uint8
    assert json.loads(array.tobytes()) == model.layers[0].get_vocabulary()[1:]
    model = lookup(*INTEGERS, [7, 7, 8], 0, name="numbers")
    tf_movprune.export_compressed(model, tmp_path / "x")
    array = tf_movprune.load_compressed(tmp_path / "x")["numbers/vocabulary"]
    assert array.dtype == np.int64 and array.tolist() == [7, 8]


def test_layers_that_learned_nothing(tmp_path):
    model = model_of(keras.layers.StringLookup())
    tf_movprune.export_compressed(model, tmp_path / "empty", quantization=None)
    other = model_of(keras.layers.StringLookup())
    tf_movprune.load_compressed(tmp_path / "empty", other)
    for found, weight in zip(other.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(found, weight)
    other.layers[0].adapt(["x"])
    with pytest.raises(ValueError, match="it has no words, and the layer has 1"):
        tf_movprune.load_compressed(tmp_path / "empty", other)
    assert other.layers[0].get_vocabulary() == ["[UNK]", "x"]

    fixed = model_of(keras.layers.StringLookup(vocabulary=["x"]))  # no weight: the code has it
    tf_movprune.export_compressed(fixed, tmp_path / "fixed")
    assert list(tf_movprune.load_compressed(tmp_path / "fixed")) == [
        weight.name.removesuffix(":0") for weight in fixed.weights
    ]


@pytest.mark.parametrize(
    "tokens, message",
    [
        (b"", "Expecting value"),
        (b"[", "Expecting value"),
        (b"[" * 10**5, "recursion"),
        (b"\xff", "decode"),
        (b'{"a": 1}', "it is not a list of strings"),
        (b'["a", 1]', "it is not a list of strings"),
        (b'["a", "a"]', "repeated"),
        (b'["a", "b", "c", "d", "e"]', "larger than the maximum"),
        (b'["\\ud800"]', "UTF-8"),
    ],
)
def test_vocabularies_that_a_layer_cannot_have(tokens, message, tmp_path, monkeypatch):
    from tf_movprune.keras2 import vocabularies

    model = lookup(*STRINGS, ["x", "y"], 0, max_tokens=4, name="words")
    with monkeypatch.context() as patch:
        crafted = np.frombuffer(tokens, np.uint8)
        patch.setattr(vocabularies.Vocabulary, "numpy", lambda self: crafted)
        tf_movprune.export_compressed(model, tmp_path / "x")
    before = model.get_weights()
    pattern = rf"x does not fit .*'words/vocabulary' cannot be .*{message}"
    with pytest.raises(ValueError, match=re.compile(pattern, re.DOTALL)):
        tf_movprune.load_compressed(tmp_path / "x", model)
    for found, array in zip(model.get_weights(), before):
        np.testing.assert_array_equal(found, array)


def test_a_vocabulary_of_another_size_is_refused_where_the_size_counts(tmp_path):
    def model(words):
        return text(words, 0, output_mode="multi_hot", name="words")

    tf_movprune.export_compressed(model(["a b c"]), tmp_path / "x")
    other = model(["a b c d"])
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"Shapes in .* are not those"):
        tf_movprune.load_compressed(tmp_path / "x", other)
    for found, array in zip(other.get_weights(), before):
        np.testing.assert_array_equal(found, array)


def test_tables_that_are_no_vocabularies_are_refused_by_name(tmp_path):
    from tf_keras.src.engine.base_layer_utils import TrackableWeightHandler

    class Table(TrackableWeightHandler):
        def __init__(self):
            self._dtype = tf.float32
            self._distribute_strategy = tf.distribute.get_strategy()

        num_tensors = 1

        def get_tensors(self):
            return [tf.zeros([2])]

    class Counting(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self._add_trackable(Table(), False)

    model = keras.Sequential([Counting(2, input_shape=(3,), name="counting")])
    for function in (
        tf_movprune.size_report,
        lambda model: tf_movprune.export_compressed(model, tmp_path / "x"),
    ):
        with pytest.raises(ValueError, match=r"The layer 'counting' has .*a Table, .* Keep it in"):
            function(model)
    assert not list(tmp_path.iterdir())


def test_variables_of_strings_are_refused_by_name(tmp_path):
    class Labelled(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.labels = tf.Variable(["a", "b"], trainable=False, name="labels")

    model = keras.Sequential([Labelled(2, input_shape=(3,))])
    for function in (
        tf_movprune.size_report,
        lambda model: tf_movprune.export_compressed(model, tmp_path / "x"),
    ):
        with pytest.raises(TypeError, match=r"labels' has dtype object; .* Export a model without"):
            function(model)
    assert not list(tmp_path.iterdir())
