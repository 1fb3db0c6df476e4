"""Warnings of pruned layers that a training loop of one's own passed by."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tf_movprune.core.kernel_usage import KernelUsage
from tf_movprune.core.user_warnings import warn


def warn_if_not_called(name: str, usages: Sequence[KernelUsage], weight: tf.Variable) -> None:
    """Warns if weights were trained between two updates of masks without calling pruned layers.

    Args:
      name: name of the model.
      usages: usages of all its pruned layers.
      weight: a masked weight of the first of them.
    """
    first, *others = usages
    if not any(usage.may_have_trained for usage in others) and first.was_passed_by(weight):
        warn(
            f"The weights of {name!r} were trained without calling its pruned layers: the masks "
            "have no effect. A function that was traced before pruning (tf.function) goes on "
            "computing without them: make it after tf_movprune.prune_low_movement."
        )


def warn_if_left_out(name: str, usages: Sequence[KernelUsage]) -> None:
    """Warns of pruned layers that training did not call, while it called others."""
    unused = [usage.layer for usage in usages if not usage.was_called]
    if 0 < len(unused) < len(usages):
        warn(
            f"{name!r} was trained without calling its pruned layers {', '.join(unused)}: their "
            "masks had no effect, and stripping changes what the model computes. Functions that "
            "were traced before pruning (tf.function) have to be made after it."
        )
