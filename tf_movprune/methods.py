"""Pruning methods: how importance becomes a mask, and what the gradient of the mask is."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_movprune import masks


class PruningMethod(abc.ABC):
    """How the matrices of a model are pruned. Stateless; a layer's wrapper owns the variables.

    A method says three things: the importance of each weight, which weights stay, and how a mask
    acts on its kernel in the forward and the backward pass.
    """

    has_scores: ClassVar[bool]
    """Whether each matrix has trainable scores."""

    score_initializer: Any = "zeros"
    """Start of the scores, where there are any: a Keras initializer, or an object that has
    `from_kernel(kernel)`."""

    score_learning_rate_multiplier: ClassVar[float] = 1.0
    """Default rate of the scores over the optimizer's; see `prune_low_movement`."""

    @abc.abstractmethod
    def importance(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, block_size: tuple[int, int]
    ) -> tf.Tensor:
        """Importance of each block of a matrix.

        Args:
          kernel: float32 tensor, the unmasked weights.
          scores: float32 tensor with one entry to a block, or None where `has_scores` is false.
          block_size: rows and columns of a block.

        Returns:
          float32 tensor with one entry to a block; larger is kept longer.
        """

    def select(
        self, importances: Sequence[tf.Tensor], sparsity: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Masks of all matrices that share a schedule.

        Here every matrix by itself reaches exactly the sparsity that is asked for.

        Args:
          importances: one float32 tensor to a matrix.
          sparsity: scalar in [0, 1], what the schedule says for this step.

        Returns:
          For each matrix its bool mask, and its threshold: a float32 scalar.
        """
        return [
            masks.topk_mask(importance, masks.kept_count(importance.shape.num_elements(), sparsity))
            for importance in importances
        ]

    @abc.abstractmethod
    def mask_kernel(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, mask: tf.Tensor
    ) -> tf.Tensor:
        """The kernel that the layer computes with. All arguments have the kernel's shape."""

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor. The fields, of a dataclass; others override this."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningMethod:
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class MagnitudeScores:
    """Initial movement scores in the order of the weights' magnitudes.

    `scale * |W| / mean(|W|)`, for each matrix, taken when the layer is wrapped. Movement then
    overrules magnitude where it has gathered evidence, so that the first cuts of a short run do
    not fall on scores that are still noise. With `block_size`, the mean of each block.

    Args:
      scale: initial score of a weight of average magnitude, greater than 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be greater than 0, got {self.scale}.")

    def from_kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """Scores of a float32 `kernel`, of the same shape."""
        magnitude = tf.abs(kernel)
        return self.scale * tf.math.divide_no_nan(magnitude, tf.reduce_mean(magnitude))

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MagnitudeScores:
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class HardMovement(PruningMethod):
    """Hard movement pruning: each matrix keeps the weights with the highest movement scores.

    A score gathers `-dL/dW * W` over training: it grows where the weight moves away from zero.
    The gradient is straight-through, so masked weights can come back. Only the order of the scores
    counts: from a start at zero their learning rate does not matter.

    Args:
      score_initializer: any Keras initializer, by name or object, or `MagnitudeScores`. The paper
        starts from zeros, which needs thousands of dense steps before the first cut.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, sections 3 and 4.
    """

    score_initializer: Any = "zeros"

    has_scores: ClassVar[bool] = True

    def importance(self, kernel, scores, block_size):
        return scores

    def mask_kernel(self, kernel, scores, mask):
        return masks.straight_through(kernel, scores, mask)


@dataclasses.dataclass(frozen=True)
class Magnitude(PruningMethod):
    """Magnitude pruning: each matrix keeps its largest weights in absolute value.

    The baseline, in the same harness: chosen anew at each refresh, from weights that masking has
    not overwritten. Masked weights get no gradient. With `block_size`, by the mean of each block.

    Reference:
      Zhu & Gupta (2017), https://arxiv.org/abs/1710.01878.
    """

    has_scores: ClassVar[bool] = False

    def importance(self, kernel, scores, block_size):
        return masks.mean_blocks(tf.abs(kernel), block_size)

    def mask_kernel(self, kernel, scores, mask):
        return masks.apply_mask(kernel, mask)
