"""Compressed files: what is in them, and what happens to broken ones."""

import itertools
import json
import os
import sys

import numpy as np
import pytest
import tf_keras as keras
from berts import stripped_bert
from exporting import (
    QUANTIZATIONS,
    arrays_of,
    network,
)

import tf_movprune
from tf_movprune.core.named_weights import PARTS, NamedWeight, renumbered
from tf_movprune.export.compressed_files import coding, container, decoding
from tf_movprune.keras2.named_weights import named_weights

pytest.importorskip("zstandard")


safetensors = pytest.importorskip("safetensors")
pytest.importorskip("safetensors.numpy")  # which the package does not load by itself


@pytest.fixture(scope="module")
def bert():
    pytest.importorskip("transformers")
    return stripped_bert(num_labels=3)


def test_a_weight_below_half_a_step_becomes_zero(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(3,), use_bias=False)])
    model.layers[0].kernel.assign([[127.0], [0.4], [-0.6]])
    report = tf_movprune.export_compressed(model, tmp_path / "x")
    (found,) = tf_movprune.load_compressed(tmp_path / "x").values()
    assert found.ravel().tolist() == [127, 0, -1]
    assert report.rounded_to_zero == 1
    assert report.max_abs_error == pytest.approx(0.4)
    assert "0.4, 1 rounded to zero" in str(report)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_round_trip(quantization, tmp_path):
    model = network()
    report = tf_movprune.export_compressed(model, tmp_path / "x", quantization=quantization)
    assert report.bytes == (tmp_path / "x").stat().st_size
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
    arrays = tf_movprune.load_compressed(tmp_path / "x")
    assert list(arrays) == [weight.name.removesuffix(":0") for weight in model.weights]
    largest = 0
    for array, found in zip(arrays_of(model), arrays.values()):
        assert found.dtype == np.float32
        assert not found[array == 0].any()
        largest = max(largest, np.abs(found - array).max())
        if array.ndim < 2 or quantization is None:
            np.testing.assert_array_equal(found, array)
    assert report.max_abs_error == largest
    assert (largest == 0) == (quantization is None)

    other = network(seed=1)  # whose layers Keras has numbered on
    assert other.weights[2].name != model.weights[2].name
    assert tf_movprune.load_compressed(tmp_path / "x", other) is other
    for found, array in zip(arrays_of(other), arrays.values()):
        np.testing.assert_array_equal(found, array)


def test_channels_of_numbers_too_small_for_a_scale_become_zero(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3, use_bias=False)])
    model.build([None, 2])
    kernel = np.array([[1, 1e-44, 0.5], [0, 1e-44, -2]], "float32")
    model.set_weights([kernel])
    report = tf_movprune.export_compressed(model, tmp_path / "x", quantization="int8")
    assert report.rounded_to_zero == 2
    [found] = tf_movprune.load_compressed(tmp_path / "x").values()
    np.testing.assert_allclose(found, kernel, rtol=0, atol=0.01)


def test_the_same_model_gives_the_same_file(tmp_path):
    model = network()
    for name in "abcd":
        tf_movprune.export_compressed(model, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_report_adds_up(tmp_path):
    model = network()
    report = tf_movprune.export_compressed(model, tmp_path / "x")
    embeddings, encoder, other = (report.parts[part] for part in PARTS)
    assert embeddings.dense == 50 * 16 * 4
    assert encoder.total == (48 + 1) * 48 * 2
    assert other.total == 48 * 2 + 48 * 2 + 2
    header = report.bytes - embeddings.bytes - encoder.bytes - other.bytes
    assert 0 < header < 1000
    assert report.bound == sum(part.bound for part in report.parts.values())
    assert report.ratio == report.bytes / report.bound
    assert report.times_smaller == 4 * model.count_params() / report.bytes
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'x'}: int8, {report.bytes:,} bytes; largest error ")
    assert [line.split()[0] for line in lines[2:]] == [*PARTS, "header", "all"]
    assert lines[5].split() == ["header", f"{header:,}"]
    assert f"{encoder.ratio:.3f}" in lines[3] and f"{encoder.times_smaller:.1f}x" in lines[3]


def test_hugging_face_round_trip(bert, tmp_path):
    import transformers

    ids = np.random.RandomState(0).randint(0, 99, [4, 12])
    tf_movprune.export_compressed(bert, tmp_path / "f32", quantization=None)
    tf_movprune.export_compressed(bert, tmp_path / "int8")
    cls = transformers.TFBertForSequenceClassification
    expected = bert(ids).logits.numpy()
    loaded = tf_movprune.load_compressed(tmp_path / "f32", cls)
    assert loaded.config.num_labels == 3
    np.testing.assert_array_equal(loaded(ids).logits, expected)
    assert tf_movprune.summarize_sparsity(loaded).sparsity == pytest.approx(0.9, abs=0.01)
    quantized = tf_movprune.load_compressed(tmp_path / "int8", loaded)
    np.testing.assert_allclose(quantized(ids).logits, expected, atol=0.1)
    assert np.abs(quantized(ids).logits - expected).max() > 0
    assert tf_movprune.summarize_sparsity(quantized).sparsity >= 0.89

    with pytest.raises(
        ValueError, match="holds TFBertForSequenceClassification, got the class TFB"
    ):
        tf_movprune.load_compressed(tmp_path / "f32", transformers.TFBertModel)
    with pytest.raises(TypeError, match="Hugging Face class of one, or None, got the class Seq"):
        tf_movprune.load_compressed(tmp_path / "f32", keras.Sequential)
    tf_movprune.export_compressed(network(), tmp_path / "keras")
    with pytest.raises(ValueError, match="holds a model that is not of Hugging Face's classes"):
        tf_movprune.load_compressed(tmp_path / "keras", cls)


def test_parts_of_hugging_face_models(bert):
    parts = {weight.name: weight.part for weight in named_weights(bert)}
    assert set(parts.values()) == set(PARTS)
    for name, part in parts.items():
        is_encoder, is_embedding = "/layer_._" in name, "/embeddings/" in name
        assert part == ("layers" if is_encoder else "embeddings" if is_embedding else "other")


def test_swapped_arguments_are_named(tmp_path):
    model = network()
    for path, swapped in (("model.movprune", True), (tmp_path / "model", True), (None, False)):
        with pytest.raises(TypeError, match=r"load_compressed\(path, model\).* got <") as error:
            tf_movprune.load_compressed(model, path)
        assert ("swapped" in str(error.value)) == swapped


def test_parts_of_a_decoder():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=20)
    model = transformers.TFGPT2LMHeadModel(config)
    model(model.dummy_inputs)
    parts = {weight.name: weight.part for weight in named_weights(model)}
    assert set(parts.values()) == set(PARTS)
    for name, part in parts.items():
        is_embedding = "/wte/" in name or "/wpe/" in name
        assert part == ("layers" if "/h_._" in name else "embeddings" if is_embedding else "other")


def test_parts_of_other_models_are_where_weights_lie():
    model = keras.Sequential(
        [
            keras.Input([5]),
            *(keras.layers.Embedding(9, 4, name="table"), keras.layers.GRU(4, name="gru")),
            *(keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="output")),
        ]
    )
    parts = {weight.name.split("/")[0]: weight.part for weight in named_weights(model)}
    assert parts == {"table": "embeddings", "gru": "other", "hidden": "layers", "output": "other"}


def test_the_path_of_the_original_is_not_stored(bert, tmp_path):
    bert.config._name_or_path = "/somewhere/of/mine"
    tf_movprune.export_compressed(bert, tmp_path / "x")
    assert b"somewhere" not in (tmp_path / "x").read_bytes()


def test_equal_names_are_told_apart(tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(size, name="same") for size in (2, 3, 2)]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = Net()
    model(np.ones([1, 2], np.float32))
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    names = list(tf_movprune.load_compressed(tmp_path / "x"))
    assert len(set(names)) == 6 and sum("#" in name for name in names) == 4
    expected = arrays_of(model)
    for weight in model.weights:
        weight.assign(weight + 1)
    tf_movprune.load_compressed(tmp_path / "x", model)
    for found, array in zip(arrays_of(model), expected):
        np.testing.assert_array_equal(found, array)


def test_another_model_stays_as_it_is(tmp_path):
    tf_movprune.export_compressed(network(), tmp_path / "x")
    more = keras.Sequential([network(), keras.layers.Dense(2, name="extra")])
    wider = network(width=32)
    fewer = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    for model, message in [
        (more, r"Missing in the file: extra/kernel, extra/bias\. Missing in the model: none"),
        (wider, r"Shapes in .*dense.*\(48, 32\), in the file \(48, 48\)"),
        (fewer, r"file: none\. .* model: embedding/embeddings, .* and 2 more"),
    ]:
        before = arrays_of(model)
        with pytest.raises(ValueError, match=message):
            tf_movprune.load_compressed(tmp_path / "x", model)
        for found, array in zip(arrays_of(model), before):
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "model, received",
    [(3, "3"), ("bert", "'bert'"), ({}, "{}"), (b"", "b''"), (dict, "dict")],
)
def test_what_is_no_model_is_refused_before_the_file_is_read(model, received, tmp_path):
    message = rf"Expected a model .*of Keras 3 or tf_keras, got {received}\."
    with pytest.raises(TypeError, match=message):
        tf_movprune.load_compressed(tmp_path / "nothing", model)


def test_numbers_of_layers_count_anew():
    names = ["b_7/dense_9/kernel", "b_7/dense_9/bias", "b_7/dense_12/kernel", "b_9/dense_12/kernel"]
    expected = ["b/dense/kernel", "b/dense/bias", "b/dense_1/kernel", "b_1/dense/kernel"]
    assert renumbered(names) == expected
    assert renumbered(expected) == expected


def test_every_flipped_bit_is_found(tmp_path):
    model = keras.Sequential([keras.layers.Dense(9, input_shape=(30,))])
    path = tmp_path / "x"
    tf_movprune.export_compressed(model, path)
    whole = path.read_bytes()
    before = arrays_of(model)
    header = 8 + int.from_bytes(whole[:8], "little")
    assert header < len(whole) < 1500
    for place, bit in itertools.product(range(len(whole)), range(8)):
        broken = bytearray(whole)
        broken[place] ^= 1 << bit
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checksum|damaged|is of version"):
            tf_movprune.load_compressed(path, model)
    for length in [*range(0, 16), *range(16, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"checksum|damaged"):
            tf_movprune.load_compressed(path, model)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="is damaged, or was not written"):
        tf_movprune.load_compressed(path, model)
    for found, array in zip(arrays_of(model), before):
        np.testing.assert_array_equal(found, array)
    path.write_bytes(whole)
    tf_movprune.load_compressed(path, model)


def test_other_files_and_versions(tmp_path, monkeypatch):
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "plain")
    (tmp_path / "text").write_text("12345678" + json.dumps([1]))
    for name in ("plain", "text"):
        with pytest.raises(ValueError, match=r"no checksum of export_compressed: it is another"):
            tf_movprune.load_compressed(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        tf_movprune.load_compressed(tmp_path / "nothing")
    with monkeypatch.context() as patch:
        patch.setattr(container, "VERSION", 3)
        tf_movprune.export_compressed(network(), tmp_path / "later")
    with pytest.raises(ValueError, match=r"is of version 3 .* reader of version 2\. Install"):
        tf_movprune.load_compressed(tmp_path / "later")
    # Files of version 1 have a table that is not compressed.
    table = {"checksum": "0" * 64, "format": container.FORMAT, "version": 1, "tensors": []}
    metadata = {container.FORMAT: json.dumps(table)}
    safetensors.numpy.save_file({"0": np.ones(3, np.uint8)}, tmp_path / "earlier", metadata)
    with pytest.raises(ValueError, match=r"is of version 1 .* version 2\. Write it again"):
        tf_movprune.load_compressed(tmp_path / "earlier")


def test_safetensors_can_list_what_is_in_it(tmp_path):
    report = tf_movprune.export_compressed(network(), tmp_path / "x")
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        about = json.loads(file.metadata()[container.FORMAT])
        sizes = {name: len(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    assert about["version"] == 2 and set(sizes) == {"table", "weights"}
    assert 0 < sizes["table"] < about["table"] and sum(sizes.values()) < report.bytes


def test_nothing_is_left_of_what_cannot_be_written(tmp_path, monkeypatch):
    model = network()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(NotADirectoryError):
        tf_movprune.export_compressed(model, tmp_path / "file" / "x")
    with pytest.raises(FileNotFoundError):
        tf_movprune.export_compressed(model, tmp_path / "nowhere" / "x")

    def fail(*args):
        raise OSError("no replacing here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no replacing here"):
            tf_movprune.export_compressed(model, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("wrong", ["zeros", "values"])
def test_a_wrong_file_does_not_take_its_place(quantization, wrong, tmp_path, monkeypatch):
    right = decoding.decode

    def decode(entry, payload):
        array = right(entry, payload)
        if array.ndim == 2:
            chosen = array == 0 if wrong == "zeros" else array != 0
            array[chosen] += 1e-12 if wrong == "zeros" else 0.1 * np.abs(array).max()
        return array

    monkeypatch.setattr(container, "decode", decode)
    with pytest.raises(RuntimeError, match=r"read back for .* The file was removed"):
        tf_movprune.export_compressed(network(), tmp_path / "x", quantization=quantization)
    assert not list(tmp_path.iterdir())


def test_models_that_are_not_ready(tmp_path):
    pruned = tf_movprune.prune_low_movement(network(), tf_movprune.CubicSparsity(0.5, 0, 1))
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    for function in (
        lambda model: tf_movprune.export_compressed(model, tmp_path / "x"),
        tf_movprune.size_report,
    ):
        with pytest.raises(ValueError, match="strip_pruning"):
            function(pruned)
        with pytest.raises(ValueError, match="Call the model once"):
            function(unbuilt)
        with pytest.raises(TypeError, match=r"Expected a model or layer .*, got 'model'"):
            function("model")
    message = r"quantization must be 'int8', 'float16' or None, got 'int4'"
    with pytest.raises(ValueError, match=message):
        tf_movprune.export_compressed(network(), tmp_path / "x", quantization="int4")
    assert not list(tmp_path.iterdir())
    tf_movprune.export_compressed(network(), tmp_path / "x")
    with pytest.raises(ValueError, match="strip_pruning"):
        tf_movprune.load_compressed(tmp_path / "x", pruned)


def test_without_zstandard(tmp_path, monkeypatch):
    tf_movprune.export_compressed(network(), tmp_path / "x")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    message = r"need zstandard: pip install zstandard"
    with pytest.raises(ImportError, match=message):
        tf_movprune.export_compressed(network(), tmp_path / "y")
    with pytest.raises(ImportError, match=message):
        tf_movprune.load_compressed(tmp_path / "x")


def test_safetensors_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    tf_movprune.export_compressed(network(), tmp_path / "x")
    assert tf_movprune.load_compressed(tmp_path / "x")


def test_a_vocabulary_of_nothing_takes_no_memory(keras, tmp_path):
    """The model does not say how long a vocabulary is, and a few bytes can say 2 GiB."""
    look_up = keras.layers.StringLookup()
    look_up.adapt(np.array([["a"], ["b"]]))
    word = keras.Input([1], dtype="string")
    model = keras.Model(word, keras.layers.Embedding(3, 2)(look_up(word)))
    path = tmp_path / "x.movprune"
    tf_movprune.export_compressed(model, path)
    tf_movprune.load_compressed(path, model)
    with container.open_container(path) as opened:
        weights = [
            (entry, path.read_bytes()[start : start + sum(entry.sizes)])
            for entry, start in opened.entries
        ]
    (i,) = (i for i, (entry, _) in enumerate(weights) if entry.name.endswith("/vocabulary"))
    bomb = coding.encode(
        NamedWeight(weights[i][0].name, "other", np.zeros(1 << 24, np.uint8)), None
    )
    weights[i] = bomb.entry, bomb.payload
    path.write_bytes(container.container_of(weights, None))
    before = [np.array(weight) for weight in model.get_weights()]
    with pytest.raises(ValueError, match=r"Expected a vocabulary .* got 16,777,216 elements in"):
        tf_movprune.load_compressed(path, model)
    assert all((a == b).all() for a, b in zip(before, model.get_weights()))
