"""Models that TFLite's converter or LiteRT does not take, and the noise of those that they take."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune.export.tflite_files import conversion


class Applied(keras.layers.Layer):
    """A layer that Keras can name in a graph."""

    def __init__(self, function):
        super().__init__(name="applied")
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def model_of(*layers, shape=(6, 4), **options):
    x = outputs = keras.Input(shape, name="x", **options)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(x, outputs, name="net")


RECURRENT = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "simple": keras.layers.SimpleRNN,
    "both": lambda units, **options: keras.layers.Bidirectional(
        keras.layers.LSTM(units), **options
    ),
    "cells": lambda units, **options: keras.layers.RNN(keras.layers.GRUCell(units), **options),
}


@pytest.mark.parametrize(
    "kind",
    ["lstm", *(pytest.param(k, marks=pytest.mark.slow) for k in RECURRENT if k != "lstm")],
)
def test_recurrent_layers_need_a_fixed_batch(kind, tmp_path, capfd):
    model = model_of(RECURRENT[kind](5, name="memory"), keras.layers.Dense(2), shape=(None, 4))
    options = {"quantization": None, "sequence_length": 6}
    with pytest.raises(
        ValueError, match=r"TensorList\w+ \(net/.*memory.* pass batch_size=1"
    ) as info:
        tf_movprune.export_tflite(model, tmp_path / "x", batch_size=None, **options)
    printed = capfd.readouterr().err  # MLIR's lines are repeated in the cause
    assert "error: " not in printed and "loc(" not in printed
    assert "TensorListReserve" in str(info.value.__cause__)
    assert type(info.value.__cause__).__name__ == "ConverterError"
    assert "\n" not in str(info.value) and not list(tmp_path.iterdir())
    report = tf_movprune.export_tflite(model, tmp_path / "x", batch_size=1, **options)
    assert report.max_abs_diff < 1e-5


@pytest.mark.parametrize("raises", [True, False])
def test_only_the_lines_of_mlir_are_dropped_and_only_in_an_error(raises, capfd):
    os.write(2, b"before\n")
    with contextlib.suppress(RuntimeError), conversion._without_diagnostics():
        os.write(2, b"loc(callsite: error: 'tf.X' op\nmine\nerror: failed\n")
        os.write(2, b"also mine: error: 1\n")
        if raises:
            raise RuntimeError
    os.write(2, b"after\n")
    lines = capfd.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    mine = ["mine", "also mine: error: 1"]
    every = ["loc(callsite: error: 'tf.X' op", "mine", "error: failed", "also mine: error: 1"]
    assert lines[1:-1] == (mine if raises else every)


def test_contexts_in_threads_put_standard_error_back(capfd):
    def convert(number):
        with conversion._without_diagnostics():
            time.sleep(0.01)
            os.write(2, b"%d\n" % number)

    threads = [threading.Thread(target=convert, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    assert sorted(capfd.readouterr().err.split()) == ["0", "1", "2", "3", "4", "after"]


def table():
    keys = tf.constant([1, 2], tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([0.5, 1.5]))
    lookup = tf.lookup.StaticHashTable(initializer, 0.0)
    return lambda x: lookup.lookup(tf.cast(x, tf.int64))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: tf.linalg.svd(x, compute_uv=False), r"Svd \(net/applied/Svd\)\. LiteRT runs"),
        (lambda x: tf.linalg.det(x[:, :4]), r"MatrixDeterminant \(net/applied/.* export_saved_m"),
        (lambda x: tf.RaggedTensor.from_tensor(x).to_tensor(), r"RaggedTensorToTensor \(net/appl"),
        (lambda x: tf.cast(tf.cast(x, tf.float64) * 2, tf.float32), "Mul .* cast to float32"),
        (
            lambda x: tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32),
            r"AsString \(net/applied/AsString\), .* It works on strings .* export_saved_model",
        ),
        (
            lambda x: tf.ensure_shape(tf.py_function(lambda x: x, [x], tf.float32), [None, 6, 4]),
            r"EagerPyFunc \(net/applied/EagerPyFunc\)",
        ),
        (table(), "works on strings or looks up a table"),
    ],
)
def test_operations_that_tflite_lacks(function, message, tmp_path):
    (tmp_path / "x").write_text("before")
    with pytest.raises(ValueError, match=f"^'net' cannot be converted to TFLite: .*{message}") as e:
        tf_movprune.export_tflite(model_of(Applied(function)), tmp_path / "x", quantization=None)
    assert e.value.__cause__ is not None and "\n" not in str(e.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "before"


@pytest.mark.parametrize("error", [RuntimeError("boom"), TypeError("boom"), KeyError("boom")])
def test_other_errors_of_the_converter(error, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", fail)
    with pytest.raises(ValueError, match=r"'net' cannot be converted to TFLite: .*boom") as info:
        tf_movprune.export_tflite(model_of(keras.layers.Dense(2)), tmp_path / "x")
    assert info.value.__cause__ is error and not list(tmp_path.iterdir())


def with_metric():
    model = model_of(keras.layers.Dense(2))
    model.add_metric(tf.reduce_mean(model.output), name="mean")
    return model


def with_state():
    return model_of(keras.layers.LSTM(3, stateful=True, name="memory"), batch_size=1)


@pytest.mark.parametrize(("build", "name"), [(with_metric, "add_metric"), (with_state, "memory")])
def test_states_are_for_saved_models(build, name, tmp_path):
    model = build()
    with pytest.raises(ValueError, match=rf"changes variables .*{name}.* export_saved_model"):
        tf_movprune.export_tflite(model, tmp_path / "x")
    assert tf_movprune.export_saved_model(model, tmp_path / "x").max_abs_diff < 1e-6
    states = model.layers[1].states if name == "memory" else []
    assert all(not state.numpy().any() for state in states)


def test_files_that_litert_does_not_run(tmp_path):
    model = model_of(Applied(lambda x: x[:, :0]))
    with pytest.raises(RuntimeError, match=r"x was not written: LiteRT would not run it: .*verify"):
        tf_movprune.export_tflite(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    model = model_of(keras.layers.Dense(2))
    with pytest.warns(UserWarning, match=r"pip install ai-edge-litert") as warned:
        report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None)
    assert report.max_abs_diff < 1e-5 and len(warned) == 1  # not TensorFlow's as well
    monkeypatch.delattr(tf.lite, "Interpreter")
    with pytest.raises(ImportError, match=r"pip install ai-edge-litert.* verify=False"):
        tf_movprune.export_tflite(model, tmp_path / "x")
    assert tf_movprune.export_tflite(model, tmp_path / "x", verify=False).max_abs_diff is None


EXPORTS = """
import sys
import tf_keras as keras
import tf_movprune
model = keras.Sequential([keras.Input([8]), keras.layers.Dense(40, "relu"), keras.layers.Dense(3)])
print("start", file=sys.stderr)
tf_movprune.export_saved_model(model, sys.argv[1] + "/saved")
tf_movprune.export_tflite(model, sys.argv[1] + "/x.tflite")
"""


def test_exports_print_no_notices(tmp_path):
    """The lines of C++ are TensorFlow's own, and not for a library to switch off."""
    run = subprocess.run(
        [sys.executable, "-c", EXPORTS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout == ""
    lines = run.stderr.split("start\n")[1].lower().splitlines()
    assert not [line for line in lines if "warning" in line or "deprecat" in line]


def test_quantized_recurrent_layers(tmp_path):
    model = model_of(keras.layers.LSTM(24), keras.layers.Dense(2))
    for quantization in ("int8", "float16"):
        report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=quantization)
        assert report.max_abs_diff < 0.05
