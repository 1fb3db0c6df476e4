"""Names for the tensors in nested arguments and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any


def named_leaves(
    structure: Any, name: str = "", order: Callable[[Mapping[Any, Any]], Iterable[Any]] = list
) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, lists and tuples, with their keys joined by underscores.

    Args:
      structure: what holds the leaves.
      name: first part of the names.
      order: function that puts the keys of a mapping in order; `sorted` is that of `tf.nest`.
    """
    if isinstance(structure, Mapping):
        items: Any = ((key, structure[key]) for key in order(structure))
    elif isinstance(structure, list | tuple):
        items = zip(getattr(structure, "_fields", range(len(structure))), structure)
    else:
        yield name, structure
        return
    for key, value in items:
        yield from named_leaves(value, f"{name}_{key}" if name else str(key), order)


def valid_names(names: Sequence[str]) -> list[str]:
    """Valid and different names for tensors: what is not valid becomes an underscore."""
    unique: list[str] = []
    for name in names:
        valid = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-") or "x"
        number, candidate = 0, valid
        while candidate in unique:
            number += 1
            candidate = f"{valid}_{number}"
        unique.append(candidate)
    return unique
