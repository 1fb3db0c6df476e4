"""Heads and neurons as columns and rows of matrices, and the removal of those that do nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.units import Neurons, UnitGroup


class Matrix:
    """The kernel of a layer as [in, out], and its bias or None: NumPy arrays."""

    def __init__(self, layer: Layer, inputs: int, outputs: int):
        self.kernel = np.array(layer.kernel).reshape(inputs, outputs)
        self.bias = None if layer.bias is None else np.array(layer.bias).reshape(-1)

    def write(self, layer: Layer) -> None:
        layer.kernel.assign(self.kernel.reshape(layer.kernel.shape))
        if self.bias is not None:
            layer.bias.assign(self.bias.reshape(layer.bias.shape))


class Matrices(dict[int, Matrix]):
    """The matrices of layers, by the ids of the layers."""

    def __init__(self, units: Sequence[KeptUnits]):
        super().__init__()
        for unit in units:
            for layer in unit.sources:
                width = int(np.prod(layer.kernel.shape[-unit.axes :]))
                self[id(layer)] = Matrix(layer, -1, width)
            height = int(np.prod(unit.reader.kernel.shape[: unit.axes]))
            self[id(unit.reader)] = Matrix(unit.reader, height, -1)


class KeptUnits:
    """Heads or neurons of a model, and which of them are kept."""

    def __init__(self, group: UnitGroup, rows: int = 1, min_sparsity: float = 0.0):
        self.group = group
        self._rows, self._min_sparsity = rows, min_sparsity  # for blocks that are left whole
        self.kept = np.arange(group.size)
        self.sources, self.reader = group.sources, group.reader
        self.value = self.sources[-1]  # the layer whose outputs are passed on
        is_einsum = isinstance(self.reader, keras.layers.EinsumDense)
        self.axes = 2 if is_einsum else 1  # [heads, size of a head], or both in one

    @property
    def keeps_all(self) -> bool:
        return len(self.kept) == self.group.size

    def keep(self, stay: np.ndarray, weights: Matrices) -> None:
        """Cuts the matrices down to the units at some of the places in `kept`."""
        for layer in self.sources:
            matrix = weights[id(layer)]
            matrix.kernel = self._blocks(matrix.kernel)[:, stay].reshape(len(matrix.kernel), -1)
            if matrix.bias is not None:
                matrix.bias = matrix.bias.reshape(len(self.kept), -1)[stay].reshape(-1)
        matrix = weights[id(self.reader)]
        columns = matrix.kernel.shape[1]
        matrix.kernel = self._blocks(matrix.kernel.T)[:, stay].reshape(columns, -1).T
        self.kept = self.kept[stay]

    def fold_empty(self, weights: Matrices) -> bool:
        """Removes the units that do nothing; the constant ones go into the reader's bias.

        Returns:
          True if there were any.
        """
        reads = self._blocks(weights[id(self.value)].kernel).any(axis=(0, 2))
        rows = self._blocks(weights[id(self.reader)].kernel.T)
        is_read = rows.any(axis=(0, 2))
        bias = weights[id(self.reader)].bias
        constants = np.einsum("ous,us->uo", rows.astype(np.float64), self._constants(weights))
        can_fold = (bias is not None) | ~constants.any(axis=1)
        stays = is_read & (reads | ~can_fold)
        if not stays.any():
            stays[0] = True
        stays = self._in_blocks(stays, weights)
        if stays.all():
            return False
        if bias is not None:
            bias += constants[is_read & ~stays].sum(axis=0).astype(bias.dtype)
        self.keep(np.flatnonzero(stays), weights)
        return True

    def _in_blocks(self, stays: np.ndarray, weights: Matrices) -> np.ndarray:
        """Lets more units stay, so that whole blocks of rows go, if enough blocks are zero."""
        kernel = weights[id(self.reader)].kernel
        if self._rows == 1 or len(kernel) % self._rows:
            return stays
        size = len(kernel) // len(stays)  # rows of a unit
        group = np.arange(len(stays)) // (self._rows // math.gcd(self._rows, size))
        in_blocks = np.isin(group, group[stays])
        left = kernel[np.repeat(in_blocks, size)]
        blocks = left.reshape(-1, self._rows, kernel.shape[1]).any(axis=1)
        return in_blocks if 1 - blocks.mean() >= self._min_sparsity else stays

    def _constants(self, weights: Matrices) -> np.ndarray:
        """The value of each unit that reads nothing: float64 [units, size]."""
        matrix = weights[id(self.value)]
        bias = matrix.bias
        if bias is None:
            bias = np.zeros(matrix.kernel.shape[1], matrix.kernel.dtype)
        if isinstance(self.group, Neurons):
            values = tf.constant(bias)[None]
            for activation in self.group.activations:
                values = activation(values)
            bias = values[0].numpy()
        # The weights of each head's attention sum to one: its output is the bias of its values.
        return bias.astype(np.float64).reshape(len(self.kept), -1)

    def _blocks(self, matrix: np.ndarray) -> np.ndarray:
        """The entries of a matrix as [rows, units, size of a unit]."""
        return matrix.reshape(len(matrix), len(self.kept), -1)


def fold_empty_units(
    groups: Sequence[UnitGroup], rows: int = 1, min_sparsity: float = 0.0
) -> tuple[list[KeptUnits], Matrices]:
    """The heads and neurons of a model that do something, and their matrices.

    Args:
      groups: all heads and neurons.
      rows: rows of a block. If at least `min_sparsity` of the blocks that are left in a kernel are
        zero, only whole blocks are removed from it, so that the other blocks stay what they are.
      min_sparsity: fraction of the blocks.
    """
    units = [KeptUnits(group, rows, min_sparsity) for group in groups]
    weights = Matrices(units)
    while any([unit.fold_empty(weights) for unit in units]):
        pass  # removed units may have been the last readers of others
    return units, weights
