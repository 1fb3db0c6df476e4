"""Sparsity schedules: plain formulas, and the tfmot class over them."""

from __future__ import annotations

import numbers
from typing import Any

import tensorflow as tf

from tf_movprune.keras2.compat import PruningSchedule, registered_name


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
    """True every `frequency` steps from `begin` on, without an end. Shaped like `step`."""
    step = tf.cast(step, tf.int64)
    return (step >= begin) & ((step - begin) % frequency == 0)


def _check_step(name: str, value: Any, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return int(value)


def _check_value(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        reason = ": it is the fraction of zeros" if name.endswith("sparsity") else ""
        raise ValueError(f"{name} must be in [0, 1), got {value!r}{reason}.")
    return float(value)


class _Cubic(PruningSchedule):
    """A cubic ramp of a value, which goes on refreshing masks at its end."""

    schedule_value: str  # the name of the value
    begin_step: int
    end_step: int
    frequency: int

    @property
    def _initial(self) -> float:
        raise NotImplementedError

    @property
    def _final(self) -> float:
        raise NotImplementedError

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether masks are due at `step`, and the value there (float64)."""
        due = is_refresh_step(step, self.begin_step, self.frequency)
        if self._initial:  # holds from the first step on
            step = tf.cast(step, tf.int64)
            due |= (step < self.begin_step) & (step % self.frequency == 0)
        return due, cubic(step, self._initial, self._final, self.begin_step, self.end_step)

    def get_config(self) -> dict[str, Any]:
        """In tfmot's form: the registered name of the class, and its arguments."""
        return {"class_name": registered_name(type(self)), "config": dict(vars(self))}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Accepts what `get_config` gives, and the arguments alone."""
        return cls(**config.get("config", config))

    def _check(self) -> None:
        name = self.schedule_value
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


class CubicSparsity(_Cubic):
    """Raises the sparsity along a cubic curve, and keeps refreshing the masks at its end.

    `initial_sparsity` up to `begin_step`, `final_sparsity` from `end_step` on; see `cubic`. After
    `end_step` the target stays, but scores keep moving and masks keep being recomputed, until
    training ends. The reference's cool-down is `end_step = num_train_steps - cool_down_steps`.

    Args:
      final_sparsity: fraction of zeros at the end, in [0, 1).
      begin_step: optimizer step at which pruning starts, at least 0.
      end_step: optimizer step at which `final_sparsity` is reached, greater than `begin_step`.
      initial_sparsity: fraction of zeros up to `begin_step`, in [0, final_sparsity].
      frequency: steps from one refresh of the masks to the next, at most
        `end_step - begin_step`.

    Raises:
      ValueError: an argument is out of its range.
    """

    schedule_value = "sparsity"

    def __init__(
        self,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        initial_sparsity: float = 0.0,
        frequency: int = 1,
    ):
        self.final_sparsity = _check_value("final_sparsity", final_sparsity)
        self.begin_step = _check_step("begin_step", begin_step, minimum=0)
        self.end_step = _check_step("end_step", end_step, minimum=0)
        self.initial_sparsity = _check_value("initial_sparsity", initial_sparsity)
        self.frequency = _check_step("frequency", frequency, minimum=1)
        self._check()

    @property
    def _initial(self) -> float:
        return self.initial_sparsity

    @property
    def _final(self) -> float:
        return self.final_sparsity


class CubicThreshold(_Cubic):
    """Raises the threshold of `SoftMovement` along the cubic curve of `CubicSparsity`.

    The penalty of `SoftMovement` rises with it. What sparsity results is not set here.

    Args:
      final_threshold: on the sigmoid of the scores, in (0, 1).
      begin_step: optimizer step at which pruning starts, at least 0.
      end_step: optimizer step at which `final_threshold` is reached, greater than `begin_step`.
      initial_threshold: up to `begin_step`, in [0, final_threshold].
      frequency: steps from one refresh of masks and penalty to the next, at most
        `end_step - begin_step`.

    Raises:
      ValueError: an argument is out of its range.
    """

    schedule_value = "threshold"

    def __init__(
        self,
        final_threshold: float = 0.1,
        begin_step: int | None = None,
        end_step: int | None = None,
        initial_threshold: float = 0.0,
        frequency: int = 1,
    ):
        self.final_threshold = _check_value("final_threshold", final_threshold)
        self.begin_step = _check_step("begin_step", begin_step, minimum=0)
        self.end_step = _check_step("end_step", end_step, minimum=0)
        self.initial_threshold = _check_value("initial_threshold", initial_threshold)
        self.frequency = _check_step("frequency", frequency, minimum=1)
        self._check()
        if not self.final_threshold:
            raise ValueError("final_threshold must be greater than 0: nothing would be pruned.")

    @property
    def _initial(self) -> float:
        return self.initial_threshold

    @property
    def _final(self) -> float:
        return self.final_threshold


class EveryStep(PruningSchedule):
    """Of methods that take no schedule, such as `L0`: masks are due at every step."""

    schedule_value = None
    begin_step = 0
    end_step = -1

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """True, and 1."""
        return tf.fill(tf.shape(step), True), tf.ones(tf.shape(step), tf.float64)

    def get_config(self) -> dict[str, Any]:
        return {"class_name": registered_name(type(self)), "config": {}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EveryStep:
        return cls()


def value_name(schedule: PruningSchedule) -> str | None:
    """What a schedule's value is: its `schedule_value`, or `"sparsity"`, as of all of tfmot's."""
    return getattr(schedule, "schedule_value", "sparsity")


def value_at(schedule: PruningSchedule, step: int) -> float:
    """The value of a schedule at a step."""
    with tf.init_scope():
        return float(tf.convert_to_tensor(schedule(tf.constant(step, tf.int64))[1]).numpy())


def end_of(schedule: PruningSchedule) -> int | None:
    """The step at which a schedule reaches its final value; None where it does not tell."""
    end = getattr(schedule, "end_step", None)
    return end if end is None else max(getattr(schedule, "begin_step", 0), end)


def final_value(schedule: PruningSchedule) -> float | None:
    """The value that a schedule reaches; None where it does not tell."""
    end = end_of(schedule)
    return end if end is None else value_at(schedule, end)
