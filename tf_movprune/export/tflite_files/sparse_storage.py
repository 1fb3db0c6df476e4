"""Sparse storage of the matrices in a TFLite file, in the forms that LiteRT reads.

The converter's own sparsity flag is not used: in TensorFlow 2.21 several of its combinations with
quantization give wrong outputs, or files that do not load.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.stored_matrix import StoredMatrix
from tf_movprune.export.tflite_files.flatbuffer import main_graph, operator_code, readers_of, text
from tf_movprune.export.tflite_files.matrices import matrices_of, values_of
from tf_movprune.export.tflite_files.runtime_version import require_runtime

SPARSE_STORAGES = (None, "auto", "blocks", "csr")

_SPARSE_FULLY_CONNECTED = 8  # version of the operator that LiteRT hands to its sparse kernels
_CODES = schema.BuiltinOperator
# The first releases of TensorFlow Lite known to read them. Rows of float16 may be older.
_MIN_RUNTIMES = {
    ("csr", "float32"): "2.2.0",
    ("csr", "float16"): "2.12.0",
    ("blocks", "float32"): "2.3.0",
    ("blocks", "int8"): "2.3.0",
}


class Blocks(NamedTuple):
    """Blocks that LiteRT's native kernel for a type of weights reads."""

    width: int
    min_sparsity: float
    """Fraction of zero blocks. In float32 the kernel beats the dense one from there on."""
    max_inputs: int | None = None


NATIVE_BLOCKS = {
    np.dtype("float32"): Blocks(4, 0.90),
    # The int8 kernel counts the blocks of a row in one byte.
    np.dtype("int8"): Blocks(16, 0.95, max_inputs=255 * 16),
}


def store_sparsely(model: Any, storage: str | None) -> list[StoredMatrix]:
    """Stores the matrices of fully connected layers sparsely if that pays, in place.

    - `"blocks"`: blocks of 4 inputs in float32, of 16 in int8, which LiteRT multiplies as they
      are; if at least 90 % of the blocks are zero (int8: 95 %), and they divide the inputs.
    - `"csr"`: rows of non-zeros, if they are smaller. LiteRT unpacks them when it loads the file,
      which is smaller, as fast, and takes more memory. It refuses rows of int8, which stays dense.
    - `"auto"`: blocks in float32 under the same conditions; otherwise rows if they halve the
      matrix, in float16 too. int8 stays dense.

    Args:
      model: a TFLite file, from `flatbuffer.read`, that was converted without the sparsity flag.
      storage: one of `SPARSE_STORAGES`.

    Returns:
      A `StoredMatrix` for each of its matrices.
    """
    graph = main_graph(model)
    found = [_stored(model, graph, i, storage) for i in matrices_of(model, graph)]
    for matrix, index in found:
        if matrix.storage != "dense":
            require_runtime(model, _MIN_RUNTIMES[matrix.storage, matrix.dtype])
        if matrix.storage == "blocks":
            _make_native(model, graph, index)
        elif matrix.storage == "csr":
            _unpack_first(model, graph, index)
    return [matrix for matrix, _ in found]


# ---- how they are stored


def _stored(model: Any, graph: Any, index: int, storage: str | None) -> tuple[StoredMatrix, int]:
    """Encodes a tensor in place, if `storage` allows it and it pays."""
    tensor = graph.tensors[index]
    buffer = model.buffers[tensor.buffer]
    matrix = values_of(model, tensor)
    dtype = matrix.dtype
    blocks = _blocks(matrix)
    dense, encoded, kind = len(buffer.data), None, "dense"
    # CPUs with instructions for int8 multiply it faster when it is dense; see docs/export.md.
    if storage == "blocks" or (storage == "auto" and dtype == np.float32):
        encoded, kind = _as_blocks(blocks), "blocks"
    if encoded is None and storage in ("auto", "csr") and dtype in (np.float32, np.float16):
        encoded, kind = _as_rows(matrix), "csr"
        if encoded.bytes > (dense // 2 if storage == "auto" else dense - 1):
            encoded = None
    if encoded is None:
        kind, size = "dense", dense
    else:
        size = encoded.bytes
        buffer.data = np.frombuffer(encoded.values.tobytes(), np.uint8)
        tensor.sparsity = encoded.parameters
    stored = StoredMatrix(
        name=text(tensor.name),
        shape=matrix.shape,
        dtype=dtype.name,
        storage=kind,
        remaining=int(np.count_nonzero(matrix)),
        bytes=size,
        block_sparsity=None if blocks is None else 1 - float(np.any(blocks, axis=2).mean()),
    )
    return stored, index


class _Encoded(NamedTuple):
    values: np.ndarray
    parameters: Any
    bytes: int


def _blocks(matrix: np.ndarray) -> np.ndarray | None:
    """The blocks of each row, if there is a native kernel for the matrix."""
    native = NATIVE_BLOCKS.get(matrix.dtype)
    if native is None or matrix.shape[1] % native.width:
        return None
    if native.max_inputs is not None and matrix.shape[1] > native.max_inputs:
        return None
    return matrix.reshape(matrix.shape[0], -1, native.width)


def _as_blocks(blocks: np.ndarray | None) -> _Encoded | None:
    if blocks is None:
        return None
    native, is_kept = NATIVE_BLOCKS[blocks.dtype], np.any(blocks, axis=2)
    if 1 - is_kept.mean() < native.min_sparsity:
        return None
    return _encoded(blocks[is_kept], is_kept, native.width)


def _as_rows(matrix: np.ndarray) -> _Encoded:
    is_kept = matrix != 0
    return _encoded(matrix[is_kept], is_kept)


def _encoded(values: np.ndarray, is_kept: np.ndarray, width: int | None = None) -> _Encoded:
    """Encodes rows as dense, columns as compressed, and a block, if any, as dense again."""
    segments = np.concatenate([[0], np.cumsum(is_kept.sum(axis=1))])
    indices = np.nonzero(is_kept)[1]
    columns = schema.DimensionMetadataT()
    columns.format = schema.DimensionType.SPARSE_CSR
    columns.arraySegmentsType, columns.arraySegments, a = _vector(segments)
    columns.arrayIndicesType, columns.arrayIndices, b = _vector(indices)
    parameters = schema.SparsityParametersT()
    parameters.traversalOrder, parameters.blockMap = [0, 1], []
    parameters.dimMetadata = [_dense_dimension(len(is_kept)), columns]
    if width is not None:
        parameters.traversalOrder, parameters.blockMap = [0, 1, 2], [1]
        parameters.dimMetadata.append(_dense_dimension(width))
    return _Encoded(values, parameters, values.nbytes + a + b)


def _dense_dimension(size: int) -> Any:
    dimension = schema.DimensionMetadataT()
    dimension.format, dimension.denseSize = schema.DimensionType.DENSE, size
    return dimension


def _vector(values: np.ndarray) -> tuple[int, Any, int]:
    """The narrowest vector that holds some indices: its type, itself, and its bytes."""
    kinds = schema.SparseIndexVector
    types: dict[Any, tuple[int, Any]] = {
        np.uint8: (kinds.Uint8Vector, schema.Uint8VectorT),
        np.uint16: (kinds.Uint16Vector, schema.Uint16VectorT),
        np.int32: (kinds.Int32Vector, schema.Int32VectorT),
    }
    dtype = next(t for t in types if values.max(initial=0) <= np.iinfo(t).max)
    kind, cls = types[dtype]
    vector = cls()
    vector.values = values.astype(dtype)
    return kind, vector, vector.values.nbytes


# ---- what reads them


def _make_native(model: Any, graph: Any, tensor: int) -> None:
    """Gives the readers an operator code of their own.

    LiteRT's delegate leaves an operator of this version alone. If other layers had the same code,
    either they would be left alone too, or the sparse values would be read as dense ones. Theirs
    stays in the file even if no layer has it any more: a release that does not know it would take
    the scales of all outputs for one, and so refuses the file.
    """
    code = operator_code(model, _CODES.FULLY_CONNECTED, _SPARSE_FULLY_CONNECTED)
    for operator in readers_of(graph, tensor):
        operator.opcodeIndex = code


def _unpack_first(model: Any, graph: Any, tensor: int) -> None:
    """Puts an operator before the readers that makes the matrix dense when the file is loaded."""
    readers = readers_of(graph, tensor)
    source = graph.tensors[tensor]
    dense = schema.TensorT()
    for name in ("shape", "type", "quantization", "hasRank"):
        setattr(dense, name, getattr(source, name))
    dense.buffer = 0  # the empty one, by convention
    dense.name = text(source.name) + "_dense"
    graph.tensors.append(dense)
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, _CODES.DENSIFY, 1)
    operator.inputs, operator.outputs = [tensor], [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
    operator.builtinOptions = schema.DensifyOptionsT()
    first = min(i for i, other in enumerate(graph.operators) if any(other is r for r in readers))
    for reader in readers:
        reader.inputs = [len(graph.tensors) - 1 if i == tensor else i for i in reader.inputs]
    graph.operators.insert(first, operator)
