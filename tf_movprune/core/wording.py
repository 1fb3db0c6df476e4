"""Words for numbers and lists in messages and reports."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number and its noun: `"1 matrix"`, `"1,200 matrices"`; the plural ends in s by default."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def listed(items: Iterable[str], most: int = 6, separator: str = ", ") -> str:
    """The first items of a list, and how many more there are."""
    items = list(items)
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])
