"""Exports in several threads at once."""

import inspect
import logging
import threading

import numpy as np
import pytest

import tf_movprune

EXPORTS = {
    "x.onnx": (tf_movprune.export_onnx, {"quantization": "int8"}),
    "x.tflite": (tf_movprune.export_tflite, {}),
    "x": (tf_movprune.export_saved_model, {}),
    "x.movprune": (tf_movprune.export_compressed, {"quantization": None}),
}


def mixed_model(keras):
    """A model in mixed precision, with 30 empty neurons."""
    first = keras.Input([32], name="x")
    hidden = keras.layers.Dense(64, "relu", dtype="mixed_float16")
    model = keras.Model(first, keras.layers.Dense(40, dtype="mixed_float16")(hidden(first)))
    kernel, bias, after, last = model.get_weights()
    kernel[:, :30] = bias[:30] = after[:30] = 0
    model.set_weights([kernel, bias, after, last])
    return model


def test_the_model_and_logging_stay_what_they_are(keras, tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("zstandard")
    model, level, failures = mixed_model(keras), logging.getLogger().level, []
    before = model.get_weights()

    def export(name):
        try:
            function, options = EXPORTS[name]
            function(model, tmp_path / name, **options)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=export, args=[name]) for name in [*EXPORTS, *EXPORTS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and logging.getLogger().level == level
    assert [layer.compute_dtype for layer in model.layers[1:]] == ["float16"] * 2
    for found in (
        model.get_weights(),
        tf_movprune.load_compressed(tmp_path / "x.movprune").values(),
    ):
        for array, expected in zip(found, before, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_signatures_stay_what_they_are():
    for export, _ in EXPORTS.values():
        assert list(inspect.signature(export).parameters)[:2] == ["model", "path"]
        assert export.__doc__
