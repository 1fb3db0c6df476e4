"""One mask over the weights of several layers: heads and neurons that stay or go as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_movprune.keras2.compat import Layer

HEADS = "heads"
"""Instead of a block size: each attention head is kept or masked as one."""

NEURONS = "neurons"
"""Instead of a block size: each neuron between two dense layers is kept or masked as one."""


KINDS = (HEADS, NEURONS)


class Part(NamedTuple):
    """The weights of all units in one variable: the attribute `name` of the layer `owner`."""

    owner: Layer
    name: str
    axis: int
    """Along which unit follows unit."""

    @property
    def variable(self) -> tf.Variable:
        return getattr(self.owner, self.name)


class SharedMask:
    """One score and one entry of the mask to each unit, shared by all layers that it is part of.

    A unit is an attention head, or a neuron between two dense layers. The variables are made by
    the first of the layers' wrappers.

    Args:
      size: number of units.
      parts: where their weights are. In each, `size` divides the length of the axis.
    """

    def __init__(self, size: int, parts: Sequence[Part]):
        self.size = size
        self.parts = list(parts)
        self.scores: tf.Variable | None = None
        self.mask: tf.Variable | None = None
        self.threshold: tf.Variable | None = None

    @property
    def is_made(self) -> bool:
        return self.mask is not None

    def matrix(self) -> tf.Tensor:
        """All weights, a row to each unit: float32 `[size, weights of a unit]`."""
        rows = []
        for part in self.parts:
            weights = tf.cast(tf.convert_to_tensor(part.variable), tf.float32)
            order = [part.axis, *(i for i in range(weights.shape.rank) if i != part.axis)]
            rows.append(tf.reshape(tf.transpose(weights, order), [self.size, -1]))
        return tf.concat(rows, axis=1)

    @property
    def block_size(self) -> tuple[int, int]:
        """A unit as a block of `matrix()`."""
        weights = sum(part.variable.shape.num_elements() for part in self.parts)
        return 1, weights // self.size

    def parts_in(self, layer: Layer) -> list[Part]:
        """The parts in a layer, or in layers inside it."""
        owners = {id(module) for module in (layer, *layer.submodules)}
        return [part for part in self.parts if id(part.owner) in owners]
