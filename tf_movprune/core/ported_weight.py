"""A variable of a model, and the tensor of a PyTorch checkpoint that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class PortedWeight(NamedTuple):
    """A variable, and the tensor of PyTorch with the same numbers.

    Attributes:
      variable: the variable.
      name: name of the tensor in a PyTorch checkpoint.
      shape: shape of the tensor.
      to_keras: function from the tensor to the value of the variable.
      to_pytorch: its inverse.
    """

    variable: Any
    name: str
    shape: tuple[int, ...]
    to_keras: Callable[[np.ndarray], np.ndarray]
    to_pytorch: Callable[[np.ndarray], np.ndarray]


class EncoderSizes(NamedTuple):
    """The size of an encoder layer.

    Attributes:
      heads: places of the heads that are left, among those that there were, ascending.
      neurons: number of neurons that are left.
    """

    heads: tuple[int, ...]
    neurons: int
