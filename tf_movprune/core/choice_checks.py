"""Checks of what users choose to prune, in every shell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_movprune.core.wording import listed


def check_policy(policy: Any) -> None:
    """Raises TypeError if `policy` is neither None nor an object with the methods of a policy."""
    methods = ("allow_pruning", "ensure_model_supports_pruning")
    if policy is None or (
        not isinstance(policy, type)
        and all(callable(getattr(policy, name, None)) for name in methods)
    ):
        return
    received = f"the class {policy.__name__}" if isinstance(policy, type) else repr(policy)
    raise TypeError(
        "pruning_policy must be an object such as tf_movprune.PruneTransformerBlocks(), or another "
        f"PruningPolicy with {' and '.join(methods)}, got {received}."
    )


def check_listed(layer: Any, inside: Sequence[str]) -> None:
    """Raises ValueError if a member of a list would stay dense, although layers inside would not.

    Args:
      layer: a layer or model without kernels of its own.
      inside: names of the prunable layers inside it.
    """
    if inside:
        raise ValueError(
            f"A list is pruned in the kernels that its layers have themselves, but those of "
            f"{layer.name!r} ({type(layer).__name__}) are in layers inside it: {listed(inside)}. "
            "Give it to tf_movprune.prune_low_movement by itself."
        )
