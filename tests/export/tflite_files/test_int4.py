"""Matrices of 4 bits in TFLite files."""

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from berts import bert
from exporting import dense_model, export, outputs_of, prune, random_input
from tensorflow.lite.python import schema_py_generated as schema

import tf_movprune
from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.matrices import matrices_of, packed, unpacked, values_of


def matrices_in(path):
    """The matrices in a file as floats, by shape, from the bytes and scales that it has."""
    model = flatbuffer.read(path.read_bytes())
    graph = flatbuffer.main_graph(model)
    found = {}
    for index in matrices_of(model, graph):
        tensor = graph.tensors[index]
        assert tensor.type == schema.TensorType.INT4
        scales = np.asarray(tensor.quantization.scale)[:, None]
        found[tuple(tensor.shape)] = values_of(model, tensor).astype(np.float32) * scales
    return found


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 5), (4, 8)])
def test_packing(shape):
    values = (np.arange(np.prod(shape)) % 16 - 8).astype(np.int8).reshape(shape)
    data = packed(values)
    assert data.dtype == np.uint8 and len(data) == -(-values.size // 2)
    np.testing.assert_array_equal(unpacked(data, shape), values)


def test_the_first_value_is_in_the_lower_half():
    np.testing.assert_array_equal(packed(np.array([1, -2, 7], np.int8)), [0xE1, 0x07])


@pytest.mark.parametrize(
    ("inputs", "sizes", "bias"),
    [(64, (48, 40), True), (65, (47, 33), True), (33, (63,), False), (127, (9,), True)],
)
def test_both_of_litert_s_kernels_multiply_with_them(inputs, sizes, bias, tmp_path):
    keras.utils.set_random_seed(0)
    x = first = keras.Input([8, inputs], name="x")
    for size in sizes:
        x = keras.layers.Dense(size, use_bias=bias, bias_initializer="normal")(x)
    model = keras.Model(first, x)
    report = export(model, tmp_path / "x", quantization="int4", atol=0.5)
    assert [matrix.dtype for matrix in report.matrices] == ["int4"] * len(sizes)
    dequantized = matrices_in(tmp_path / "x")
    for layer in model.layers[1:]:
        kernel = layer.kernel.numpy().T
        stored = dequantized[kernel.shape]
        step = np.abs(kernel).max(axis=1, keepdims=True) / 7
        assert np.all(np.abs(stored - kernel) <= (0.5 + 1 / 36) * step + 1e-6)
        layer.kernel.assign(stored.T)
    # The model has the weights of the file now: what differs is how activations are quantized.
    for result in outputs_of(tmp_path / "x", random_input(model)):
        np.testing.assert_allclose(result, model(random_input(model)), rtol=0, atol=0.05)


def test_zeros_stay_and_are_counted(tmp_path):
    model = dense_model(64, 47)
    for seed, layer in enumerate(model.layers[1:]):
        prune(layer, 0.75, (1, 1), seed)
    int8, int4 = (export(model, tmp_path / q, quantization=q) for q in ("int8", "int4"))
    dequantized = matrices_in(tmp_path / "int4")
    for layer, matrix, wide in zip(model.layers[1:], int4.matrices, int8.matrices):
        kernel = layer.kernel.numpy().T
        stored = dequantized[kernel.shape]
        assert not stored[kernel == 0].any()
        assert matrix.remaining == np.count_nonzero(stored)
        # Weights below a fourteenth of the largest of their output become zeros too.
        assert 0.85 * np.count_nonzero(kernel) < matrix.remaining < np.count_nonzero(kernel)
        assert matrix.bytes == -(-kernel.size // 2) and wide.bytes == kernel.size
        assert matrix.shape == kernel.shape and matrix.storage == "dense"
    saved = sum(m.bytes for m in int8.matrices) - sum(m.bytes for m in int4.matrices)
    assert abs(int8.bytes - int4.bytes - saved) < 64
    assert str(int4).startswith(f"{tmp_path / 'int4'}: int4, ")
    assert int4.min_runtime == "2.17.0"


def test_what_is_not_fully_connected_stays_int8(tmp_path):
    """Embeddings and convolutions; layers that are too small stay float32."""
    ids = keras.Input([16], name="ids", dtype="int32")
    hidden = keras.layers.Embedding(50, 32)(ids)
    hidden = keras.layers.Conv1D(32, 3, activation="relu")(hidden)
    hidden = keras.layers.Dense(64, "relu")(hidden)
    model = keras.Model(ids, keras.layers.Dense(3)(hidden))
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization="int4")
    assert [(m.shape, m.dtype) for m in report.matrices] == [
        ((64, 32), "int4"),
        ((3, 64), "float32"),
    ]
    file = flatbuffer.read((tmp_path / "x").read_bytes())
    types = [tensor.type for tensor in flatbuffer.main_graph(file).tensors]
    assert types.count(schema.TensorType.INT4) == 1
    assert types.count(schema.TensorType.INT8) >= 2
    assert report.max_abs_diff < 0.1


def test_a_model_without_matrices_says_so(tmp_path):
    images = keras.Input([8, 8, 4], name="x")
    model = keras.Model(images, keras.layers.Conv2D(32, 3)(images))
    with pytest.warns(UserWarning, match=r"int4' found no matrix .* stored as in int8"):
        report = tf_movprune.export_tflite(model, tmp_path / "x", quantization="int4")
    assert report.bytes == tf_movprune.export_tflite(model, tmp_path / "y").bytes


def test_empty_neurons_are_left_out(tmp_path):
    model = dense_model(64, 48)
    kernel = model.layers[2].kernel
    kernel.assign(kernel.numpy() * (np.arange(64) % 4 > 0)[:, None])
    report = export(model, tmp_path / "x", quantization="int4", sparse_storage="auto")
    assert report.removed["neurons"] == (16, 64)
    assert [matrix.shape for matrix in report.matrices] == [(48, 64), (48, 48)]
    assert report.storages == {"dense": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sparse_storage": "csr"},
            "'csr' does not go with quantization 'int4': LiteRT cannot load",
        ),
        ({"sparse_storage": "blocks"}, "'blocks' does not go .* no kernel for blocks of int4"),
        (
            {"runtime": "2.14"},
            r"runtime is '2\.14', but int4 needs TensorFlow Lite 2\.17\.0 or later",
        ),
        (
            {"calibration": {"x": np.zeros([1, 8, 64])}},
            "calibration is for activations of int8, and",
        ),
    ],
)
def test_what_int4_does_not_go_with(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(dense_model(4), tmp_path / "x", quantization="int4", **options)
    assert not list(tmp_path.iterdir())


def test_gross_errors_are_found(tmp_path):
    with pytest.raises(RuntimeError, match=r"would differ .* at most 1e-05 was expected"):
        export(dense_model(64), tmp_path / "x", quantization="int4", atol=1e-5)
    report = export(dense_model(64), tmp_path / "x", quantization="int4", verify=False)
    assert report.max_abs_diff is None
    assert Interpreter(model_path=str(tmp_path / "x")).get_signature_list()


@pytest.mark.slow
def test_an_encoder_of_hugging_face(tmp_path):
    pytest.importorskip("transformers")
    sizes = {"num_attention_heads": 4, "max_position_embeddings": 20}
    model = bert(vocab_size=90, initializer_range=0.02, **sizes)
    random = np.random.RandomState(0)
    mask = (np.arange(12) < random.randint(4, 13, [30, 1])).astype(np.int32)
    tokens = {
        "input_ids": random.randint(1, 90, [30, 12]) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros([30, 12], np.int32),
    }
    options = {"sequence_length": 12, "inputs": {k: v[:1] for k, v in tokens.items()}}
    int8, int4, calibrated = (
        tf_movprune.export_tflite(model, tmp_path / "x", **options, **more)
        for more in ({}, {"quantization": "int4"}, {"calibration": tokens})
    )
    encoder = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert 0.45 * encoder < int8.bytes - int4.bytes < 0.6 * encoder
    assert int8.max_abs_diff < 0.02 and int4.max_abs_diff < 0.1 and calibrated.max_abs_diff < 0.1
    assert (int8.min_runtime, int4.min_runtime) == ("2.17.0", "2.17.0")
    assert calibrated.min_runtime == "2.12.0" and calibrated.calibration_rows == 30
