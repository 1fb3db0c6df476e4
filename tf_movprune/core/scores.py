"""Movement scores: how they start, and at which rate they learn."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_number
from tf_movprune.core.blocks import mean_blocks
from tf_movprune.core.variable_names import last_name

MOVEMENT_PER_MAGNITUDE = 1e-3
"""The first score of an average weight over the peak rate of the scores, in short runs: so much
movement weighs as much as the magnitude of that weight."""

SCORES_NAME = "movement_scores"
"""Last part of the name of every score variable, by which optimizers know scores."""


def is_scores(variable: tf.Variable) -> bool:
    """Returns whether a variable holds movement scores."""
    return last_name(variable.name) == SCORES_NAME


@dataclasses.dataclass(frozen=True)
class ScoreScale:
    """The unit in which a variable counts scores, so that they learn at a rate of their own.

        scores      = multiplier * variable
        dL/dvariable = dL/dscores           handed on unscaled

    An optimizer step of a given size on the variable moves the scores `multiplier` times as far.
    The scores thus learn at `multiplier` times the optimizer's rate, whatever the optimizer, and a
    clip over all gradients sees that of the scores. All other code in the library deals in scores.

    Args:
      multiplier: learning rate of the scores over that of the optimizer, greater than 0.
    """

    multiplier: float = 1.0

    def to_variable(self, scores: tf.Tensor) -> tf.Tensor:
        """The value of a variable that stands for `scores`."""
        return scores / self.multiplier

    def to_scores(self, variable: tf.Variable | tf.Tensor) -> tf.Tensor:
        """The scores that a variable stands for."""

        @tf.custom_gradient
        def scaled(value: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return self.multiplier * value, lambda upstream: upstream

        return scaled(tf.convert_to_tensor(variable))

    def rate_for(self, score_rate: float) -> float:
        """The optimizer's learning rate at which the scores learn at `score_rate`."""
        return score_rate / self.multiplier


@dataclasses.dataclass(frozen=True)
class MagnitudeScores:
    """Initial movement scores in the order of the weights' magnitudes.

    Scores are `scale * |W| / mean(|W|)` for each matrix, taken when the layer is wrapped. Movement
    then overrules magnitude once it has gathered evidence, so that the first cuts of a short run do
    not fall on scores that are still noise. A block starts from the mean over its weights.

    Args:
      scale: initial score of a weight of average magnitude, greater than 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_number("scale", self.scale, example=1.0, above=0)

    def from_kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns scores of the shape of a float32 `kernel`."""
        magnitude = tf.abs(kernel)
        return self.scale * tf.math.divide_no_nan(magnitude, tf.reduce_mean(magnitude))

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MagnitudeScores:
        return cls(**config)


def check_initializer(value: Any) -> None:
    """Checks a `score_initializer`; whether Keras knows a name is seen when layers are pruned.

    Raises:
      TypeError: it is no number, initializer of Keras, name of one, or object with `from_kernel`.
      ValueError: it is a number that is not finite.
    """
    is_class = isinstance(value, type) and hasattr(value, "from_kernel")
    if not is_class and callable(getattr(value, "from_kernel", value)):
        return
    if isinstance(value, str | Mapping):
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            "score_initializer must be a number, a Keras initializer or its name, or an object "
            f"such as tf_movprune.MagnitudeScores(0.001), got {value!r}."
        )
    check_number("score_initializer", value, example=0.0)


def initial_scores(
    initializer: Any,
    shape: tuple[int, ...],
    weights: Callable[[], tf.Tensor],
    block_size: tuple[int, int],
    initializer_of: Callable[[Any], Callable[..., tf.Tensor]],
) -> tf.Tensor:
    """The first scores of a kernel.

    Args:
      initializer: a number, an object that has `from_kernel(kernel)`, or a name or object that
        `initializer_of` knows.
      shape: shape of the scores.
      weights: function that returns the kernel as a float32 tensor.
      block_size: rows and columns of the kernel for each score.
      initializer_of: function from a name or object to its initializer, called on shape and dtype.

    Returns:
      float32 tensor of `shape`.
    """
    if hasattr(initializer, "from_kernel"):
        scores = mean_blocks(initializer.from_kernel(weights()), block_size)
        return tf.reshape(scores, shape)
    if isinstance(initializer, numbers.Real):
        return tf.fill(shape, tf.cast(initializer, tf.float32))
    return initializer_of(initializer)(shape, tf.float32)
