"""A variable of a model, and the tensor of a PyTorch checkpoint that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

LARGE = 2**24
"""Bytes that are assigned at once, at most."""


class PortedWeight(NamedTuple):
    """A variable, and the tensor of PyTorch with the same numbers.

    Attributes:
      variable: the variable of TensorFlow.
      name: name of the tensor in a PyTorch checkpoint.
      shape: shape of the tensor.
      to_keras: function from the tensor to the value of the variable.
      to_pytorch: its inverse.
    """

    variable: tf.Variable
    name: str
    shape: tuple[int, ...]
    to_keras: Callable[[np.ndarray], np.ndarray]
    to_pytorch: Callable[[np.ndarray], np.ndarray]

    def assign(self, tensor: np.ndarray) -> None:
        """Gives the variable the numbers of a tensor of PyTorch.

        Large ones are assigned piece by piece, or TensorFlow would make a copy of the whole.
        Variables that are cast when they are read have no pieces.
        """
        values = self.to_keras(tensor)
        if values.nbytes <= LARGE or not hasattr(self.variable[:1], "assign"):
            self.variable.assign(values)
            return
        rows = max(1, len(values) * LARGE // values.nbytes)
        for start in range(0, len(values), rows):
            piece = values[start : start + rows]
            self.variable[start : start + len(piece)].assign(piece)


class EncoderSizes(NamedTuple):
    """The size of an encoder layer.

    Attributes:
      heads: places of the heads that are left, among those that there were, ascending.
      neurons: number of neurons that are left.
    """

    heads: tuple[int, ...]
    neurons: int
