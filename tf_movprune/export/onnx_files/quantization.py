"""Quantization of ONNX models to int8, and the matrices in them."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np

from tf_movprune.export.logs import without_lines
from tf_movprune.export.stored_matrix import StoredMatrix

_MATRIX_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")
_QUANTIZED = ["MatMul", "Gather", "LSTM"]  # convolutions would be several times slower


def quantize(model: Any) -> Any:
    """Quantizes matrices and tables of an ONNX model to int8, by ONNX Runtime's own quantizer.

    Activations are quantized while the model runs. Each column of a matrix has a scale, and 7 bits:
    with 8, sums overflow on x86 CPUs without VNNI, and outputs are silently wrong there. What the
    quantizer would make files of that do not run stays float32: stacks of matrices, tables that are
    multiplied with too, and LSTM layers that are called more than once. So do convolutions, which
    ONNX Runtime runs several times slower if their activations are quantized on the way.

    Raises:
      RuntimeError: a weight that was 0 would be so no longer.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, without_lines("root"):
        path = pathlib.Path(folder, "quantized.onnx")
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=_QUANTIZED,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=_unquantizable(model),
        )
        quantized = onnx.load(path)
    _check_zeros(model, quantized)
    return quantized


def _unquantizable(model: Any) -> list[str]:
    """Names of the nodes whose weights ONNX Runtime's quantizer cannot quantize."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)

    def is_unquantizable(node: Any) -> bool:
        if node.op_type == "MatMul":
            return ranks.get(node.input[1], 2) > 2
        if node.op_type == "Gather":
            return set(users[node.input[0]]) != {"Gather"}
        return node.op_type == "LSTM" and any(len(users[name]) > 1 for name in node.input[1:3])

    return [node.name for node in model.graph.node if is_unquantizable(node)]


def _check_zeros(model: Any, quantized: Any) -> None:
    from onnx.numpy_helper import to_array

    before = {tensor.name: tensor for tensor in model.graph.initializer}
    after = {tensor.name: tensor for tensor in quantized.graph.initializer}
    nodes = quantized.graph.node
    of_lstm = {n for node in nodes if node.op_type == "DynamicQuantizeLSTM" for n in node.input}
    for name, tensor in after.items():
        original = before.get(name.removesuffix("_quantized"))
        if original is None or not name.endswith("_quantized"):
            continue
        zero_points = to_array(after[name.removesuffix("_quantized") + "_zero_point"])
        was_zero = to_array(original) == 0
        if name in of_lstm:  # [direction, out, in] became [direction, in, out]
            was_zero, zero_points = was_zero.swapaxes(1, 2), zero_points[:, None]
        is_zero = to_array(tensor) == zero_points  # one number, or one for each column
        if not is_zero[was_zero].all():
            raise RuntimeError(
                f"Quantization would make zeros of {original.name!r} other numbers. Nothing was "
                "written; quantization=None keeps them."
            )


def stored_matrices(model: Any) -> list[StoredMatrix]:
    """The constant matrices that an ONNX model multiplies with."""
    from onnx.numpy_helper import to_array

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    used = [node.input[1] for node in model.graph.node if node.op_type in _MATRIX_PRODUCTS]
    found = []
    for name in dict.fromkeys(used):
        if name not in constants or len(constants[name].dims) != 2:
            continue
        array = to_array(constants[name])
        found.append(
            StoredMatrix(
                name=name.removesuffix("_quantized"),
                shape=array.shape,
                dtype=array.dtype.name,
                storage="dense",
                remaining=int(np.count_nonzero(array)),
                bytes=array.nbytes,
            )
        )
    return found
