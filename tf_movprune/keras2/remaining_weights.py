"""Counts of the entries that remain in each weight of a tf_keras model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.masked_kernel import MaskedKernel, masked_parts, remaining
from tf_movprune.core.refresh import groups
from tf_movprune.keras2.compat import Layer, check_keras_object
from tf_movprune.keras2.kernel_attributes import prunable_weights, short_names
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, kernels_of
from tf_movprune.keras2.targets import default_targets

# Kernels that were not pruned have few zeros: the row of a padding token, among thousands.
_MOST_REMAINING = 0.99


def remaining_weights(model: Layer) -> list[tuple[str, tuple[int, ...], int, str]]:
    """The path, shape, number of remaining entries and group of each prunable weight.

    Args:
      model: a pruned model, whose masks are counted, or a plain one, whose zeros are counted: in
        the layers that are pruned by default, and in others that have enough zeros to be pruned.
    """
    check_keras_object(model)
    tree = LayerTree(model)
    wrappers = tree.pruned_layers()
    if not wrappers:
        return _zeros(tree)
    kernels = kernels_of(wrappers.values())
    names = _group_names(kernels)
    rows = []
    for path, wrapper in wrappers.items():
        counts = dict(_counts(wrapper.kernels))
        for name, weight in short_names(wrapper.get_prunable_weights()):
            count = counts.get(id(weight), weight.shape.num_elements())
            group = names[id(wrapper.kernels[0])]
            rows.append((f"{path}.{name}", tuple(weight.shape), int(count), group))
    return rows


def _zeros(tree: LayerTree) -> list[tuple[str, tuple[int, ...], int, str]]:
    targets = {id(layer): path for path, layer in default_targets(tree).items()}
    rows: list[tuple[str, tuple[int, ...], int, str]] = []
    for path, layer in tree.walk(is_prunable):
        if not is_prunable(layer) or not (id(layer) in targets or layer.built):
            continue
        kernels = [
            (name, weight, np.count_nonzero(weight))
            for name, weight in short_names(prunable_weights(layer))
        ]
        if id(layer) in targets or any(
            count <= _MOST_REMAINING * weight.shape.num_elements() for _, weight, count in kernels
        ):
            rows.extend(
                (f"{targets.get(id(layer), path)}.{name}", tuple(weight.shape), int(count), "zeros")
                for name, weight, count in kernels
            )
    return rows


def _counts(kernels: Sequence[MaskedKernel]) -> Iterable[tuple[int, Any]]:
    """Number of remaining entries of each weight, by its id."""
    weights = masked_parts(kernels)
    return ((id(weight), count) for (weight, _), count in zip(weights, remaining(weights)))


def _group_names(kernels: Iterable[MaskedKernel]) -> dict[int, str]:
    """Method, target and pieces of each kernel by its id, numbered if other things differ."""
    names: dict[str, list[MaskedKernel]] = {}
    for group in groups(kernels):
        method, final = group[0].method, group[0].settings.ramp.final_value
        name = type(method).__name__
        if method.schedule_value is not None and final is not None:
            name += f" to {method.schedule_value} {final:.4g}"
        pieces = group[0].settings.block_size
        if isinstance(pieces, Units):
            name += f" of {pieces}"
        elif pieces != WEIGHTS:
            name += f" of blocks of {pieces.rows} x {pieces.columns}"
        same = sum(other.split(" (")[0] == name for other in names)
        names[f"{name} ({same + 1})" if same else name] = group
    return {id(kernel): name for name, group in names.items() for kernel in group}
