"""Counts of the entries that remain in each weight of a tf_keras model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.masked_kernel import MaskedKernel, masked_parts, remaining
from tf_movprune.core.refresh import groups
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.layer_tree import LayerTree, kernels_of
from tf_movprune.keras2.targets import default_targets


def remaining_weights(model: Layer) -> list[tuple[str, tuple[int, ...], int, str]]:
    """The path, shape, number of remaining entries and group of each prunable weight.

    Args:
      model: a pruned model, whose masks are counted, or a plain one, whose zeros are counted.
    """
    tree = LayerTree(model)
    wrappers = tree.pruned_layers()
    if not wrappers:
        return [
            (f"{path}.{name}", tuple(weight.shape), int(np.count_nonzero(weight)), "zeros")
            for path, layer in default_targets(tree).items()
            for name, weight in _named(prunable_weights(layer))
        ]
    kernels = kernels_of(wrappers.values())
    names = _group_names(kernels)
    rows = []
    for path, wrapper in wrappers.items():
        counts = dict(_counts(wrapper.kernels))
        for name, weight in _named(wrapper.get_prunable_weights()):
            count = counts.get(id(weight), weight.shape.num_elements())
            group = names[id(wrapper.kernels[0])]
            rows.append((f"{path}.{name}", tuple(weight.shape), int(count), group))
    return rows


def _counts(kernels: Sequence[MaskedKernel]) -> Iterable[tuple[int, Any]]:
    """Number of remaining entries of each weight, by its id."""
    weights = masked_parts(kernels)
    return ((id(weight), count) for (weight, _), count in zip(weights, remaining(weights)))


def _named(kernels: Sequence[Any]) -> list[tuple[str, Any]]:
    """The kernels of one layer with the shortest ends of their names that tell them apart.

    A single one is `kernel`, those of attention are `query.kernel` and so on. Equal names are
    numbered.
    """
    parts = [kernel.name.split(":")[0].split("/") for kernel in kernels]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = [".".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{part[-1]}_{i}" for i, part in enumerate(parts)]
    return list(zip(names, kernels))


def _group_names(kernels: Iterable[MaskedKernel]) -> dict[int, str]:
    """The method and target of each kernel by its id, numbered if groups differ in other things."""
    names: dict[str, list[MaskedKernel]] = {}
    for group in groups(kernels):
        method, final = group[0].method, group[0].settings.ramp.final_value
        name = type(method).__name__
        if method.schedule_value is not None and final is not None:
            name += f" to {method.schedule_value} {final:.4g}"
        same = sum(other.split(" (")[0] == name for other in names)
        names[f"{name} ({same + 1})" if same else name] = group
    return {id(kernel): name for name, group in names.items() for kernel in group}
