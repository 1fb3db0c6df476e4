"""Rows of different lengths in one array, and rows padded to one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """Arrays of different lengths, one after the other.

    Attributes:
      values: array [sum of lengths, ...].
      splits: int64 [rows + 1]; row i is `values[splits[i]:splits[i + 1]]`.
    """

    values: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray], empty: np.ndarray) -> Rows:
        """Rows of arrays; `empty` has no elements, and the type and shape of those of a row."""
        splits = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(array) for array in arrays], out=splits[1:])
        return cls(np.concatenate([empty, *arrays]).astype(empty.dtype, copy=False), splits)

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.splits[row] : self.splits[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 length of each row."""
        return np.diff(self.splits)

    def padded(self, rows: np.ndarray, length: int, padding: int = 0) -> np.ndarray:
        """Some rows as an array [rows, length], padded at their ends.

        Args:
          rows: indices; none of these rows is longer than `length`.
          length: number of columns.
          padding: value of the rest of a row.
        """
        starts, sizes = self.splits[rows], self.lengths[rows]
        columns = np.arange(length)
        result = np.full([len(rows), length], padding, self.values.dtype)
        inside = columns < sizes[:, None]
        result[inside] = self.values[(starts[:, None] + columns)[inside]]
        return result
