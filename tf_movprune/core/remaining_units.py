"""Counts of what remains of heads and neurons, whatever the masks decide on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.granularity import HEADS, Units
from tf_movprune.core.masked_kernel import MaskedKernel, Part
from tf_movprune.core.matrix_places import Place, place_of

NamedLayers = Mapping[str, tuple[Sequence[MaskedKernel], Sequence[tuple[str, Any]]]]
"""Masked kernels of each pruned layer, and its prunable weights by name; layers go by path."""

_ATTENTION = ("query", "key", "value", "attention output")


def chosen_units(layers: NamedLayers, kind: Units) -> list[dict[str, Any]]:
    """Heads or neurons that masks decide on, in the form of `MaskedMatrices.heads` and `neurons`.

    Args:
      layers: the pruned layers.
      kind: `HEADS` or `NEURONS`.
    """
    places: dict[int, tuple[int | None, MaskedKernel]] = {}
    for path, (kernels, weights) in layers.items():
        for kernel in kernels:
            if kernel.settings.block_size is kind:
                place = place_of(f"{path}.{weights[0][0]}")
                places.setdefault(id(kernel), (place.layer, kernel))
    found = []
    for layer, kernel in places.values():
        mask = kernel.mask.numpy()
        if kind is HEADS:
            found.append({"layer": layer, "remaining": mask.astype(float).tolist()})
        else:
            found.append({"layer": layer, "kept": int(mask.sum()), "total": mask.size})
    return found


class MaskedMatrices:
    """The matrices of transformers' layers under their masks.

    Args:
      places: where each weight stands.
      weights: the weights.
      masked_by: by the id of a weight, all that masks it.
    """

    def __init__(
        self,
        places: Sequence[Place],
        weights: Sequence[Any],
        masked_by: Mapping[int, Sequence[tuple[MaskedKernel, Part]]],
    ):
        self._masked_by = masked_by
        self._layers: dict[int, dict[str, Any]] = {}
        for place, weight in zip(places, weights):
            if place.layer is not None and id(weight) in masked_by:
                self._layers.setdefault(place.layer, {})[place.title] = weight

    def heads(self, head_count: int | None) -> list[dict[str, Any]]:
        """The `layer`, and the share of each head's weights that stays as `remaining`.

        Layers are left out whose heads share keys, or whose number of heads is not known.

        Args:
          head_count: number of heads, for kernels whose shape does not tell it.
        """
        found = []
        for layer, matrices in self._layers.items():
            weights = {title: matrices[title] for title in _ATTENTION if title in matrices}
            counts = {
                w.shape[0 if t == _ATTENTION[-1] else 1]
                for t, w in weights.items()
                if len(w.shape) == 3
            }
            counts = counts or {head_count}
            if len(counts) != 1 or counts == {None} or not weights:
                continue
            (count,) = counts
            if any(_width(title, weight) % count for title, weight in weights.items()):
                continue
            shares = [self._by_head(title, weight, count) for title, weight in weights.items()]
            sizes = [np.prod(weight.shape) for weight in weights.values()]
            remaining = np.average(shares, axis=0, weights=sizes)
            found.append({"layer": layer, "remaining": [round(float(s), 5) for s in remaining]})
        return found

    def neurons(self) -> list[dict[str, Any]]:
        """The `layer`, and its number of neurons as `total` and of those `kept`.

        A neuron is kept as long as weights lead to it and from it.
        """
        found = []
        for layer, matrices in self._layers.items():
            before, after = matrices.get("intermediate"), matrices.get("output")
            if before is not None and after is not None and before.shape[-1] == after.shape[0]:
                into = self._mask(before).reshape(-1, before.shape[-1]).any(axis=0)
                out_of = self._mask(after).reshape(after.shape[0], -1).any(axis=1)
                kept = int((into & out_of).sum())
                found.append({"layer": layer, "kept": kept, "total": into.size})
        return found

    def _by_head(self, title: str, weight: Any, count: int) -> np.ndarray:
        """The share of the entries of each of `count` heads that stays."""
        mask = self._mask(weight)
        if title == _ATTENTION[-1]:
            return mask.reshape(count, -1).mean(axis=1)
        return mask.reshape(weight.shape[0], count, -1).mean(axis=(0, 2))

    def _mask(self, weight: Any) -> np.ndarray:
        """What all masks leave of a weight: a bool array of its shape."""
        masks = [
            part.expand(tf.convert_to_tensor(kernel.mask), kernel.block_size)
            for kernel, part in self._masked_by[id(weight)]
        ]
        return tf.reshape(functools.reduce(tf.logical_and, masks), weight.shape).numpy()


def _width(title: str, weight: Any) -> int:
    """Number of entries along the axes of a kernel over which its heads lie."""
    shape = tuple(weight.shape)
    if title == _ATTENTION[-1]:
        return int(np.prod(shape[:-1]))
    return int(np.prod(shape[1:]))
