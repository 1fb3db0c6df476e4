"""Schedules: how much is pruned at which step."""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_fraction, check_integer


class PruningSchedule(abc.ABC):
    """Steps at which masks are due, and how much they prune then.

    The schedules of tensorflow-model-optimization count as subclasses unchanged.
    """

    @classmethod
    def __subclasshook__(cls, subclass: type) -> Any:
        is_tfmot = any(
            base.__name__ == "PruningSchedule" and base.__module__.startswith(_TFMOT)
            for base in subclass.__mro__
        )
        return True if cls is PruningSchedule and is_tfmot else NotImplemented

    @abc.abstractmethod
    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns whether masks are due at the int64 scalar `step`, and the schedule's value."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, or `{"class_name": ..., "config": arguments}`."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes a schedule from either form of `get_config`."""
        return cls(**config.get("config", config))


_TFMOT = "tensorflow_model_optimization."


def _default_name(cls: type) -> str:
    return f"tf_movprune>{cls.__name__}"


_registered_name: Callable[[type], str] = _default_name


def use_registry(registered_name: Callable[[type], str]) -> None:
    """Lets the registry of a shell name the classes in files, those of users included."""
    global _registered_name
    _registered_name = registered_name


def cubic(step: tf.Tensor, initial: float, final: float, begin: int, end: int) -> tf.Tensor:
    """Cubic ramp, steep at first and flat at the end.

        initial                                                      step <= begin
        final + (initial - final) * (1 - (step - begin) / (end - begin))^3
        final                                                        step >= end

    Args:
      step: integer tensor of any shape.

    Returns:
      float64 tensor of the shape of `step`.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 5.
    """
    progress = (tf.cast(step, tf.float64) - begin) / (end - begin)
    left = 1.0 - tf.clip_by_value(progress, 0.0, 1.0)
    return final + (initial - final) * left * left * left


def is_refresh_step(step: tf.Tensor, begin: int, frequency: int) -> tf.Tensor:
    """Returns whether masks are due: every `frequency` steps from `begin` on, without an end.

    The result is a bool tensor of the shape of `step`.
    """
    step = tf.cast(step, tf.int64)
    return (step >= begin) & ((step - begin) % frequency == 0)


class _Cubic(PruningSchedule):
    """A cubic ramp of a value, at whose end masks go on being refreshed until `freeze_step`."""

    schedule_value: str  # the name of the value
    begin_step: int
    end_step: int
    frequency: int
    freeze_step: int | None

    def __init__(
        self,
        initial: Any,
        final: Any,
        begin_step: Any,
        end_step: Any,
        frequency: Any,
        freeze_step: Any,
    ):
        name = self.schedule_value
        setattr(self, f"final_{name}", check_fraction(f"final_{name}", final))
        self.begin_step = check_integer("begin_step", begin_step, example=200, minimum=0)
        self.end_step = check_integer("end_step", end_step, example=1800, minimum=0)
        setattr(self, f"initial_{name}", check_fraction(f"initial_{name}", initial))
        self.frequency = check_integer("frequency", frequency, example=1, minimum=1)
        if self._initial > self._final:
            raise ValueError(
                f"initial_{name} must be at most final_{name}, got {self._initial} and "
                f"{self._final}: {name} only rises."
            )
        span = self.end_step - self.begin_step
        if span <= 0:
            raise ValueError(
                f"end_step must be greater than begin_step, got begin_step={self.begin_step} and "
                f"end_step={self.end_step}. Raise end_step, or start earlier."
            )
        if self.frequency > span:
            raise ValueError(
                f"frequency must be at most end_step - begin_step = {span}, got {self.frequency}: "
                "the masks would never be refreshed on the way up."
            )
        if freeze_step is not None:
            check_integer("freeze_step", freeze_step, example=1900, minimum=0)
            if freeze_step < self.end_step:
                raise ValueError(
                    f"freeze_step must be at least end_step, {self.end_step}, got {freeze_step}: "
                    f"masks that are fixed earlier never reach the final {name}."
                )
        self.freeze_step = freeze_step

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns whether masks are due at `step`, and the value there (float64)."""
        step = tf.cast(step, tf.int64)
        due = is_refresh_step(step, self.begin_step, self.frequency)
        if self._initial:  # it holds from the first step on
            due |= (step < self.begin_step) & (step % self.frequency == 0)
        if self.freeze_step is not None:
            due = (due & (step < self.freeze_step)) | (step == self.freeze_step)
        return due, cubic(step, self._initial, self._final, self.begin_step, self.end_step)

    def get_config(self) -> dict[str, Any]:
        """Configuration in tfmot's form: the registered name of the class, and its arguments."""
        return {"class_name": _registered_name(type(self)), "config": dict(vars(self))}

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters.values()
        values = [(p.name, vars(self).get(p.name, p.default), p.default) for p in parameters]
        given = (f"{name}={value!r}" for name, value, default in values if value != default)
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def _initial(self) -> float:
        return getattr(self, f"initial_{self.schedule_value}")

    @property
    def _final(self) -> float:
        return getattr(self, f"final_{self.schedule_value}")


class CubicSparsity(_Cubic):
    """Raises the sparsity along a cubic curve, and keeps refreshing the masks at its end.

    Sparsity is `initial_sparsity` up to `begin_step` and `final_sparsity` from `end_step` on; see
    `cubic`. After `end_step` the target stays, but scores keep moving and masks keep being
    recomputed until training ends, or until `freeze_step`. The reference's cool-down is
    `end_step = num_train_steps - cool_down_steps`.

    Args:
      final_sparsity: fraction of zeros at the end, in [0, 1).
      begin_step: optimizer step at which pruning starts, at least 0.
      end_step: optimizer step at which `final_sparsity` is reached, greater than `begin_step`.
      initial_sparsity: fraction of zeros up to `begin_step`, in [0, final_sparsity].
      frequency: steps from one refresh of the masks to the next, at most
        `end_step - begin_step`.
      freeze_step: optimizer step at which masks are refreshed a last time, at least `end_step`;
        None if they move until training ends. Scores go on learning, without effect.

    Raises:
      ValueError: an argument is out of its range.
    """

    schedule_value = "sparsity"
    final_sparsity: float
    initial_sparsity: float

    def __init__(
        self,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        initial_sparsity: float = 0.0,
        frequency: int = 1,
        freeze_step: int | None = None,
    ):
        super().__init__(
            initial_sparsity, final_sparsity, begin_step, end_step, frequency, freeze_step
        )


class CubicThreshold(_Cubic):
    """Raises the threshold of `SoftMovement` along the cubic curve of `CubicSparsity`.

    The penalty of `SoftMovement` rises with it. The resulting sparsity is not set here.

    Args:
      final_threshold: threshold on the sigmoid of the scores at the end, in (0, 1).
      begin_step: optimizer step at which pruning starts, at least 0.
      end_step: optimizer step at which `final_threshold` is reached, greater than `begin_step`.
      initial_threshold: threshold up to `begin_step`, in [0, final_threshold].
      frequency: steps from one refresh of masks and penalty to the next, at most
        `end_step - begin_step`.
      freeze_step: optimizer step at which masks and penalty are refreshed a last time, at least
        `end_step`; None if they move until training ends.

    Raises:
      ValueError: an argument is out of its range.
    """

    schedule_value = "threshold"
    final_threshold: float
    initial_threshold: float

    def __init__(
        self,
        final_threshold: float = 0.1,
        begin_step: int | None = None,
        end_step: int | None = None,
        initial_threshold: float = 0.0,
        frequency: int = 1,
        freeze_step: int | None = None,
    ):
        super().__init__(
            initial_threshold, final_threshold, begin_step, end_step, frequency, freeze_step
        )
        if not self._final:
            raise ValueError("final_threshold must be greater than 0: nothing would be pruned.")


class EveryStep(PruningSchedule):
    """Schedule of methods that take none, such as `L0`: masks are due at every step."""

    schedule_value = None
    begin_step = 0
    end_step = -1

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns true and 1, in the shape of `step`."""
        return tf.fill(tf.shape(step), True), tf.ones(tf.shape(step), tf.float64)

    def get_config(self) -> dict[str, Any]:
        return {}


class FixedMasks(PruningSchedule):
    """Schedule of methods whose masks are fixed from the start, `KeepZeros`: they are never due."""

    schedule_value = None
    begin_step = 0
    end_step = -1
    freeze_step = -1

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns false and 1, in the shape of `step`."""
        return tf.fill(tf.shape(step), False), tf.ones(tf.shape(step), tf.float64)

    def get_config(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Properties of a schedule, whoever wrote it.

    Attributes:
      schedule: the schedule itself.
      value_name: name of its value: `"sparsity"`, as in all schedules of tfmot, `"threshold"`, or
        None if it has none.
      begin_step: the first step at which masks may be due.
      end_step: the last step of the ramp; None if the schedule has none or does not tell.
      final_step: the step from which on the final value holds; None if the schedule does not tell.
      frequency: steps from one refresh to the next.
      last_step: the step after which masks are never due again; None if they are due for ever.
    """

    schedule: PruningSchedule
    value_name: str | None
    begin_step: int
    end_step: int | None
    final_step: int | None
    frequency: int
    last_step: int | None

    @classmethod
    def of(cls, schedule: PruningSchedule) -> Ramp:
        begin = int(getattr(schedule, "begin_step", 0))
        end = getattr(schedule, "end_step", None)
        frequency = int(getattr(schedule, "frequency", 1))
        return cls(
            schedule,
            value_name=getattr(schedule, "schedule_value", "sparsity"),
            begin_step=begin,
            end_step=None if end is None or end < 0 else int(end),  # -1 is no end in tfmot
            final_step=None if end is None else max(begin, int(end)),
            frequency=frequency,
            last_step=_last_step(schedule, begin, end, frequency),
        )

    @property
    def is_fixed(self) -> bool:
        """True if masks are never due, from the first step on."""
        return self.last_step is not None and self.last_step < 0

    def value_at(self, step: int) -> float:
        """The value of the schedule at a step."""
        with tf.init_scope():
            value = self.schedule(tf.constant(step, tf.int64))[1]
            return float(tf.convert_to_tensor(value).numpy())

    @functools.cached_property
    def final_value(self) -> float | None:
        """The value that the schedule reaches; None if it does not tell."""
        return None if self.final_step is None else self.value_at(self.final_step)


def _last_step(
    schedule: PruningSchedule, begin: int, end: int | None, frequency: int
) -> int | None:
    """The last step at which a schedule refreshes masks, if there is one."""
    freeze = getattr(schedule, "freeze_step", None)
    if freeze is not None:
        return int(freeze)
    if end is None or end < 0:
        return None
    turn = end + frequency - (end - begin) % frequency  # the next one, if there is any
    with tf.init_scope():
        fires = [schedule(tf.constant(step, tf.int64))[0] for step in (end + 1, turn)]
        return None if any(bool(tf.convert_to_tensor(x)) for x in fires) else int(end)
