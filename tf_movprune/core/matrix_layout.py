"""The matrix that a kernel of any number of axes multiplies by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class MatrixLayout(NamedTuple):
    """The axes of a kernel that make the rows of its matrix, and those that make its columns.

    The last axis of each varies fastest.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """All axes, in the order in which the matrix has them."""
        return self.rows + self.columns

    def shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """The shape of the matrix of a kernel of some shape."""
        rows, columns = (math.prod(shape[axis] for axis in part) for part in self)
        return rows, columns

    def to_matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        """The matrix of a kernel."""
        return tf.reshape(tf.transpose(kernel, self.axes), self.shape(kernel.shape))

    def to_kernel(self, matrix: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
        """The kernel of some shape that has a matrix."""
        in_order = tf.reshape(matrix, [shape[axis] for axis in self.axes])
        return tf.transpose(in_order, np.argsort(self.axes))

    def matrix_of(self, kernel: np.ndarray) -> np.ndarray:
        """Does `to_matrix` of an array."""
        return kernel.transpose(self.axes).reshape(self.shape(kernel.shape))

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Does `to_kernel` of an array."""
        in_order = matrix.reshape([shape[axis] for axis in self.axes])
        return in_order.transpose(np.argsort(self.axes))


PLAIN = MatrixLayout((0,), (1,))
"""The layout of the kernels [in, out] of dense layers."""


def matrix_shape(shape: Sequence[int], layout: MatrixLayout | None) -> tuple[int, ...]:
    """The shape of the matrix of a kernel; that of the kernel if it has no layout."""
    return tuple(shape) if layout is None else layout.shape(shape)


def layout_of(layer: Any) -> MatrixLayout:
    """The layout of the kernel of a dense layer, of an `EinsumDense` one by its equation.

    Raises:
      ValueError: the kernel is several matrices.
    """
    equation = getattr(layer, "equation", None)
    layout = PLAIN if equation is None else einsum_layout(equation)
    if layout is None:
        raise ValueError(f"The kernel of {layer.name!r} ({equation}) is several matrices.")
    return layout


def einsum_layout(equation: str) -> MatrixLayout | None:
    """The layout of the kernel in the equation of an `EinsumDense` layer.

    Rows are the axes that are summed over, in the order of the input, and columns the others, in
    the order of the output. None if the kernel is several matrices, as one for each head is.
    """
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    rows = [label for label in inputs if label in kernel and label not in output]
    columns = [label for label in output if label in kernel and label not in inputs]
    if sorted(rows + columns) != sorted(kernel):
        return None
    return MatrixLayout(tuple(map(kernel.index, rows)), tuple(map(kernel.index, columns)))
