"""A tensor in a file, whose numbers are read when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Attributes:
      shape: its shape, as PyTorch has it.
      dtype: type of its numbers in the file.
      read: function that reads them: an array of that shape and type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def array(self) -> np.ndarray:
        """The tensor in float32, or as it is if it does not hold floating-point numbers."""
        values = self.read()
        is_float = np.issubdtype(values.dtype, np.floating) or values.dtype.kind == "V"
        return values.astype(np.float32, copy=False) if is_float else values
