"""What remains where: tables of sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune._keras import Layer
from tf_movprune.selection import default_layers
from tf_movprune.traversal import pruned_layers
from tf_movprune.wrapper import prunable_weights


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """What remains of one weight matrix."""

    path: str
    shape: tuple[int, ...]
    remaining: int
    total: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1 - self.remaining / self.total


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What remains of a model's prunable weights. Printing it gives a table."""

    weights: tuple[WeightSparsity, ...]

    @property
    def remaining(self) -> int:
        return sum(weight.remaining for weight in self.weights)

    @property
    def total(self) -> int:
        return sum(weight.total for weight in self.weights)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all prunable weights."""
        return 1 - self.remaining / self.total

    def as_dict(self) -> dict[str, Any]:
        """`{"weights": {path: {shape, remaining, total, sparsity}}, "remaining": ..., ...}`."""
        return {
            "weights": {
                weight.path: {
                    "shape": weight.shape,
                    "remaining": weight.remaining,
                    "total": weight.total,
                    "sparsity": weight.sparsity,
                }
                for weight in self.weights
            },
            "remaining": self.remaining,
            "total": self.total,
            "sparsity": self.sparsity,
        }

    def __str__(self) -> str:
        rows = [
            (w.path, "x".join(map(str, w.shape)), w.remaining, w.total, w.sparsity)
            for w in self.weights
        ]
        rows.append(("all", "", self.remaining, self.total, self.sparsity))
        width = max(len(row[0]) for row in rows)
        header = f"{'weight':{width}}  {'shape':>12} {'remaining':>12} {'total':>12}  sparsity"
        lines = [
            f"{path:{width}}  {shape:>12} {remaining:>12,} {total:>12,}  {sparsity:8.2%}"
            for path, shape, remaining, total, sparsity in rows
        ]
        return "\n".join([header, *lines[:-1], "-" * len(header), lines[-1]])


def summarize_sparsity(model: Layer) -> SparsityReport:
    """What remains of each prunable weight, and overall.

    Args:
      model: a pruned model, counted by its masks; or a plain one, of which the weights that
        `prune_low_movement` prunes by default are counted by their zeros.

    Returns:
      A report to print, or to read as a dict with `as_dict()`. Paths are those over which a
      mapping of schedules is matched, followed by the name of the weight: `kernel`, or in
      attention layers `query.kernel` and so on.

    Raises:
      ValueError: the model has no such weights.
    """
    wrappers = pruned_layers(model)
    if wrappers:
        weights = [
            _weight(path, name, kernel, np.count_nonzero(mask) * int(np.prod(wrapper.block_size)))
            for path, wrapper in wrappers.items()
            for (name, kernel), mask in zip(_named(wrapper.get_prunable_weights()), wrapper.masks)
        ]
    else:
        weights = [
            _weight(path, name, kernel, np.count_nonzero(kernel))
            for path, layer in default_layers(model).items()
            for name, kernel in _named(prunable_weights(layer))
        ]
    if not weights:
        raise ValueError(f"{type(model).__name__} {model.name!r} has no prunable weights.")
    return SparsityReport(tuple(weights))


def _named(kernels: Sequence[Any]) -> list[tuple[str, Any]]:
    """The kernels of one layer with as much of their names' ends as tells them apart.

    `kernel` where there is but one; `query.kernel` and so on in an attention layer; numbered where
    names are equal.
    """
    parts = [kernel.name.split(":")[0].split("/") for kernel in kernels]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = [".".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{part[-1]}_{i}" for i, part in enumerate(parts)]
    return list(zip(names, kernels))


def _weight(path: str, name: str, kernel: Any, remaining: Any) -> WeightSparsity:
    shape = tuple(kernel.shape)
    return WeightSparsity(f"{path}.{name}", shape, int(remaining), int(np.prod(shape)))
