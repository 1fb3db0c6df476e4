"""Refusal of models in which other layers have the kernel of a pruned layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_only_holders(
    kernels: Iterable[tuple[Any, Iterable[Any], Iterable[Any]]],
    attributes: Iterable[tuple[Any, str, Any]],
) -> None:
    """Raises ValueError if another layer has a kernel, as its own or among its attributes.

    Nothing would mask it there, or the masks of both layers would.

    Args:
      kernels: a layer that is pruned, the layers inside it, and its kernels, for each such layer.
      attributes: layers of the model with the names and values of their attributes.
    """
    holders: dict[int, Any] = {}
    owners: dict[int, Any] = {}
    for target, inside, weights in kernels:
        for layer in inside:
            holders.setdefault(id(layer), target)
        holders[id(target)] = target
        for weight in weights:
            owner = owners.setdefault(id(weight), target)
            if owner is not target:
                raise ValueError(
                    f"{target.name!r} ({type(target).__name__}) has the kernel of {owner.name!r} "
                    f"({type(owner).__name__}) as its own, so that two masks would decide on it. "
                    "Prune one of them, if the other computes with that one's kernel, or leave "
                    "both out, with a mapping of path patterns to schedules or a pruning_policy."
                )
    for layer, name, value in attributes:
        target = owners.get(id(value))
        if target is not None and holders.get(id(layer)) is not target:
            raise ValueError(
                f"{layer.name!r} ({type(layer).__name__}) has the kernel of {target.name!r} as "
                f"its {name!r}, so that one mask would not decide on it. Let it hold the layer "
                f"{target.name!r} and read its kernel, or leave {target.name!r} out, with a "
                "mapping of path patterns to schedules or a pruning_policy."
            )
