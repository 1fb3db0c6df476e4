"""How a layer is to be pruned, and what can be wrong with it."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

from tf_movprune.core.arguments import check_number
from tf_movprune.core.methods import PruningMethod
from tf_movprune.core.schedules import end_of, value_name
from tf_movprune.keras2.compat import PruningSchedule
from tf_movprune.keras2.serialization import serialize_method, serialize_schedule


class Settings(NamedTuple):
    """How a layer is to be pruned."""

    schedule: PruningSchedule | None
    method: PruningMethod
    block_size: Any

    def __str__(self) -> str:
        names = (type(value).__name__ for value in (self.method, self.schedule))
        return f"{self.block_size!r} with {' and '.join(names)}"

    @property
    def key(self) -> str:
        """Equal where the settings are."""
        schedule = None if self.schedule is None else serialize_schedule(self.schedule)
        return repr([schedule, serialize_method(self.method), self.block_size])


def check_settings(schedule: Any, method: Any, multiplier: Any) -> None:
    """Raises TypeError or ValueError where a schedule, a method and a score rate cannot be used."""
    if not isinstance(schedule, PruningSchedule):
        raise TypeError(
            "pruning_schedule must be a PruningSchedule, such as "
            f"tf_movprune.CubicSparsity(0.9, begin_step=200, end_step=1800), got {schedule!r}."
        )
    if not isinstance(method, PruningMethod):
        raise TypeError(
            "method must be an object such as tf_movprune.HardMovement() or "
            f"tf_movprune.Magnitude(), got {method!r}."
        )
    if value_name(schedule) != method.schedule_value:
        raise ValueError(_mismatch(schedule, method))
    if method.has_penalty and end_of(schedule) is None:
        raise ValueError(
            f"The penalty of {type(method).__name__} rises until the schedule ends, but "
            f"{type(schedule).__name__} has no end_step. Give it one."
        )
    if not check_number("score_learning_rate_multiplier", multiplier, example=1.0) > 0:
        raise ValueError(
            f"score_learning_rate_multiplier must be greater than 0, got {multiplier}."
        )


def check_block_size(block_size: Any, method: PruningMethod, *, is_shared: bool) -> None:
    """Raises TypeError or ValueError. `is_shared` of heads and neurons: their size is their own."""
    if is_shared:
        if method.has_noise:
            raise ValueError(
                f"{type(method).__name__} cannot prune {block_size}: its gates are drawn anew for "
                "each matrix. Use tf_movprune.HardMovement, SoftMovement or Magnitude."
            )
        return
    expected = (
        "block_size must be two integers of at least 1, the rows and columns of a block, such as "
        "(4, 4), or for models tf_movprune.HEADS, tf_movprune.NEURONS or a mapping from path "
        f"patterns, got {block_size!r}."
    )
    if not isinstance(block_size, (tuple, list)) or len(block_size) != 2:
        raise TypeError(expected)
    if not all(isinstance(size, numbers.Integral) for size in block_size):
        raise TypeError(expected)
    if min(block_size) < 1:
        raise ValueError(expected)


def _mismatch(schedule: PruningSchedule, method: PruningMethod) -> str:
    received = f"{type(method).__name__} with {type(schedule).__name__}"
    if method.schedule_value is None:
        return f"{type(method).__name__} takes no schedule, got {received}. Leave it out."
    if method.schedule_value == "threshold":
        return (
            f"Soft movement needs a threshold schedule, got {received}. Use tf_movprune."
            "CubicThreshold, or say with SoftMovement(target=True) that the schedule is the "
            "overall sparsity to reach."
        )
    return (
        f"A sparsity schedule is needed, got {received}. Use a schedule such as "
        "tf_movprune.CubicSparsity, or the method tf_movprune.SoftMovement()."
    )
