"""Settings of a pruned kernel, and their assignment to a model's layers by path."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_movprune.core.arguments import check_number
from tf_movprune.core.granularity import WEIGHTS, Blocks, Units, check_block_size
from tf_movprune.core.methods import HardMovement
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.schedules import EveryStep, FixedMasks, PruningSchedule, Ramp
from tf_movprune.core.scores import ScoreScale
from tf_movprune.core.wording import listed, numbered_as_one


@dataclasses.dataclass(frozen=True)
class Settings:
    """Schedule, method, granularity and score rate with which a kernel is pruned.

    Args:
      schedule: a `PruningSchedule` of the library or of tfmot; None for methods that take none.
      method: a `PruningMethod`; `HardMovement()` if None.
      block_size: two integers, `Blocks`, `HEADS` or `NEURONS`.
      score_learning_rate_multiplier: the method's own if None.

    Raises:
      TypeError: a value is not of its type.
      ValueError: a value is out of range, or the values do not go together.
    """

    schedule: Any = None
    method: Any = None
    block_size: Any = WEIGHTS
    score_learning_rate_multiplier: float | None = None

    def __post_init__(self) -> None:
        method = HardMovement() if self.method is None else self.method
        check_method(method)
        schedule = self.schedule
        if schedule is None and method.schedule_value is None:
            schedule = FixedMasks() if method.keeps_zeros else EveryStep()
        check_schedule_type(schedule)
        multiplier = self.score_learning_rate_multiplier
        if multiplier is None:
            multiplier = method.score_learning_rate_multiplier
        values = {
            "schedule": schedule,
            "method": method,
            "block_size": check_block_size(self.block_size),
            "score_learning_rate_multiplier": check_number(
                "score_learning_rate_multiplier", multiplier, example=1.0, above=0
            ),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check_together(self.ramp, method, self.block_size)

    def __str__(self) -> str:
        names = (type(value).__name__ for value in (self.method, self.schedule))
        return f"{self.block_size!r} with {' and '.join(names)}"

    @property
    def ramp(self) -> Ramp:
        return Ramp.of(self.schedule)

    @property
    def score_scale(self) -> ScoreScale:
        return ScoreScale(self.score_learning_rate_multiplier)  # type: ignore[arg-type]

    @property
    def key(self) -> str:
        """Text that is equal for equal settings, whose kernels are selected together."""
        return repr([config_of(self.schedule), config_of(self.method), self.block_size])


def config_of(value: Any) -> Any:
    """The class of an object and its configuration, with the objects in it."""
    if not hasattr(value, "get_config"):
        return value
    config = value.get_config()
    return type(value), {name: config_of(item) for name, item in sorted(config.items())}


def check_method(method: Any) -> None:
    """Raises TypeError if `method` is not a `PruningMethod`."""
    if not isinstance(method, PruningMethod):
        raise TypeError(
            "method must be an object such as tf_movprune.HardMovement() or "
            f"tf_movprune.Magnitude(), or for models a mapping from path patterns to such; got "
            f"{method!r}."
        )


def check_schedule_type(schedule: Any) -> None:
    """Raises TypeError if `schedule` is not a `PruningSchedule`."""
    if not isinstance(schedule, PruningSchedule):
        raise TypeError(
            "pruning_schedule must be a PruningSchedule, such as tf_movprune.CubicSparsity(0.9, "
            "begin_step=200, end_step=1800), or for models a mapping from path patterns to such; "
            f"got {schedule!r}."
        )


def _check_together(ramp: Ramp, method: PruningMethod, block_size: Blocks | Units) -> None:
    if ramp.value_name != method.schedule_value or ramp.is_fixed != method.keeps_zeros:
        raise ValueError(_mismatch(ramp.schedule, method))
    if method.has_penalty and ramp.final_step is None:
        raise ValueError(
            f"The penalty of {type(method).__name__} rises until the schedule ends, but "
            f"{type(ramp.schedule).__name__} has no end_step. Give it one."
        )
    if isinstance(block_size, Units) and method.has_noise:
        raise ValueError(
            f"{type(method).__name__} cannot prune {block_size}: its gates are drawn anew for "
            "each matrix. Use tf_movprune.HardMovement, SoftMovement or Magnitude."
        )


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


def resolve(
    paths: Iterable[str],
    schedule: Any,
    method: Any,
    block_size: Any,
    score_learning_rate_multiplier: float | None = None,
    left_out: Iterable[str] = (),
) -> dict[str, Settings]:
    """The settings of each layer that is to be pruned.

    Args:
      paths: paths of the layers that are pruned unless patterns say otherwise.
      schedule, method, block_size: one value for all, or a mapping from patterns over paths to
        values. Layers that no pattern of schedules or methods matches stay dense, and those that
        no pattern of block sizes matches are pruned weight by weight.
      score_learning_rate_multiplier: one value for all; the methods' own if None.
      left_out: paths of the layers that are pruned only if a pattern names them: one that matches
        none of `paths`. To all patterns such a layer is then like the others.

    Returns:
      Settings by path.

    Raises:
      TypeError: a value is not of its type.
      ValueError: a value is out of range, a pattern matches nothing or decides nothing, or no layer
        of a method, or of a pattern that names one of `left_out`, has a schedule.
    """
    paths, left_out = list(paths), list(left_out)
    named = _named(paths, left_out, (schedule, method, block_size))
    left_out = [path for path in left_out if path not in named]
    paths += named
    methods = by_path(paths, HardMovement() if method is None else method, "method", left_out)
    for value in methods.values():
        check_method(value)
    schedules = by_path(paths, schedule, "pruning_schedule", left_out)
    if isinstance(method, Mapping):  # one schedule serves those methods that take one
        schedules = {
            path: value
            for path, value in schedules.items()
            if path in methods and methods[path].schedule_value is not None
        }
    block_sizes = by_path(paths, block_size, "block_size", left_out)
    chosen = {
        path: Settings(
            schedules.get(path),
            value,
            block_sizes.get(path, WEIGHTS),
            score_learning_rate_multiplier,
        )
        for path, value in methods.items()
        if path in schedules or value.schedule_value is None
    }
    used = {id(settings.method) for settings in chosen.values()}
    for path, value in methods.items():
        if id(value) not in used:
            raise ValueError(
                f"{type(value).__name__} is the method of {path}, but no pattern of "
                "pruning_schedule matches any layer of that method. Add one."
            )
    for path in named:
        if path not in chosen:
            raise ValueError(
                f"A pattern names {path}, but no pattern of pruning_schedule and method matches "
                "it, so that it would stay dense. Add one."
            )
    if isinstance(block_size, Mapping):
        for pattern in block_size:
            if not _matching(chosen, pattern):
                raise ValueError(
                    f"block_size has the pattern {pattern!r}, but no layer that it matches is "
                    "pruned: no pattern of pruning_schedule and method matches one. Add one, or "
                    "leave the block size out."
                )
    return chosen


def _named(paths: Sequence[str], left_out: Sequence[str], values: Iterable[Any]) -> list[str]:
    """The paths of `left_out` that match a pattern which matches none of `paths`."""
    patterns = [pattern for value in values if isinstance(value, Mapping) for pattern in value]
    further = [pattern for pattern in patterns if not _matching(paths, pattern)]
    found = {path for pattern in further for path in _matching(left_out, pattern)}
    return [path for path in left_out if path in found]


def _matching(paths: Iterable[str], pattern: str) -> list[str]:
    return [path for path in paths if fnmatch.fnmatchcase(path, pattern)]


def by_path(
    paths: Iterable[str], value: Any, name: str, left_out: Iterable[str] = ()
) -> dict[str, Any]:
    """The value for each layer: the same, or that of the first pattern that matches its path.

    Args:
      paths: paths of layers.
      value: one value for all, or a mapping from patterns over paths to values.
      name: name of the argument that `value` is, for messages.
      left_out: paths of other layers that patterns could name, for messages.

    Returns:
      Values by path, for the layers that have one.

    Raises:
      TypeError: a pattern is not a string.
      ValueError: the mapping is empty, or a pattern matches nothing, or it comes after another that
        matches all that it matches; `"*"` may.
    """
    paths = list(paths)
    if not isinstance(value, Mapping):
        return {path: value for path in paths}
    if not value:
        raise ValueError(f"{name} is an empty mapping: nothing would be pruned.")
    for pattern in value:
        if not isinstance(pattern, str):
            raise TypeError(f"The patterns of {name} must be strings, got {pattern!r}.")
    matches = {pattern: _matching(paths, pattern) for pattern in value}
    for pattern, matched in matches.items():
        if not matched:
            raise ValueError(_no_match(pattern, name, paths, list(left_out)))
    seen: dict[str, set[str]] = {}
    for pattern, matched in matches.items():
        for earlier, others in seen.items():
            if others >= set(matched) and pattern != "*":  # which may be for none in this model
                both = others == set(matched)
                raise ValueError(
                    f"The pattern {pattern!r} in {name} decides nothing: {earlier!r} comes before "
                    "it and matches the same layers"
                    + (". Leave one of them out." if both else " and more. Put it first.")
                )
        seen[pattern] = set(matched)
    chosen: dict[str, Any] = {}
    for pattern, matched in matches.items():
        for path in matched:
            chosen.setdefault(path, value[pattern])
    return {path: chosen[path] for path in paths if path in chosen}


def _no_match(pattern: str, name: str, paths: Sequence[str], left_out: Sequence[str]) -> str:
    if nearest := difflib.get_close_matches(pattern, [*paths, *left_out], n=1, cutoff=0.8):
        hint = f" Did you mean {nearest[0]!r}?"
    else:
        hint = ""
    others = f". The default leaves out {listed(numbered_as_one(left_out))}" if left_out else ""
    return (
        f"The pattern {pattern!r} in {name} matches no prunable layer.{hint} The prunable layers "
        f"of this model are: {listed(numbered_as_one(paths), most=12)}{others}. Patterns match "
        "whole paths; `*` stands for any characters."
    )
