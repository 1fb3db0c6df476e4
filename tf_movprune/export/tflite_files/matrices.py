"""Constant matrices of fully connected layers in TFLite files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.tflite_files.flatbuffer import builtin_of, readers_of

_CODES = schema.BuiltinOperator
_DTYPES: dict[int, Any] = {
    schema.TensorType.FLOAT32: np.dtype("float32"),
    schema.TensorType.FLOAT16: np.dtype("float16"),
    schema.TensorType.INT8: np.dtype("int8"),
    schema.TensorType.INT4: np.dtype(ml_dtypes.int4),
}


def matrices_of(model: Any, graph: Any) -> Iterator[int]:
    """Constants that are nothing but the weights of fully connected layers, in their order."""
    unpacked = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if builtin_of(model, operator) == _CODES.DEQUANTIZE
    }
    weights = [
        o.inputs[1] for o in graph.operators if builtin_of(model, o) == _CODES.FULLY_CONNECTED
    ]
    of_buffers = Counter(tensor.buffer for g in model.subgraphs for tensor in g.tensors)
    for used in dict.fromkeys(weights):
        index = unpacked.get(used, used)
        tensor = graph.tensors[index]
        is_alone = index == used or len(readers_of(graph, index)) == 1
        has_data = model.buffers[tensor.buffer].data is not None
        if (
            (is_alone and has_data and of_buffers[tensor.buffer] == 1)
            and tensor.type in _DTYPES
            and _are_weights(model, readers_of(graph, used), used)
        ):
            yield index


def _are_weights(model: Any, readers: list[Any], tensor: int) -> bool:
    return bool(readers) and all(
        builtin_of(model, reader) == _CODES.FULLY_CONNECTED
        and reader.inputs[1] == tensor
        and list(reader.inputs).count(tensor) == 1
        for reader in readers
    )


def values_of(model: Any, tensor: Any) -> np.ndarray:
    """The values of a matrix, in its shape and type."""
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if tensor.type == schema.TensorType.INT4:
        return unpacked(data, tensor.shape).astype(_DTYPES[tensor.type])
    return np.frombuffer(data.tobytes(), _DTYPES[tensor.type]).reshape(tensor.shape)


def unpacked(data: np.ndarray, shape: Any) -> np.ndarray:
    """int8 values of bytes that hold two of 4 bits each, the first in the lower half."""
    nibbles = np.stack([data << 4, data], axis=1).view(np.int8) >> 4
    return nibbles.ravel()[: np.prod(shape)].reshape(shape)


def packed(values: np.ndarray) -> np.ndarray:
    """The bytes of int8 values of 4 bits, as `unpacked` takes them."""
    flat = values.ravel().view(np.uint8) & 15
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return flat[::2] | flat[1::2] << 4
