"""The interface of a pruning method."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf


class PruningMethod(abc.ABC):
    """A rule for pruning the matrices of a model, without state of its own.

    A method defines three things: the importance of each weight, which weights stay, and how a mask
    acts on its kernel in the forward and the backward pass. It may add a fourth: a penalty on
    scores. A layer's wrapper owns the variables.
    """

    has_scores: ClassVar[bool]
    """True if each matrix has trainable scores."""

    has_penalty: ClassVar[bool] = False
    """True if training adds `penalty` of the scores to the loss, times `penalty_weight`."""

    keeps_zeros: ClassVar[bool] = False
    """True if masks are chosen once, when a model is pruned, as the zeros that it has then."""

    has_noise: ClassVar[bool] = False
    """True if `mask_kernel` draws random numbers in training."""

    score_initializer: Any = "zeros"
    """Initial scores, if there are any: a number, a Keras initializer, or an object that has
    `from_kernel(kernel)`."""

    score_learning_rate_multiplier: ClassVar[float] = 1.0
    """Default learning rate of the scores over the optimizer's; see `prune_low_movement`."""

    @property
    def schedule_value(self) -> str | None:
        """Name of the schedule's value: `"sparsity"`, `"threshold"`, or None without a schedule."""
        return "sparsity"

    @abc.abstractmethod
    def importance(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, block_size: tuple[int, int]
    ) -> tf.Tensor:
        """Importance of each block of a matrix.

        Args:
          kernel: float32 tensor, the unmasked weights.
          scores: float32 tensor with one entry for each block, or None if `has_scores` is false.
          block_size: rows and columns of a block.

        Returns:
          float32 tensor with one entry for each block; larger is kept longer.
        """

    @abc.abstractmethod
    def select(
        self, importances: Sequence[tf.Tensor], value: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Chooses the masks of all matrices that share a schedule.

        Args:
          importances: one float32 tensor for each matrix.
          value: scalar, the schedule's value at this step; see `schedule_value`.

        Returns:
          One pair for each matrix: its bool mask, and its threshold as a float32 scalar.
        """

    @abc.abstractmethod
    def mask_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor | None,
        mask: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the kernel that the layer computes with.

        `kernel`, `scores` and `mask` have the kernel's shape. `seed`, an int64 tensor of shape
        [2], is given in training if `has_noise`.
        """

    def penalty(self, scores: tf.Tensor) -> tf.Tensor:
        """Mean penalty on the scores of a matrix, if `has_penalty`: float32 scalar."""
        raise NotImplementedError

    def penalty_weight(self, progress: tf.Tensor) -> tf.Tensor:
        """Factor of the mean of `penalty` over matrices, if `has_penalty`.

        Args:
          progress: scalar, the schedule's value over its final value.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor: the fields of a dataclass. Other classes override it."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningMethod:
        return cls(**config)
