"""TensorFlow's operations that tf2onnx converts to what runtimes lack, or run slowly or wrongly."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np


def convert_erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """Converts the exact GELU to what runtimes know as such, where erfc(−c·x) = 1 + erf(c·x).

    Elsewhere the tails of 1 − erf would be wrong: there the operation stays, which ONNX lacks.
    """
    found = _within_gelu(context, node)
    if found is None:
        return
    x, factor = found
    dtype, shape = context.get_dtype(node.output[0]), context.get_shape(node.output[0])
    outputs = list(node.output)
    context.remove_node(name)

    def constant(value: float) -> str:
        import tf2onnx

        array = np.array(value, tf2onnx.utils.map_onnx_to_numpy_type(dtype))
        return context.make_const(tf2onnx.utils.make_name(name), array).output[0]

    scaled = context.make_node("Div", [x, constant(1 / factor)]).output[0]
    erf = context.make_node("Erf", [scaled]).output[0]
    context.make_node("Add", [erf, constant(1.0)], outputs=outputs, shapes=[shape], dtypes=[dtype])


def _within_gelu(context: Any, node: Any) -> tuple[str, float] | None:
    """The x and the c of an `Erfc` that is only a factor in (k·x)·erfc((−x)·c); None of others."""
    scaled = node.inputs[0]
    if scaled.type != "Mul" or scaled.inputs[0].type != "Neg" or not scaled.inputs[1].is_const():
        return None
    x, factor = scaled.inputs[0].input[0], scaled.inputs[1].get_tensor_value(as_list=False)
    products = context.find_output_consumers(node.output[0])
    is_in_gelu = bool(products) and all(
        product.type == "Mul" and any(i.type == "Mul" and x in i.input for i in product.inputs)
        for product in products
    )
    is_scale = np.size(factor) == 1 and bool(factor) and np.isfinite(1 / factor)
    if not (is_in_gelu and is_scale) or node.output[0] in context.outputs:
        return None
    return x, float(factor)


def convert_einsum(context: Any, node: Any, name: str, _: Any) -> None:
    """Converts the product with a constant kernel to one of matrices, which is quantized too."""
    from tf2onnx.onnx_opset.math import Einsum

    equation = node.get_attr_value("equation").decode()
    order = _as_matrix_product(equation)
    if order is None or not node.inputs[1].is_const():
        Einsum.version_12(context, node)
        return
    x_order, kernel_order, contracted, result_order = order
    kernel = node.inputs[1].get_tensor_value(as_list=False).transpose(kernel_order)
    free = kernel.shape[contracted:]
    matrix = kernel.reshape(math.prod(kernel.shape[:contracted]), math.prod(free))
    outputs = list(node.output)
    dtype, shape = context.get_dtype(outputs[0]), context.get_shape(outputs[0])
    [x, _kernel] = node.input
    leading = len(x_order) - contracted
    context.remove_node(name)

    def reshape(tensor: str, sizes: Sequence[int]) -> str:
        sizes = [*[0] * leading, *sizes]  # 0 keeps the size that an axis has
        target = context.make_const(f"{name}_{tensor}_sizes", np.array(sizes, np.int64))
        return context.make_node("Reshape", [tensor, target.output[0]]).output[0]

    if list(x_order) != sorted(x_order):
        x = context.make_node("Transpose", [x], attr={"perm": x_order}).output[0]
    if contracted > 1:
        x = reshape(x, [matrix.shape[0]])
    result = context.make_node(
        "MatMul", [x, context.make_const(f"{name}_kernel", matrix).output[0]]
    ).output[0]
    if len(free) != 1:
        result = reshape(result, free)
    options = {"outputs": outputs, "shapes": [shape], "dtypes": [dtype]}
    if list(result_order) != sorted(result_order):
        context.make_node("Transpose", [result], attr={"perm": result_order}, **options)
    else:
        context.make_node("Identity", [result], **options)


def _as_matrix_product(equation: str) -> tuple[list[int], list[int], int, list[int]] | None:
    """How an einsum of two operands is a product of matrices, if it is one.

    Returns:
      The axes of the first operand, in an order in which those that are contracted come last; the
      axes of the second in an order in which these come first; their number; and the axes of the
      product in the order of the result. None if operands share another axis, or one has an axis
      twice or of its own that the result lacks.
    """
    found = re.fullmatch(r"(\w+),(\w+)->(\w+)", equation.replace(" ", ""))
    if not found:
        return None
    x, kernel, result = found.groups()
    contracted = [axis for axis in x if axis in kernel]
    x_order = [axis for axis in x if axis not in kernel] + contracted
    kernel_order = contracted + [axis for axis in kernel if axis not in x]
    product = x_order[: len(x) - len(contracted)] + kernel_order[len(contracted) :]
    if not contracted or any(len(set(axes)) < len(axes) for axes in (x, kernel, result)):
        return None
    if sorted(product) != sorted(result):
        return None
    return (
        [x.index(axis) for axis in x_order],
        [kernel.index(axis) for axis in kernel_order],
        len(contracted),
        [product.index(axis) for axis in result],
    )


def convert_select(context: Any, node: Any, _name: str, _: Any) -> None:
    """Converts the choice between floats to `Where`.

    tf2onnx multiplies what is not chosen by 0 instead, which makes infinities and NaN there, such
    as those of a division by 0 that is guarded, NaN in the result.
    """
    from onnx import TensorProto
    from tf2onnx.onnx_opset.controlflow import Select

    if context.get_dtype(node.output[0]) in (TensorProto.FLOAT, TensorProto.DOUBLE):
        node.set_attr("handles_nan", 1)
    Select.version_9(context, node)


def convert_floor_mod(context: Any, node: Any, name: str, _: Any) -> None:
    """Converts the remainder of integers to one with the sign of the divisor, as TensorFlow's."""
    from tf2onnx.onnx_opset.math import FloorMod

    if not _is_of_integers(context, node):
        FloorMod.version_7(context, node)
        return
    inputs, options = list(node.input), _results_of(context, node)
    context.remove_node(name)
    context.make_node("Mod", inputs, **options)


def convert_floor_div(context: Any, node: Any, name: str, _: Any) -> None:
    """Converts the division of integers to one that rounds down; that of ONNX rounds towards 0."""
    from tf2onnx.onnx_opset.math import FloorDiv

    if not _is_of_integers(context, node):
        FloorDiv.version_6(context, node)
        return
    inputs, options = list(node.input), _results_of(context, node)
    context.remove_node(name)
    remainders = [
        context.make_node("Mod", inputs, attr={"fmod": fmod}).output[0] for fmod in (0, 1)
    ]
    is_same = context.make_node("Equal", remainders).output
    is_lower = context.make_node("Not", is_same).output
    [dtype] = options["dtypes"]
    one_lower = context.make_node("Cast", is_lower, attr={"to": dtype}).output[0]
    towards_0 = context.make_node("Div", inputs).output[0]
    context.make_node("Sub", [towards_0, one_lower], **options)


def convert_one_hot(context: Any, node: Any, name: str, _: Any) -> None:
    """Converts a one-hot encoding to one of which negative numbers have none, as TensorFlow's.

    In ONNX they count from the end. Numbers from the depth on have none in both.
    """
    from onnx import TensorProto
    from tf2onnx.onnx_opset.tensor import OneHot
    from tf2onnx.utils import make_name

    indices, depth = node.input[:2]
    dtype = context.get_dtype(indices)
    if dtype in (TensorProto.INT32, TensorProto.INT64):
        zero = np.array(0, np.int32 if dtype == TensorProto.INT32 else np.int64)
        none = context.make_node("Cast", [depth], attr={"to": dtype}).output[0]
        zeros = context.make_const(make_name(name), zero).output[0]
        is_negative = context.make_node("Less", [indices, zeros]).output[0]
        chosen = context.make_node(
            "Where",
            [is_negative, none, indices],
            shapes=[context.get_shape(indices)],
            dtypes=[dtype],
        )
        context.replace_input(node, indices, chosen.output[0], 0)
    OneHot.any_version_after9(17, context, node)


def _is_of_integers(context: Any, node: Any) -> bool:
    from tf2onnx.utils import map_onnx_to_numpy_type

    dtype = map_onnx_to_numpy_type(context.get_dtype(node.input[0]))
    return bool(np.issubdtype(dtype, np.integer))


def _results_of(context: Any, node: Any) -> dict[str, Any]:
    """The outputs of a node, for one that replaces it, with their shapes and types."""
    return {
        "outputs": list(node.output),
        "shapes": [context.get_shape(output) for output in node.output],
        "dtypes": [context.get_dtype(output) for output in node.output],
    }


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Einsum": (convert_einsum, []),
    "Erfc": (convert_erfc, []),
    "FloorDiv": (convert_floor_div, []),
    "FloorMod": (convert_floor_mod, []),
    "OneHot": (convert_one_hot, []),
    "Select": (convert_select, []),
    "SelectV2": (convert_select, []),
}
"""Handlers by the name of the operation that they convert, in the form that tf2onnx takes."""
