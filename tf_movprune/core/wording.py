"""Words for numbers and lists in messages and reports."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number and its noun: `"1 matrix"`, `"1,200 matrices"`; the plural ends in s by default."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def with_article(noun: str) -> str:
    """A noun with its indefinite article: `"a Dense"`, `"an EinsumDense"`, `"an LSTM"`."""
    is_spelled = re.match(r"[FHLMNRSX][A-Z]", noun)  # by the names of its letters, as `ef`
    return f"{'an' if noun[:1] in 'AEIOUaeiou' or is_spelled else 'a'} {noun}"


def listed(items: Iterable[str], most: int = 6, separator: str = ", ") -> str:
    """The first items of a list, and how many more there are."""
    items = list(items)
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def unreachable(matrices: Sequence[str], share: str, *, can_be_held: bool = True) -> str:
    """Says that the default choice of layers leaves out matrices that no prunable layer holds.

    Args:
      matrices: their names and shapes.
      share: their share of the weights.
      can_be_held: whether they are in code of the user's, which can be changed.
    """
    remedy = "They stay dense."
    if can_be_held:
        remedy = (
            "To prune them, hold each in an attribute of a layer that returns it from "
            "get_prunable_weights(), and layers in attributes, lists or dicts; to keep them dense, "
            "go on."
        )
    return (
        f"cannot reach matrices with {share} of the weights, which no prunable layer holds: "
        f"{listed(matrices)}. {remedy}"
    )


def numbered_as_one(paths: Iterable[str]) -> list[str]:
    """Paths in their order, with `*` in the place of numbers for those that differ in these alone.

    `"block_0.query"` and `"block_1.query"` become one, `"block_*.query"`.
    """
    patterns = {path: re.sub(r"\d+(?=\.|$)", "*", path) for path in paths}
    counts = collections.Counter(patterns.values())
    return list(dict.fromkeys(p if counts[p] > 1 else path for path, p in patterns.items()))
