"""What remains of the weights of a pruned model, row by row, from the records of its kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.masked_kernel import MaskedKernel, each_once, masked_parts, remaining
from tf_movprune.core.refresh import groups

# Kernels that were not pruned have few zeros: the row of a padding token, among thousands.
_MOST_REMAINING = 0.99

Row = tuple[str, tuple[int, ...], int, str]
"""Path, shape, number of remaining entries and group of a weight."""


def remaining_rows(
    layers: Mapping[str, tuple[Sequence[MaskedKernel], Sequence[tuple[str, Any]]]],
) -> list[Row]:
    """The path, shape, number of remaining entries and group of each prunable weight.

    Args:
      layers: by the path of each pruned layer, its masked kernels, at least one, and its prunable
        weights with their names. Weights that no kernel has among its parts remain whole.
    """
    names = group_names(each_once(k for kernels, _ in layers.values() for k in kernels))
    rows = []
    for path, (kernels, weights) in layers.items():
        masked = masked_parts(kernels)
        counts = {id(weight): count for (weight, _), count in zip(masked, remaining(masked))}
        for name, weight in weights:
            count = int(counts.get(id(weight), math.prod(weight.shape)))
            rows.append((f"{path}.{name}", tuple(weight.shape), count, names[id(kernels[0])]))
    return rows


def zero_rows(layers: Iterable[tuple[str, bool, Sequence[tuple[str, Any]]]]) -> list[Row]:
    """The path, shape, number of entries that are not zero, and `"zeros"`, of each weight.

    Args:
      layers: the path of each layer, whether it would be pruned by default, and its prunable
        weights with their names. Other layers are left out unless a weight has enough zeros to be
        a pruned one.
    """
    rows: list[Row] = []
    for path, is_default, weights in layers:
        arrays = [(f"{path}.{name}", np.array(weight)) for name, weight in weights]
        counts = [np.count_nonzero(array) for _, array in arrays]
        if is_default or any(n <= _MOST_REMAINING * a.size for n, (_, a) in zip(counts, arrays)):
            rows += [(name, a.shape, int(n), "zeros") for n, (name, a) in zip(counts, arrays)]
    return rows


def group_names(kernels: Iterable[MaskedKernel]) -> dict[int, str]:
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
