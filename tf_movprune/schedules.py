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


def _check_sparsity(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}: it is the fraction of zeros.")
    return float(value)


class CubicSparsity(PruningSchedule):
    """Raises the sparsity along a cubic curve, and keeps refreshing the masks at its end.

    `initial_sparsity` up to `begin_step`, `final_sparsity` from `end_step` on; see `cubic`. After
    `end_step` the target stays, but scores keep moving and masks keep being recomputed, until
    training ends. The reference's cool-down is `end_step = num_train_steps - cool_down_steps`.

    Args:
      final_sparsity: fraction of zeros at the end, in [0, 1).
      begin_step: optimizer step at which pruning starts, at least 0.
      end_step: optimizer step at which `final_sparsity` is reached, greater than `begin_step`.
      initial_sparsity: fraction of zeros at `begin_step`, in [0, final_sparsity].
      frequency: steps from one refresh of the masks to the next, at most
        `end_step - begin_step`.

    Raises:
      ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        initial_sparsity: float = 0.0,
        frequency: int = 1,
    ):
        self.final_sparsity = _check_sparsity("final_sparsity", final_sparsity)
        self.begin_step = _check_step("begin_step", begin_step, minimum=0)
        self.end_step = _check_step("end_step", end_step, minimum=0)
        self.initial_sparsity = _check_sparsity("initial_sparsity", initial_sparsity)
        self.frequency = _check_step("frequency", frequency, minimum=1)
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(
                f"initial_sparsity must be at most final_sparsity, got {initial_sparsity} and "
                f"{final_sparsity}: sparsity only rises."
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

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether masks are due at `step`, and the sparsity there (float64)."""
        return (
            is_refresh_step(step, self.begin_step, self.frequency),
            cubic(step, self.initial_sparsity, self.final_sparsity, self.begin_step, self.end_step),
        )

    def get_config(self) -> dict[str, Any]:
        """In tfmot's form: the registered name of the class, and its arguments."""
        return {
            "class_name": registered_name(type(self)),
            "config": {
                "final_sparsity": self.final_sparsity,
                "begin_step": self.begin_step,
                "end_step": self.end_step,
                "initial_sparsity": self.initial_sparsity,
                "frequency": self.frequency,
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CubicSparsity:
        """Accepts what `get_config` gives, and the arguments alone."""
        return cls(**config.get("config", config))
