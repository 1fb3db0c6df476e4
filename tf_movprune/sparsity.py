"""Tables of sparsity, weight by weight and overall."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tf_movprune.export.protocol import shell_of


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """Shape and remaining entries of one weight matrix."""

    path: str
    shape: tuple[int, ...]
    remaining: int
    total: int
    group: str = "zeros"
    """The method and the target that the weight shares with others."""

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1 - self.remaining / self.total


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """Remaining entries of a model's prunable weights. Printing the report gives a table."""

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
        """Returns the report as a dict.

        It is `{"weights": {path: {shape, remaining, total, sparsity}}, "remaining": ..., ...}`,
        and `"groups": {name: {remaining, total, sparsity}}` is added if there are several.
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
        says_more = len(self.groups) > 1 or any(" of " in name for name in self.groups)
        totals = {**(self.groups if says_more else {}), "all": self}
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


def summarize_sparsity(model: Any) -> SparsityReport:
    """Counts the entries that remain in each prunable weight, and overall.

    Args:
      model: a pruned model, whose masks are counted; or a plain one, whose zeros are counted in the
        weights that `prune_low_movement` prunes by default, and in other prunable layers with a
        kernel of which a hundredth or more is zero.

    Rows are weights, and sums are over groups: the methods, targets and granularities that weights
    share. The parts `embeddings`, `layers` and `other` are those of `size_report`, which counts
    every weight of a model.

    Returns:
      A report to print, or to read as a dict with `as_dict()`. Paths are those that patterns of
      `prune_low_movement` match, followed by the name of the weight: `kernel`, or in attention
      layers `query.kernel` and so on.

    Raises:
      ValueError: the model has no prunable weights.
    """
    rows = shell_of(model).remaining_weights(model)
    if not rows:
        raise ValueError(f"{type(model).__name__} {model.name!r} has no prunable weights.")
    return SparsityReport(
        tuple(
            WeightSparsity(path, shape, remaining, math.prod(shape), group)
            for path, shape, remaining, group in rows
        )
    )
