"""The reference's learning rate, and which of its variables decay."""

from __future__ import annotations

import tensorflow as tf

from tf_movprune.core.arguments import check_integer, check_number
from tf_movprune.core.scores import SCORES_NAME
from tf_movprune.core.variable_names import last_name

_NO_DECAY = frozenset({SCORES_NAME, "bias", "gamma", "beta", "scale"})


def decays(name: str, rank: int) -> bool:
    """Returns whether weight decay takes in a variable: all but scores, biases and normalisations.

    Normalisations are vectors under various names, such as `weight` in T5, unless they span
    several axes. Biases of attention have two axes.

    Args:
      name: name of the variable.
      rank: number of its axes.
    """
    return rank > 1 and last_name(name) not in _NO_DECAY


def check_warmup(
    learning_rate: float, num_train_steps: int, num_warmup_steps: int
) -> tuple[float, int, int]:
    """Returns the arguments of a rate with warm-up as Python numbers.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: `learning_rate` is not greater than 0, or not 0 <= `num_warmup_steps` <
        `num_train_steps`.
    """
    peak = check_number("learning_rate", learning_rate, example=3e-5, above=0)
    num_train_steps = check_integer("num_train_steps", num_train_steps, example=1500)
    num_warmup_steps = check_integer("num_warmup_steps", num_warmup_steps, example=150)
    if not 0 <= num_warmup_steps < num_train_steps:
        raise ValueError(
            "num_warmup_steps must be at least 0 and less than num_train_steps, got "
            f"{num_warmup_steps} and {num_train_steps}."
        )
    return peak, num_train_steps, num_warmup_steps


def linear_warmup_decay(
    step: tf.Tensor | int, peak: float, num_train_steps: int, num_warmup_steps: int
) -> tf.Tensor:
    """The rate at a step, which rises linearly to its peak and falls linearly to 0.

        peak * step / num_warmup_steps                                     step < num_warmup_steps
        peak * (num_train_steps - step) / (num_train_steps - num_warmup_steps)     from there on
        0                                                                  step >= num_train_steps

    Args:
      step: integer scalar, the number of steps taken.
      peak: rate at the end of warm-up.
      num_train_steps: steps of the whole training.
      num_warmup_steps: steps of warm-up, less than `num_train_steps`.

    Returns:
      float32 scalar.
    """
    step = tf.cast(step, tf.float32)
    up = step / max(num_warmup_steps, 1)
    down = (num_train_steps - step) / (num_train_steps - num_warmup_steps)
    return peak * tf.where(step < num_warmup_steps, up, tf.maximum(down, 0.0))
