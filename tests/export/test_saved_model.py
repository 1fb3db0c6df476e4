"""Exports, and their comparison with the model they came from."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from berts import stripped_bert
from wrapped import Everything

import tf_movprune
from tf_movprune.core.inference import IfOpen
from tf_movprune.keras2.inference import inference_of

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def bert():
    return stripped_bert()


INPUTS = {
    "input_ids": np.arange(1, 13, dtype=np.int32)[None],
    "attention_mask": np.array([[1] * 7 + [0] * 5], np.int32),
    "token_type_ids": np.zeros([1, 12], np.int32),
}


def test_saved_model_of_bert(bert, tmp_path):
    path = tmp_path / "new" / "saved"
    report = tf_movprune.export_saved_model(bert, path)
    assert set(report.inputs) == set(INPUTS) and report.outputs == {"logits": (None, 2)}
    assert report.inputs["input_ids"] == (None, None)
    assert report.max_abs_diff < 1e-5
    assert 0 < report.gzip_bytes < report.bytes
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = loaded(**{name: tf.constant(value) for name, value in INPUTS.items()})
    np.testing.assert_allclose(outputs["logits"], bert(INPUTS).logits, atol=1e-5)
    assert "serving" not in str(report) and "logits" in str(report)
    assert report.quantization is None


def test_tflite_of_bert(bert, tmp_path):
    exact = tf_movprune.export_tflite(
        bert, tmp_path / "f32.tflite", sequence_length=12, quantization=None, inputs=INPUTS
    )
    small = tf_movprune.export_tflite(
        bert, tmp_path / "int8.tflite", sequence_length=12, inputs=INPUTS
    )
    assert exact.inputs["input_ids"] == (1, 12)
    assert exact.max_abs_diff < 1e-4
    assert exact.max_abs_diff < small.max_abs_diff < 0.5
    assert small.bytes < 0.6 * exact.bytes
    assert small.gzip_bytes < 0.8 * small.bytes
    assert small.max_abs_output == pytest.approx(np.abs(bert(INPUTS).logits).max())
    assert f", of outputs up to {small.max_abs_output:.2g}" in str(small)
    assert f"f32.tflite: {exact.bytes / 1e3:.1f} kB, " in str(exact)
    assert f"int8.tflite: int8, {small.bytes / 1e3:.1f} kB, " in str(small)


def test_sizes_are_printed_in_a_fitting_unit():
    report = tf_movprune.ExportReport("here", 12_340_000, 999_900, {"x": (1,)}, {"y": (1,)}, None)
    assert str(report) == "here: 12.3 MB, 999.9 kB gzipped; x -> y; not verified"


def test_tflite_with_open_shapes(bert, tmp_path):
    report = tf_movprune.export_tflite(
        bert,
        tmp_path / "open.tflite",
        sequence_length=None,
        batch_size=None,
        quantization=None,
        inputs=INPUTS,
    )
    assert report.inputs["input_ids"] == (None, None) and report.max_abs_diff < 1e-4


def functional():
    a, b = keras.Input([4], name="left"), keras.Input([None, 3], name="right")
    pooled = keras.layers.GlobalAveragePooling1D()(b)
    x = keras.layers.Concatenate()([a, pooled])
    outputs = [keras.layers.Dense(2, name="first")(x), keras.layers.Dense(1, name="second")(x)]
    return keras.Model([a, b], outputs)


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(np.ones([2, 5], np.float32))
    return model


def test_names_of_keras_models(tmp_path):
    report = tf_movprune.export_saved_model(functional(), tmp_path / "a")
    assert report.inputs == {"left": (None, 4), "right": (None, None, 3)}
    assert report.outputs == {"first": (None, 2), "second": (None, 1)}
    report = tf_movprune.export_tflite(functional(), tmp_path / "a.tflite", sequence_length=6)
    assert report.inputs == {"left": (1, 4), "right": (1, 6, 3)}
    report = tf_movprune.export_saved_model(subclassed(), tmp_path / "b", batch_size=4)
    assert list(report.inputs.values()) == [(4, 5)]
    assert report.outputs == {"output_0": (4, 3)}


def test_a_difference_is_an_error_and_nothing_is_written(bert, tmp_path):
    path = tmp_path / "int8.tflite"
    path.write_text("before")
    with pytest.raises(
        RuntimeError, match=r"was not written: its 'logits' .* by up to .*raise atol"
    ):
        tf_movprune.export_tflite(bert, path, sequence_length=12, atol=1e-9, inputs=INPUTS)
    assert [file.name for file in tmp_path.iterdir()] == ["int8.tflite"]
    assert path.read_text() == "before"
    report = tf_movprune.export_tflite(bert, path, sequence_length=12, atol=1e-9, verify=False)
    assert report.max_abs_diff is None and "not verified" in str(report)
    assert path.stat().st_size == report.bytes


def test_a_saved_model_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "saved"
    model = subclassed()
    tf_movprune.export_saved_model(model, path)
    (path / "assets" / "mine.txt").write_text("x")
    model.dense.bias.assign([np.nan, 0, 0])
    with pytest.raises(RuntimeError, match="by up to nan"):
        tf_movprune.export_saved_model(model, path)
    assert (path / "assets" / "mine.txt").exists()
    model.dense.bias.assign([1, 2, 3])
    tf_movprune.export_saved_model(model, path)
    assert not (path / "assets" / "mine.txt").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
    np.testing.assert_array_equal(
        loaded(tf.zeros([1, 5]))["output_0"], np.array([[1, 2, 3]], np.float32)
    )


@pytest.mark.parametrize("export", [tf_movprune.export_tflite, tf_movprune.export_saved_model])
def test_paths_that_cannot_be_written(export, tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises((OSError, tf.errors.OpError)):
        export(subclassed(), tmp_path / "file.txt" / "x")
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_outputs_that_are_no_floats(tmp_path):
    x = keras.Input([8], name="x")
    hidden = keras.layers.Dense(3)(x)
    model = keras.Model(x, [hidden > 0, tf.argmax(hidden, axis=-1)])
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        assert export(model, tmp_path / export.__name__).max_abs_diff == 0


def test_nan_is_a_difference(tmp_path):
    model = subclassed()
    model.dense.bias.assign([np.nan, 0, 0])
    with pytest.raises(RuntimeError, match="by up to nan"):
        tf_movprune.export_saved_model(model, tmp_path / "nan")


def test_without_litert(bert, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    report = tf_movprune.export_tflite(
        bert, tmp_path / "x.tflite", sequence_length=8, quantization=None
    )
    assert report.max_abs_diff < 1e-4


def test_errors(bert, tmp_path):
    with pytest.raises(ValueError, match=r"quantization must be None, .* got 'int2'"):
        tf_movprune.export_tflite(bert, tmp_path / "x", quantization="int2")
    with pytest.raises(TypeError, match=r"with the keys \['attention_mask', .*, got ndarray"):
        ids = np.ones([1, 12], np.int32)
        tf_movprune.export_tflite(bert, tmp_path / "x", sequence_length=12, inputs=ids)
    with pytest.raises(TypeError, match=r"Expected a model or layer .*, got 'model'"):
        tf_movprune.export_saved_model("model", tmp_path / "x")

    class Net(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Call the model once"):
        tf_movprune.export_saved_model(Net(), tmp_path / "x")
    pruned = tf_movprune.prune_low_movement(
        functional(),
        tf_movprune.CubicSparsity(0.5, 0, 1),
        pruning_policy=Everything(),
    )
    with pytest.raises(ValueError, match="strip_pruning"):
        tf_movprune.export_saved_model(pruned, tmp_path / "x")


@pytest.mark.parametrize("export", [tf_movprune.export_tflite, tf_movprune.export_saved_model])
def test_sizes_that_do_not_fit(bert, tmp_path, export):
    for name in ("sequence_length", "batch_size"):
        with pytest.raises(TypeError, match=f"{name} must be an integer such as 128, got '12'"):
            export(bert, tmp_path / "x", **{name: "12"})
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            export(bert, tmp_path / "x", **{name: 0})
    with pytest.raises(ValueError, match=r"at most 40, .* has positions, got 41"):
        export(bert, tmp_path / "x", sequence_length=41)
    assert inference_of(bert, IfOpen(128), 1).input_shapes["input_ids"] == (1, 40)
    x = keras.Input([None, 3], name="x")
    convolution = keras.Model(x, keras.layers.Conv1D(2, 5)(x))
    with pytest.raises(ValueError, match=r"cannot be called on .* x \(1, 4, 3\)\. Pass another"):
        export(convolution, tmp_path / "x", sequence_length=4, batch_size=1)
    assert not list(tmp_path.iterdir())
    assert export(convolution, tmp_path / "x", sequence_length=5).max_abs_diff < 0.1


def subclassed_of_fixed_length():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(np.ones([2, 6, 4], np.float32))
    return model


@pytest.mark.parametrize("export", [tf_movprune.export_tflite, tf_movprune.export_saved_model])
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential([keras.Input([6, 4]), keras.layers.Dense(2)], name="net"),
        subclassed_of_fixed_length,
    ],
    ids=["sequential", "subclassed"],
)
def test_a_sequence_length_where_no_axis_is_open(make, export, tmp_path):
    model = make()
    with pytest.raises(
        ValueError, match=r"sequence_length is 128, .*'net' .*\(None, 6, 4\)\. Leav"
    ):
        export(model, tmp_path / "x", sequence_length=128)
    assert not list(tmp_path.iterdir())
    for sizes in ({}, {"sequence_length": None}, {"sequence_length": 6}):
        (shape,) = export(model, tmp_path / "x", **sizes, batch_size=1).inputs.values()
        assert shape == (1, 6, 4)


@pytest.mark.slow
def test_positions_of_roberta_begin_after_the_padding(tmp_path):
    config = transformers.RobertaConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    model = transformers.TFRobertaModel(config)
    model(np.full([1, 4], 5, np.int32))
    with pytest.raises(ValueError, match=r"at most 10, .*got 11"):
        tf_movprune.export_tflite(model, tmp_path / "x", sequence_length=11)
    longest = {
        "input_ids": np.full([1, 10], 5),
        "attention_mask": np.ones([1, 10]),
        "token_type_ids": np.zeros([1, 10]),
    }
    tf_movprune.export_tflite(model, tmp_path / "x", sequence_length=10, inputs=longest)
