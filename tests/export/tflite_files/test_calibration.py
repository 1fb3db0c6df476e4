"""TFLite files whose activations are int8 too, by ranges measured on data."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from exporting import dense_model, operators, outputs_of, prune, random_input
from tensorflow.lite.python import schema_py_generated as schema

import tf_movprune
from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.calibration import MAX_ROWS, calibration_batches

SPECS = [tf.TensorSpec([1, 3], tf.int32, "ids"), tf.TensorSpec([1], tf.float32, "scale")]
IDS = np.arange(15).reshape(5, 3)
SCALE = np.linspace(0, 1, 5)
ROWS = {"ids": IDS, "scale": SCALE}


@pytest.mark.filterwarnings(
    "error::UserWarning"
)  # the converter's own interpreter says that it is deprecated
def test_files_of_whole_numbers(tmp_path):
    model = dense_model(64, 48)
    prune(model.layers[1], 0.9)
    random = np.random.RandomState(1)
    calibration = {"x": random.normal(size=[40, 8, 64])}
    path = tmp_path / "x"
    report = tf_movprune.export_tflite(model, path, calibration=calibration)
    assert report.calibration_rows == 40 and report.quantization == "int8"
    assert ": int8, activations too, from 40 rows, " in str(report)
    file = flatbuffer.read(path.read_bytes())
    graph = flatbuffer.main_graph(file)
    ends = [graph.tensors[i].type for i in (*graph.inputs, *graph.outputs)]
    assert ends == [schema.TensorType.FLOAT32] * 2
    inside = {operator.outputs[0] for operator in graph.operators} - {*graph.outputs}
    assert {graph.tensors[i].type for i in inside} == {schema.TensorType.INT8}
    first, second = report.matrices
    kernel = model.layers[1].kernel.numpy()
    assert first.dtype == second.dtype == "int8" and first.storage == "dense"
    assert 0.95 * np.count_nonzero(kernel) < first.remaining <= np.count_nonzero(kernel)
    for result in outputs_of(path, random_input(model)):
        np.testing.assert_allclose(result, model(random_input(model)), rtol=0, atol=0.06)
    assert report.max_abs_diff < 0.06


def test_inputs_and_outputs_of_int8(keras, tmp_path):
    """Floats become int8 if asked for, and ids stay what they are."""
    ids, x = keras.Input([8], dtype="int32", name="ids"), keras.Input([16], name="x")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(99, 16)(ids))
    outputs = keras.layers.Dense(3, name="y")(keras.layers.Dense(64)(pooled + x))
    model = keras.Model([ids, x], outputs)
    random = np.random.RandomState(0)
    data = {
        "ids": random.randint(0, 99, [50, 8]).astype(np.int32),
        "x": random.normal(size=[50, 16]).astype(np.float32),
    }
    path = tmp_path / "x.tflite"
    report = tf_movprune.export_tflite(model, path, calibration=data, float_io=False)
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()
    assert {name: details["dtype"] for name, details in taken.items()} == {
        "ids": np.int32,
        "x": np.int8,
    }
    (output,) = given.values()
    assert output["dtype"] == np.int8 and output["quantization"][0] > 0
    expected = np.array(model([data["ids"], data["x"]]))
    assert 0 < report.max_abs_diff < 0.1 * np.abs(expected).max()
    wrong = tmp_path / "wrong.tflite"
    with pytest.raises(RuntimeError, match=r"would differ from that of the Keras model"):
        tf_movprune.export_tflite(model, wrong, calibration=data, float_io=False, atol=1e-6)
    with pytest.raises(ValueError, match=r"float_io=False.* Pass calibration"):
        tf_movprune.export_tflite(model, wrong, float_io=False)
    assert not wrong.exists()


def test_ranges_are_those_of_the_data(tmp_path):
    """With data ten times too small, large activations are cut."""
    model = tf_keras.Sequential([tf_keras.Input([32]), tf_keras.layers.Dense(32, use_bias=False)])
    x = np.random.RandomState(0).normal(size=[64, 32]).astype(np.float32)
    differences = []
    for scale in (1.0, 0.1):
        tf_movprune.export_tflite(model, tmp_path / "x", calibration=scale * x)
        runner = Interpreter(model_path=str(tmp_path / "x")).get_signature_runner()
        name = next(iter(runner.get_input_details()))
        (result,) = runner(**{name: x[:1]}).values()
        differences.append(np.max(np.abs(result - model(x[:1]))))
    assert differences[0] < 0.1 < 0.5 < differences[1]


def test_old_runtimes(tmp_path):
    model = dense_model(64)
    options = {"calibration": {"x": np.random.RandomState(0).normal(size=[8, 8, 64])}}
    new = tf_movprune.export_tflite(model, tmp_path / "x", runtime="2.12", **options)
    scales = []
    for runtime in (None, "2.3"):
        report = tf_movprune.export_tflite(model, tmp_path / "x", runtime=runtime, **options)
        graph = flatbuffer.main_graph(flatbuffer.read((tmp_path / "x").read_bytes()))
        (matrix,) = (t for t in graph.tensors if flatbuffer.text(t.name) == report.matrices[0].name)
        scales.append(len(matrix.quantization.scale))
        assert report.min_runtime == ("2.12.0" if runtime is None else "2.0.0")
    assert scales == [64, 1] and new.min_runtime == "2.12.0"


def test_integers_stay_integers(tmp_path):
    ids = tf_keras.Input([16], name="ids", dtype="int32")
    hidden = tf_keras.layers.Embedding(50, 32)(ids)
    model = tf_keras.Model(ids, tf_keras.layers.Dense(64)(hidden))
    data = tf.data.Dataset.from_tensor_slices(
        (np.random.RandomState(0).randint(0, 50, [30, 16]), np.zeros(30))
    ).batch(8)
    report = tf_movprune.export_tflite(model, tmp_path / "x", calibration=data)
    assert report.calibration_rows == 30
    (detail,) = Interpreter(model_path=str(tmp_path / "x")).get_input_details()
    assert detail["dtype"] == np.int32


def test_images(tmp_path):
    tf_keras.utils.set_random_seed(0)
    images = tf_keras.Input([8, 8, 3], name="image")
    hidden = tf_keras.layers.Conv2D(8, 3, activation="relu")(images)
    hidden = tf_keras.layers.DepthwiseConv2D(3)(tf_keras.layers.BatchNormalization()(hidden))
    hidden = tf_keras.layers.GlobalAveragePooling2D()(hidden)
    model = tf_keras.Model(images, tf_keras.layers.Dense(4)(hidden))
    data = np.random.RandomState(0).uniform(size=[20, 8, 8, 3])
    report = tf_movprune.export_tflite(model, tmp_path / "x", calibration=data, batch_size=None)
    assert report.max_abs_diff < 0.05 and report.calibration_rows == 20
    ends = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)
    codes = [code for code, _ in operators(tmp_path / "x")]
    assert [codes.count(end) for end in ends] == [1, 1]


def recurrent(keras, layer, **options):
    x = keras.Input([10, 8], name="x")
    layer = getattr(keras.layers, layer)(32, name="memory", **options)
    return keras.Model(x, keras.layers.Dense(40)(layer(x)), name="net")


STEPS = {"x": np.random.RandomState(0).normal(size=[16, 10, 8])}


@pytest.mark.parametrize("layer", ["GRU", "SimpleRNN"])
def test_loops_that_would_end_the_process_are_refused(keras, layer, tmp_path):
    model = recurrent(keras, layer)
    with pytest.raises(
        ValueError, match=r"'net' loops over steps \(.*\), .* unroll=True, or leave"
    ):
        tf_movprune.export_tflite(model, tmp_path / "x", calibration=STEPS)
    assert not list(tmp_path.iterdir())


def test_recurrent_layers_that_are_no_loops(tmp_path):
    for layer, options in (("LSTM", {}), ("GRU", {"unroll": True})):
        model = recurrent(tf_keras, layer, **options)
        report = tf_movprune.export_tflite(model, tmp_path / "x", calibration=STEPS)
        assert report.max_abs_diff < 0.1


@pytest.mark.parametrize(
    "calibration",
    [
        ROWS,
        [ROWS],
        (ROWS, np.zeros(5)),
        [{"ids": IDS[i : i + 1], "scale": SCALE[i : i + 1]} for i in range(5)],
        lambda: ({"ids": IDS[i:j], "scale": SCALE[i:j]} for i, j in ((0, 2), (2, 2), (2, 5))),
        tf.data.Dataset.from_tensor_slices(ROWS).batch(2),
        tf.data.Dataset.from_tensor_slices((ROWS, SCALE, SCALE)).batch(5),
        {"ids": IDS.astype(float), "scale": SCALE},  # whole numbers
    ],
)
@pytest.mark.parametrize("size", [1, 2, None])
def test_data_as_fit_takes_it(calibration, size):
    if callable(calibration):
        calibration = calibration()  # a generator is read once
    specs = [tf.TensorSpec([size, *spec.shape[1:]], spec.dtype, spec.name) for spec in SPECS]
    batches = calibration_batches(specs, calibration)
    assert len(batches) == 5 // (size or 1)
    ids = np.concatenate([batch["ids"] for batch in batches])
    np.testing.assert_array_equal(ids, IDS[: len(ids)])
    assert {batch["ids"].shape for batch in batches} == {(size or 1, 3)}
    assert {batch["scale"].dtype for batch in batches} == {np.dtype("float32")}


def test_no_more_than_some_rows_are_read():
    read = itertools.count()
    batches = calibration_batches(SPECS, (ROWS for _ in read))
    assert len(batches) == MAX_ROWS
    assert next(read) == -(-MAX_ROWS // 5)


def test_data_without_rows_ends():
    empty = {"ids": IDS[:0], "scale": SCALE[:0]}
    with pytest.raises(ValueError, match=r"calibration has 0 rows"):
        calibration_batches(SPECS, itertools.repeat(empty))


def test_a_batch_of_more_rows_is_filled():
    specs = [tf.TensorSpec([MAX_ROWS + 7, *s.shape[1:]], s.dtype, s.name) for s in SPECS]
    (batch,) = calibration_batches(specs, (ROWS for _ in itertools.count()))
    assert batch["ids"].shape == (MAX_ROWS + 7, 3)


def test_rows_of_different_lengths():
    specs = [tf.TensorSpec([1, None], tf.int32, "ids")]
    data = [{"ids": IDS[:, :2]}, {"ids": IDS}]
    assert [b["ids"].shape[1] for b in calibration_batches(specs, data)] == [2] * 5 + [3] * 5
    specs = [tf.TensorSpec([4, None], tf.int32, "ids")]
    with pytest.raises(ValueError, match=r"different shapes, .* batches of 4: .* batch_size=1"):
        calibration_batches(specs, data)


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        ({"ids": IDS}, ValueError, r"^calibration lacks 'scale': it has \['ids'\], and"),
        ({**ROWS, "y": SCALE}, ValueError, r"^calibration has 'y', but the file takes \['ids'"),
        ({**ROWS, "ids": IDS + 0.5}, ValueError, r"'ids' that is no array of int32: .* whole"),
        ({**ROWS, "ids": IDS + 2**40}, ValueError, r"'ids' that is no array of int32"),
        ({**ROWS, "scale": ["a"] * 5}, ValueError, r"'scale' that is no array of float32"),
        ({**ROWS, "ids": IDS[:, :2]}, ValueError, r"'ids' of shape \(5, 2\), but .*\(None, 3\)"),
        (
            {**ROWS, "ids": IDS[:4]},
            ValueError,
            r"different numbers of rows: {'ids': 4, 'scale': 5}",
        ),
        ({**ROWS, "scale": SCALE + np.nan}, ValueError, r"'scale' with values that are not finite"),
        ({**ROWS, "ids": IDS[0]}, ValueError, r"of shape \(3,\), one row, .* \(None, 3\)\. Batch"),
        (
            tf.data.Dataset.from_tensor_slices(ROWS),
            ValueError,
            r"one row, and must have batches of them, .* by batch\(32\), or pass all rows",
        ),
        ({name: rows[:0] for name, rows in ROWS.items()}, ValueError, "0 rows, and the file takes"),
        ([], ValueError, r"calibration has 0 rows, and .* batches of 1\. Pass more"),
        ([IDS], TypeError, r"mappings with the keys \['ids', 'scale'\], got ndarray"),
        (IDS, TypeError, r"mappings with the keys \['ids', 'scale'\], got ndarray"),
        ("data", TypeError, r"calibration must be a mapping .* got 'data'"),
        (3, TypeError, r"calibration must be a mapping .* got 3"),
    ],
)
def test_data_that_does_not_fit(calibration, error, message):
    with pytest.raises(error, match=message):
        calibration_batches(SPECS, calibration)


def test_inputs_without_rows():
    specs = [tf.TensorSpec([1, 3], tf.float32, "x"), tf.TensorSpec([], tf.float32, "scale")]
    with pytest.raises(ValueError, match=r"a row for each example, .* scale \(\)\. Leave"):
        calibration_batches(specs, {"x": IDS, "scale": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": None}, "for activations of int8, and quantization is None. Pass"),
        ({"quantization": "float16"}, "and quantization is 'float16'"),
        ({"sparse_storage": "blocks"}, "'blocks' does not go with calibration: LiteRT"),
        ({"sparse_storage": "csr"}, "'csr' does not go with calibration: LiteRT"),
        ({"batch_size": 4}, "calibration has 2 rows, and the file takes batches of 4"),
    ],
)
def test_nothing_is_written_if_it_does_not_go_together(options, message, tmp_path):
    calibration = {"x": np.zeros([2, 8, 64])}
    with pytest.raises(ValueError, match=message):
        tf_movprune.export_tflite(
            dense_model(4), tmp_path / "x", calibration=calibration, **options
        )
    assert not list(tmp_path.iterdir())
