"""What remains where: tables of sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.refresh import groups
from tf_movprune.core.schedules import final_value
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.slots import prunable_weights
from tf_movprune.keras2.targets import default_layers
from tf_movprune.keras2.tree import pruned_layers


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """What remains of one weight matrix."""

    path: str
    shape: tuple[int, ...]
    remaining: int
    total: int
    group: str = "zeros"
    """The method and the target that it shares with others."""

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

    @property
    def groups(self) -> dict[str, SparsityReport]:
        """A report on the weights of each method and target."""
        names = dict.fromkeys(weight.group for weight in self.weights)
        return {
            name: SparsityReport(tuple(w for w in self.weights if w.group == name))
            for name in names
        }

    def as_dict(self) -> dict[str, Any]:
        """`{"weights": {path: {shape, remaining, total, sparsity}}, "remaining": ..., ...}`.

        With `"groups": {name: {remaining, total, sparsity}}` where there are several.
        """
        weights = {w.path: {"shape": w.shape, **_numbers(w)} for w in self.weights}
        groups = {name: _numbers(group) for name, group in self.groups.items()}
        several = {"groups": groups} if len(groups) > 1 else {}
        return {"weights": weights, **several, **_numbers(self)}

    def __str__(self) -> str:
        rows = [
            (w.path, "x".join(map(str, w.shape)), w.remaining, w.total, w.sparsity)
            for w in self.weights
        ]
        totals = {**(self.groups if len(self.groups) > 1 else {}), "all": self}
        rows += [(name, "", r.remaining, r.total, r.sparsity) for name, r in totals.items()]
        width = max(len(row[0]) for row in rows)
        header = f"{'weight':{width}}  {'shape':>12} {'remaining':>12} {'total':>12}  sparsity"
        lines = [
            f"{path:{width}}  {shape:>12} {remaining:>12,} {total:>12,}  {sparsity:8.2%}"
            for path, shape, remaining, total, sparsity in rows
        ]
        weights, sums = lines[: len(self.weights)], lines[len(self.weights) :]
        return "\n".join([header, *weights, "-" * len(header), *sums])


def _numbers(of: WeightSparsity | SparsityReport) -> dict[str, Any]:
    return {"remaining": of.remaining, "total": of.total, "sparsity": of.sparsity}


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
        group_of = _group_names(wrappers.values())
        weights = [
            _weight(
                path,
                name,
                kernel,
                remaining,
                group_of[id(wrapper)],
            )
            for path, wrapper in wrappers.items()
            for (name, kernel), remaining in zip(
                _named(wrapper.get_prunable_weights()), wrapper.remaining()
            )
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


def _group_names(wrappers: Iterable[PruneLowMovement]) -> dict[int, str]:
    """By the id of a layer: its method and target, numbered where groups differ in other things."""
    names: dict[str, list[PruneLowMovement]] = {}
    for schedule, method, layers in groups(wrappers):
        name = type(method).__name__
        final = final_value(schedule)
        if method.schedule_value is not None and final is not None:
            name += f" to {method.schedule_value} {final:.4g}"
        same = sum(other.split(" (")[0] == name for other in names)
        names[f"{name} ({same + 1})" if same else name] = layers
    return {id(layer): name for name, layers in names.items() for layer in layers}


def _weight(
    path: str, name: str, kernel: Any, remaining: Any, group: str = "zeros"
) -> WeightSparsity:
    shape = tuple(kernel.shape)
    return WeightSparsity(f"{path}.{name}", shape, int(remaining), int(np.prod(shape)), group)
