"""Sparse storage in TFLite files, and the combinations that TensorFlow's flag breaks."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from exporting import (
    dense_model,
    export,
    operators,
    outputs_of,
    prune,
    random_input,
)
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.sparse_storage import store_sparsely

FULLY_CONNECTED = schema.BuiltinOperator.FULLY_CONNECTED


DENSIFY = schema.BuiltinOperator.DENSIFY


@pytest.mark.parametrize(
    ("quantization", "block", "sparsity", "storage", "stored", "atol"),
    [
        (None, (1, 1), 0.9, "csr", "csr", 1e-5),
        (None, (1, 1), 0.9, "auto", "csr", 1e-5),
        (None, (4, 1), 0.95, "blocks", "blocks", 1e-5),
        (None, (4, 1), 0.95, "auto", "blocks", 1e-5),
        (None, (4, 1), 0.85, "auto", "csr", 1e-5),
        (None, (16, 1), 0.95, "blocks", "blocks", 1e-5),
        (None, (1, 1), 0.97, "auto", "csr", 1e-5),  # the flag takes these for blocks
        ("float16", (1, 1), 0.9, "csr", "csr", 2e-3),
        ("float16", (4, 1), 0.97, "auto", "csr", 2e-3),  # NaN with the flag
        ("int8", (16, 1), 0.97, "blocks", "blocks", 0.1),  # wrong with the flag
        ("int8", (16, 1), 0.97, "auto", "dense", 0.1),  # which is faster
        ("int8", (1, 1), 0.97, "auto", "dense", 0.1),  # does not load with the flag
        ("int8", (4, 1), 0.97, "auto", "dense", 0.1),
    ],
)
@pytest.mark.filterwarnings("ignore:sparse_storage")
def test_sparse_storage(quantization, block, sparsity, storage, stored, atol, tmp_path):
    model = dense_model(64, 48)
    for i, layer in enumerate(model.layers[1:]):
        prune(layer, sparsity, block, seed=i)
    expected = model(random_input(model)).numpy()
    options = {"quantization": quantization, "shrink": False}
    dense = export(model, tmp_path / "dense.tflite", **options)
    report = export(model, tmp_path / "x.tflite", sparse_storage=storage, **options)
    assert report.storages == {stored: 2} and dense.storages == {"dense": 2}
    kernels = [layer.kernel.numpy() for layer in model.layers[1:]]
    for matrix, kernel in zip(report.matrices, kernels):
        assert matrix.shape == kernel.T.shape
        assert matrix.remaining <= np.count_nonzero(kernel)
        assert matrix.remaining >= 0.98 * np.count_nonzero(kernel)  # int8 rounds some to zero
    for result in outputs_of(tmp_path / "x.tflite", random_input(model)):
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol)
    reference = list(outputs_of(tmp_path / "dense.tflite", random_input(model)))
    for result in outputs_of(tmp_path / "x.tflite", random_input(model)):
        # Both lose the same by int8, apart from how activations are quantized.
        np.testing.assert_allclose(
            result, reference[1], rtol=0, atol=1e-5 if quantization != "int8" else 0.02
        )
    if stored != "dense":
        saved = sum(m.bytes for m in dense.matrices) - sum(m.bytes for m in report.matrices)
        # A file has some hundreds of bytes more for what describes the storage.
        assert abs(dense.bytes - report.bytes - saved) < 1500
        assert saved > 0.5 * sum(m.bytes for m in dense.matrices)
        assert f"matrices stored: 2 {stored}" in str(report)


def test_bytes_of_each_storage(tmp_path):
    def sizes(quantization, block, storage, inputs=64):
        model = dense_model(32, inputs=inputs)
        prune(model.layers[1], 0.96875, block)
        report = export(
            model, tmp_path / "x", quantization=quantization, sparse_storage=storage, shrink=False
        )
        return report.matrices[0].bytes - 33  # row ends, a byte each here

    assert sizes(None, (1, 1), "csr") == 64 * (4 + 1)
    assert sizes("float16", (1, 1), "csr") == 64 * (2 + 1)
    assert sizes(None, (4, 1), "blocks") == 16 * (4 * 4 + 1)
    assert sizes("int8", (16, 1), "blocks") == 4 * (16 + 1)
    wide = 512 * 32 // 32
    assert sizes(None, (1, 1), "csr", 512) + 33 == wide * (4 + 2) + 33 * 2


def test_quantization_keeps_every_zero(tmp_path):
    model = dense_model(64, 48)
    for layer, block in zip(model.layers[1:], [(1, 1), (16, 1)]):
        prune(layer, 0.97, block)
    for name, storage in (("dense", None), ("blocks", "blocks")):
        export(model, tmp_path / name, sparse_storage=storage, shrink=False)
        interpreter = Interpreter(model_path=str(tmp_path / name))
        found = {}
        for detail in interpreter.get_tensor_details():
            is_matrix = detail["dtype"] == np.int8 and len(detail["shape"]) == 2
            if is_matrix and not detail["sparsity_parameters"]:
                found[tuple(detail["shape"])] = interpreter.get_tensor(detail["index"])
        assert len(found) == (2 if name == "dense" else 1)
        for layer in model.layers[1:]:
            kernel = layer.kernel.numpy().T
            if kernel.shape in found:
                assert not found[kernel.shape][kernel == 0].any()
                assert found[kernel.shape].any()


def test_a_very_sparse_layer_leaves_the_operators_of_the_others_alone(tmp_path):
    model = dense_model(64, 64, 48)
    prune(model.layers[2], 0.97, (4, 1))
    export(model, tmp_path / "dense", quantization=None, shrink=False)
    report = export(model, tmp_path / "x", quantization=None, sparse_storage="auto", shrink=False)
    assert [matrix.storage for matrix in report.matrices].count("blocks") == 1
    (version,) = {v for code, v in operators(tmp_path / "dense") if code == FULLY_CONNECTED}
    versions = [v for code, v in operators(tmp_path / "x") if code == FULLY_CONNECTED]
    assert versions == [version, 8, version] and version != 8


def test_inputs_that_blocks_do_not_divide(tmp_path):
    model = dense_model(32, inputs=66)
    prune(model.layers[1], 0.97)
    report = export(model, tmp_path / "x", quantization=None, sparse_storage="auto", shrink=False)
    assert report.storages == {"csr": 1} and report.max_abs_diff < 1e-5
    with pytest.warns(UserWarning, match=r"sparse_storage='blocks' found no matrix .* BLOCKS"):
        export(model, tmp_path / "x", quantization=None, sparse_storage="blocks", shrink=False)


@pytest.mark.parametrize(("inputs", "stored"), [(4080, "blocks"), (4096, "dense")])
@pytest.mark.filterwarnings("ignore:sparse_storage")
def test_rows_with_more_blocks_than_a_byte_counts(inputs, stored, tmp_path):
    model = dense_model(16, inputs=inputs)
    prune(model.layers[1], 0.96, (16, 1))
    model.layers[1].kernel.assign(0.2 * model.layers[1].kernel)
    report = export(model, tmp_path / "x", sparse_storage="blocks", shrink=False)
    assert report.storages == {stored: 1}
    for result in outputs_of(tmp_path / "x", random_input(model)):
        np.testing.assert_allclose(result, model(random_input(model)), rtol=0, atol=0.02)


def test_what_is_not_a_constant_matrix_is_left_alone(tmp_path):
    inputs = keras.Input([8, 64], name="x")
    shared = keras.layers.Dense(64, use_bias=False)
    x = shared(keras.layers.Activation("relu")(shared(inputs)))
    x = keras.layers.Conv1D(8, 3)(x)
    model = keras.Model(inputs, tf.matmul(x, x, transpose_b=True))
    prune(shared, 0.95)
    report = export(model, tmp_path / "x", quantization=None, sparse_storage="csr")
    assert report.storages["csr"] == 1
    codes = [code for code, _ in operators(tmp_path / "x")]
    assert codes.count(DENSIFY) == 1  # of the weights of two layers
    for result in outputs_of(tmp_path / "x", random_input(model)):
        np.testing.assert_allclose(result, model(random_input(model)), rtol=1e-4, atol=1e-4)


def test_buffers_begin_at_multiples_of_16(tmp_path):
    model = dense_model(64, 48)
    prune(model.layers[1], 0.9)
    export(model, tmp_path / "x", quantization=None, sparse_storage="csr")
    data = (tmp_path / "x").read_bytes()
    for layer in model.layers[1:]:
        values = layer.kernel.numpy().T
        place = data.index(values[values != 0][:4].tobytes())
        assert place % 16 == 0


def test_a_file_without_fully_connected_layers_stays_as_it_is():
    model = keras.Sequential([keras.Input([4]), keras.layers.Activation("relu")])
    data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    file = flatbuffer.read(data)
    assert store_sparsely(file, "auto") == []
    assert flatbuffer.written(file) == flatbuffer.written(flatbuffer.read(data))
