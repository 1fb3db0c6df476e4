"""Heads and neurons as columns and rows of matrices, and the removal of those that do nothing.

Layers are known here by their `kernel` and `bias` alone, and groups of units by a `Group`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tf_movprune.core.granularity import NEURONS, Units
from tf_movprune.core.matrix_layout import layout_of
from tf_movprune.core.user_warnings import warn

Read = Callable[[Any], np.ndarray]


class Matrix:
    """The kernel of a layer as [in, out], and its bias as [out] or None: NumPy arrays.

    Args:
      layer: the layer.
      read: returns the array of a variable, of its shape.
    """

    def __init__(self, layer: Any, read: Read | None = None):
        read = read or _array
        self._layout = layout_of(layer)
        self.kernel = np.ascontiguousarray(self._layout.matrix_of(read(layer.kernel)))
        self.bias = None if layer.bias is None else read(layer.bias).reshape(-1)

    @property
    def offsets(self) -> np.ndarray:
        """The bias, or zeros in its place."""
        return np.zeros_like(self.kernel[0]) if self.bias is None else self.bias

    def constants(self, offsets: np.ndarray | None = None) -> np.ndarray:
        """The outputs that depend on no input, float64 [out], NaN for all others.

        Args:
          offsets: what to return of the bias, `offsets` by default.
        """
        values = self.offsets if offsets is None else offsets
        return np.where(self.kernel.any(axis=0), np.nan, values.astype(np.float64))

    def to_kernel(self, shape: Sequence[int]) -> np.ndarray:
        """The kernel, whose axes have some lengths."""
        return self._layout.kernel_of(self.kernel, shape)

    def write(self, layer: Any) -> None:
        layer.kernel.assign(self.to_kernel(layer.kernel.shape))
        if self.bias is not None:
            layer.bias.assign(self.bias.reshape(layer.bias.shape))

    def is_that_of(self, layer: Any) -> bool:
        """Returns whether the weights of a layer are these."""
        other = Matrix(layer)
        same_kernel = np.array_equal(self.kernel, other.kernel)
        if self.bias is None or other.bias is None:
            return same_kernel
        return same_kernel and np.array_equal(self.bias, other.bias)


def _array(variable: Any) -> np.ndarray:
    """A copy of a variable. NumPy warns of Keras's if it is to copy them itself."""
    return np.array(tf.convert_to_tensor(variable))


def blank(variable: Any) -> np.ndarray:
    """Zeros in place of a variable, which take no memory before they are written to."""
    return np.zeros(variable.shape, tf.as_dtype(variable.dtype).as_numpy_dtype)


class Group(Protocol):
    """Heads or neurons: columns in the matrices of some layers, and rows in that of their reader.

    Unit follows unit in the columns and in the rows, of which each unit has equally many.
    """

    @property
    def kind(self) -> Units: ...

    @property
    def size(self) -> int: ...

    @property
    def sources(self) -> Sequence[Any]: ...

    @property
    def reader(self) -> Any: ...

    def constants(self, sources: Sequence[Matrix]) -> np.ndarray:
        """The value of each column at the reader, or NaN if it depends on an input."""
        ...


class Matrices(dict[int, Matrix]):
    """The matrices of layers, by the ids of the layers; see `Matrix`."""

    def __init__(self, groups: Sequence[Group], read: Read | None = None):
        super().__init__()
        for group in groups:
            for layer in (*group.sources, group.reader):
                self[id(layer)] = Matrix(layer, read)


class KeptUnits:
    """Heads or neurons of a model, and which of them are kept."""

    def __init__(
        self, group: Group, rows: int = 1, min_sparsity: float = 0.0, multiple_of: int = 1
    ):
        self.group: Any = group
        self._rows, self._min_sparsity = rows, min_sparsity  # for blocks that are left whole
        self._multiple_of = multiple_of if group.kind == NEURONS else 1
        self.kept = np.arange(group.size)
        self.sources, self.reader = group.sources, group.reader

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

    def resize(self, count: int, weights: Matrices) -> None:
        """Gives the matrices another number of units, more than there were too, of zeros."""
        size = len(weights[id(self.reader)].kernel) // len(self.kept)
        for layer in self.sources:
            matrix = weights[id(layer)]
            matrix.kernel = np.zeros([len(matrix.kernel), count * size], np.float32)
            if matrix.bias is not None:
                matrix.bias = np.zeros(count * size, np.float32)
        matrix = weights[id(self.reader)]
        matrix.kernel = np.zeros([count * size, matrix.kernel.shape[1]], np.float32)
        self.kept = np.arange(count)

    def fold_empty(self, weights: Matrices) -> bool:
        """Removes the units that do nothing; the constant ones go into the reader's bias.

        Returns:
          True if there were any.
        """
        matrix = weights[id(self.reader)]
        values = self.group.constants([weights[id(layer)] for layer in self.sources])
        values = values.reshape(len(self.kept), -1)
        is_constant = ~np.isnan(values).any(axis=1)
        values = np.where(is_constant[:, None], values, 0)
        rows = self._blocks(matrix.kernel.T)
        is_read = rows.any(axis=(0, 2))
        constants = np.einsum("ous,us->uo", rows.astype(np.float64), values)
        can_fold = (matrix.bias is not None) | ~constants.any(axis=1)
        stays = is_read & ~(is_constant & can_fold)
        if not stays.any():
            stays[0] = True
        stays = self._in_blocks(stays, matrix.kernel)
        padding = self._padding(stays)
        if stays.sum() + len(padding) == len(stays):
            return False
        if matrix.bias is not None:
            matrix.bias += constants[is_read & ~stays].sum(axis=0).astype(matrix.bias.dtype)
        self._empty(padding, weights)
        stays[padding] = True
        self.keep(np.flatnonzero(stays), weights)
        return True

    def _in_blocks(self, stays: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Lets more units stay, so that whole blocks of rows go, if enough blocks are zero."""
        if self._rows == 1 or len(kernel) % self._rows:
            return stays
        size = len(kernel) // len(stays)  # rows of a unit
        group = np.arange(len(stays)) // (self._rows // math.gcd(self._rows, size))
        in_blocks = np.isin(group, group[stays])
        left = kernel[np.repeat(in_blocks, size)]
        blocks = left.reshape(-1, self._rows, kernel.shape[1]).any(axis=1)
        return in_blocks if 1 - blocks.mean() >= self._min_sparsity else stays

    def _padding(self, stays: np.ndarray) -> np.ndarray:
        """Places of units that stay empty, so that the number of all is a multiple."""
        return np.flatnonzero(~stays)[: -stays.sum() % self._multiple_of]

    def _empty(self, places: np.ndarray, weights: Matrices) -> None:
        """Fills units with zeros, so that they need no others before them."""
        for layer in self.sources:
            matrix = weights[id(layer)]
            self._blocks(matrix.kernel)[:, places] = 0
            if matrix.bias is not None:
                matrix.bias.reshape(len(self.kept), -1)[places] = 0
        self._blocks(weights[id(self.reader)].kernel.T)[:, places] = 0

    def _blocks(self, matrix: np.ndarray) -> np.ndarray:
        """The entries of a matrix as [rows, units, size of a unit]."""
        return matrix.reshape(len(matrix), len(self.kept), -1)


def fold_empty_units(
    groups: Sequence[Group], rows: int = 1, min_sparsity: float = 0.0, multiple_of: int = 1
) -> tuple[list[KeptUnits], Matrices]:
    """The heads and neurons of a model that do something, and their matrices.

    Args:
      groups: all heads and neurons.
      rows: rows of a block. If at least `min_sparsity` of the blocks that are left in a kernel are
        zero, only whole blocks are removed from it, so that the other blocks stay what they are.
      min_sparsity: fraction of the blocks.
      multiple_of: number that the neurons left in each layer are a multiple of, empty ones among
        them, unless there are no more.
    """
    units = [KeptUnits(group, rows, min_sparsity, multiple_of) for group in groups]
    weights = Matrices(groups)
    while any([unit.fold_empty(weights) for unit in units]):
        pass  # removed units may have been the last readers of others
    return units, weights


class Cut:
    """How heads and neurons were removed: what is left of values of the shapes of the weights.

    Args:
      units: the heads and neurons, and which of them were kept.
    """

    def __init__(self, units: Iterable[KeptUnits]):
        self._units = list(units)

    def __call__(
        self,
        values: Mapping[int, np.ndarray],
        before: Mapping[int, Sequence[int]],
        after: Mapping[int, Sequence[int]],
    ) -> dict[int, np.ndarray]:
        """Cuts values, such as an optimizer's slots, as the weights were cut.

        Args:
          values: arrays of the shapes that kernels and biases had, by the ids of the variables;
            frozen ones have none.
          before: the shapes that all variables had, by their ids.
          after: what the shapes of those with values have become.

        Returns:
          What is left of those values that were cut, by the same ids.
        """
        groups = [unit.group for unit in self._units]

        def read(variable: Any) -> np.ndarray:
            if id(variable) in values:
                return values[id(variable)]
            return np.zeros(before[id(variable)], np.float32)

        matrices = Matrices(groups, read)
        for unit in self._units:
            KeptUnits(unit.group).keep(unit.kept, matrices)
        cut = {}
        for group in groups:
            for layer in (*group.sources, group.reader):
                matrix = matrices[id(layer)]
                if id(layer.kernel) in values:
                    cut[id(layer.kernel)] = matrix.to_kernel(after[id(layer.kernel)])
                if matrix.bias is not None and id(layer.bias) in values:
                    cut[id(layer.bias)] = matrix.bias.reshape(after[id(layer.bias)])
        return cut


def removed_of_each_kind(units: Sequence[KeptUnits]) -> dict[str, tuple[int, int]]:
    """The numbers of removed and of all `"heads"` and `"neurons"`."""
    removed = {}
    for kind in Units:
        those = [unit for unit in units if unit.group.kind is kind]
        total = sum(unit.group.size for unit in those)
        removed[kind.value] = (total - sum(len(unit.kept) for unit in those), total)
    return removed


# ---- checks and warnings of `compact`


def check_has_weights(model: Any) -> None:
    """Raises ValueError if a Keras model is not built."""
    if not (model.built and model.weights):
        raise ValueError(
            f"{model.name!r} has no weights. Call it once on example inputs before compacting it."
        )


def warn_of_nothing_removed(name: str) -> None:
    """Warns the caller of `tf_movprune.compact` that a model has no empty heads or neurons."""
    warn(
        f"No head and no neuron of {name!r} is empty, and nothing was removed. Single zeros, and "
        "blocks of them, leave all heads and neurons something to do, and as many empty neurons "
        "stay as multiple_of asks for."
    )
