"""Numbers on what was pruned, for reports to draw, from the records of masked kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.magnitude_agreement import is_compared, kept_by_both, magnitudes
from tf_movprune.core.masked_kernel import MaskedKernel, each_once, masked_parts
from tf_movprune.core.matrix_places import place_of
from tf_movprune.core.refresh import groups
from tf_movprune.core.remaining import group_names, remaining_rows
from tf_movprune.core.remaining_units import MaskedMatrices, NamedLayers, chosen_units
from tf_movprune.core.score_statistics import score_statistics


def pruning_statistics(layers: NamedLayers, head_count: int | None = None) -> dict[str, Any]:
    """Statistics of a pruned model as a dict that JSON can hold.

    Matrices are read one after the other. On a BERT-base this takes some seconds, and memory for
    few copies of its largest matrix.

    Args:
      layers: the pruned layers, at least one.
      head_count: number of attention heads, for kernels whose shape does not tell it.

    Returns:
      The dict has these keys:

      - `remaining`, `total`: numbers of weights;
      - `matrices`: for each weight its `path`, `layer` (None if unknown), `title`, `shape`,
        `remaining`, `total`, `group` and `agreement`;
      - `heads`: for each layer its `layer` (None if unknown) and `remaining`, the share of the
        weights of each head that stays; empty if heads are unknown;
      - `neurons`: for each layer its `layer`, `kept` and `total`; a neuron is kept as long as
        weights lead to it and from it;
      - `groups`: for each group its `name`, `method`, `pieces`, number of `kernels`, `entries` and
        `kept` entries of masks, and what `score_statistics` returns;
      - `agreement`: the share of kept entries that magnitude would keep, if it kept as many of each
        matrix; None for methods that are not compared with it.

      The agreement of a weight is that of all masks together if several mask it.
    """
    rows = remaining_rows(layers)
    kernels = each_once(kernel for found, _ in layers.values() for kernel in found)
    both = {id(k): kept_by_both(k.mask.numpy(), magnitudes(k)) for k in kernels if is_compared(k)}
    masked_by = {id(weight): found for weight, found in masked_parts(kernels)}
    weights = [weight for _, named in layers.values() for _, weight in named]
    places = [place_of(path) for path, *_ in rows]
    matrices = []
    for (path, shape, remaining, group), place, weight in zip(rows, places, weights):
        own = each_once(kernel for kernel, _ in masked_by.get(id(weight), ()))
        matrices.append(
            {
                "path": path,
                **place._asdict(),
                "shape": list(shape),
                "remaining": remaining,
                "total": int(np.prod(shape)),
                "group": group,
                "agreement": _agreement(own, both),
            }
        )
    masks = MaskedMatrices(places, weights, masked_by)
    return {
        "remaining": sum(matrix["remaining"] for matrix in matrices),
        "total": sum(matrix["total"] for matrix in matrices),
        "matrices": matrices,
        "heads": chosen_units(layers, HEADS) or masks.heads(head_count),
        "neurons": chosen_units(layers, NEURONS) or masks.neurons(),
        "groups": _groups(layers, kernels),
        "agreement": _agreement(kernels, both),
    }


def _agreement(kernels: Sequence[MaskedKernel], both: Mapping[int, float]) -> float | None:
    compared = [kernel for kernel in kernels if id(kernel) in both]
    kept = sum(int(np.count_nonzero(kernel.mask)) for kernel in compared)
    return sum(both[id(kernel)] for kernel in compared) / kept if kept else None


def _groups(layers: NamedLayers, kernels: Sequence[MaskedKernel]) -> list[dict[str, Any]]:
    names = group_names(kernels)
    titles: dict[int, str] = {}
    for path, (own, weights) in layers.items():
        for i, kernel in enumerate(own):
            name = f".{weights[i][0]}" if len(own) == len(weights) > 1 else ""
            layer, title = place_of(f"{path}{name}")
            title = title if layer is None else f"layer {layer}, {title}"
            titles.setdefault(id(kernel), f"layer {layer}" if kernel.has_units else title)
    return [
        {
            "name": names[id(group[0])],
            "method": type(group[0].method).__name__,
            "pieces": _pieces(group[0]),
            "kernels": len(group),
            "entries": sum(kernel.size for kernel in group),
            "kept": sum(int(np.count_nonzero(kernel.mask)) for kernel in group),
            **score_statistics(group, [titles[id(kernel)] for kernel in group]),
        }
        for group in groups(kernels)
    ]


def _pieces(kernel: MaskedKernel) -> str:
    """Names, in the plural, the pieces that the entries of a mask stand for."""
    size = kernel.settings.block_size
    if isinstance(size, Units):
        return str(size)
    return "weights" if tuple(size) == (1, 1) else f"blocks of {size.rows} × {size.columns}"
