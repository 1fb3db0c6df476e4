"""Sparsity schedules: plain formulas, and the tfmot class over them."""

from __future__ import annotations

import numbers
from typing import Any

import tensorflow as tf

from tf_movprune._keras import PruningSchedule, registered_name


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
    """A cubic ramp of a value from [0, 1), which goes on refreshing masks at its end."""

    _value: str  # the name of the value

    def __init__(
        self, final: float, begin_step: int, end_step: int, initial: float, frequency: int
    ):
        first, last = f"initial_{self._value}", f"final_{self._value}"
        setattr(self, last, _check_value(last, final))
        self.begin_step = _check_step("begin_step", begin_step, minimum=0)
        self.end_step = _check_step("end_step", end_step, minimum=0)
        setattr(self, first, _check_value(first, initial))
        self.frequency = _check_step("frequency", frequency, minimum=1)
        if initial > final:
            raise ValueError(
                f"{first} must be at most {last}, got {initial} and {final}: {self._value} only "
                "rises."
            )
        if self.end_step <= self.begin_step:
            raise ValueError(
                f"end_step must be greater than begin_step, got begin_step={begin_step} and "
                f"end_step={end_step}. Raise end_step, or start earlier."
            )
        if self.frequency > self.end_step - self.begin_step:
            raise ValueError(
                f"frequency must be at most end_step - begin_step = "
                f"{self.end_step - self.begin_step}, got {frequency}: the masks would never be "
                f"refreshed on the way up."
            )

    @property
    def _ends(self) -> tuple[float, float]:
        return getattr(self, f"initial_{self._value}"), getattr(self, f"final_{self._value}")

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether masks are due at `step`, and the value there (float64)."""
        due = is_refresh_step(step, self.begin_step, self.frequency)
        initial, final = self._ends
        if initial:  # holds from the first step on
            step = tf.cast(step, tf.int64)
            due |= (step < self.begin_step) & (step % self.frequency == 0)
        return due, cubic(step, initial, final, self.begin_step, self.end_step)

    def get_config(self) -> dict[str, Any]:
        """In tfmot's form: the registered name of the class, and its arguments."""
        return {
            "class_name": registered_name(type(self)),
            "config": {
                f"final_{self._value}": self._ends[1],
                "begin_step": self.begin_step,
                "end_step": self.end_step,
                f"initial_{self._value}": self._ends[0],
                "frequency": self.frequency,
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Accepts what `get_config` gives, and the arguments alone."""
        return cls(**config.get("config", config))


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

    _value = "sparsity"

    def __init__(
        self,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        initial_sparsity: float = 0.0,
        frequency: int = 1,
    ):
        super().__init__(final_sparsity, begin_step, end_step, initial_sparsity, frequency)


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

    _value = "threshold"

    def __init__(
        self,
        final_threshold: float = 0.1,
        begin_step: int = 0,
        end_step: int = 0,
        initial_threshold: float = 0.0,
        frequency: int = 1,
    ):
        super().__init__(final_threshold, begin_step, end_step, initial_threshold, frequency)
        if not final_threshold:
            raise ValueError("final_threshold must be greater than 0: nothing would be pruned.")


class EveryStep(PruningSchedule):
    """Of methods that take no schedule, such as `L0`: masks are due at every step."""

    _value = None
    begin_step = 0

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """True, and 1."""
        return tf.fill(tf.shape(step), True), tf.ones(tf.shape(step), tf.float64)

    def get_config(self) -> dict[str, Any]:
        return {"class_name": registered_name(type(self)), "config": {}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EveryStep:
        return cls()


def value_name(schedule: PruningSchedule) -> str | None:
    """What a schedule's value is: `"sparsity"`, also of tfmot's own, `"threshold"`, or None."""
    return getattr(schedule, "_value", "sparsity")


def value_at(schedule: PruningSchedule, step: int) -> float:
    """The value of a schedule at a step."""
    with tf.init_scope():
        return float(tf.convert_to_tensor(schedule(tf.constant(step, tf.int64))[1]).numpy())


def final_value(schedule: PruningSchedule) -> float:
    """The value that a schedule reaches."""
    return value_at(schedule, end_of(schedule))


def end_of(schedule: PruningSchedule) -> int:
    """The step at which a schedule reaches its final value."""
    return max(getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", -1))
