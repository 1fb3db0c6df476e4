"""Pruning methods: how importance becomes a mask, and how gradients pass it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_movprune.core import masks
from tf_movprune.core.arguments import (
    check_boolean,
    check_choice,
    check_fraction,
    check_integer,
    check_number,
)
from tf_movprune.core.blocks import any_in_blocks, mean_blocks
from tf_movprune.core.counting import is_zero
from tf_movprune.core.hard_concrete import GATE_THRESHOLD, hard_concrete_gate, open_gate_probability
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.scores import check_initializer
from tf_movprune.core.straight_through import apply_mask, straight_through


class _ByScores(PruningMethod):
    """Ranks blocks by their scores."""

    def importance(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, block_size: tuple[int, int]
    ) -> tf.Tensor:
        return scores


class _Movement(_ByScores):
    """Trains masked weights and scores by the straight-through gradient."""

    def mask_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor | None,
        mask: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return straight_through(kernel, scores, mask)


class _Masked(PruningMethod):
    """Gives masked weights no gradient."""

    def mask_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor | None,
        mask: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return apply_mask(kernel, mask)


class _TopK(PruningMethod):
    """Keeps exactly the share of weights that the schedule asks for."""

    scope: str
    minimum_remaining: float | None

    def __post_init__(self) -> None:
        if self.has_scores:
            check_initializer(self.score_initializer)
        check_choice("scope", self.scope, ("local", "global"))
        if self.minimum_remaining is not None:
            check_fraction("minimum_remaining", self.minimum_remaining)

    def select(
        self, importances: Sequence[tf.Tensor], value: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        sizes = [importance.shape.num_elements() for importance in importances]
        if self.minimum_remaining is None:
            minimums = [1] * len(sizes)
        else:
            minimums = [masks.minimum_count(size, self.minimum_remaining) for size in sizes]
        if self.scope == "global":
            count = masks.kept_count(sum(sizes), value)
            chosen, threshold = masks.global_topk_masks(importances, count, minimums)
            return [(mask, threshold) for mask in chosen]
        counts = tf.maximum(masks.kept_count(sizes, value), minimums)
        chosen, thresholds = masks.topk_masks(importances, counts)
        return list(zip(chosen, tf.unstack(thresholds)))


@dataclasses.dataclass(frozen=True)
class HardMovement(_Movement, _TopK):
    """Hard movement pruning: the weights with the highest movement scores stay.

    A score gathers `-dL/dW * W` over training: it grows while the weight moves away from zero.
    The gradient is straight-through, so masked weights can come back. Masks depend on the order of
    the scores alone: if scores start at zero, their learning rate does not matter.

    Args:
      score_initializer: a number, a Keras initializer by name or as an object, or
        `MagnitudeScores`. The paper starts from zeros, which needs thousands of dense steps before
        the first cut.
      scope: `"local"` if each matrix reaches the sparsity by itself, `"global"` if all matrices
        that share a schedule reach it together, with one threshold.
      minimum_remaining: fraction of each matrix that stays in any case, in [0, 1); None for a
        single weight or block.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, sections 3 and 4.
    """

    score_initializer: Any = "zeros"
    scope: str = "local"
    minimum_remaining: float | None = None

    has_scores: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Magnitude(_Masked, _TopK):
    """Magnitude pruning: the weights that are largest in absolute value stay.

    This is the baseline in the same harness: masks are chosen anew at each refresh, from weights
    that masking has not overwritten. Masked weights get no gradient. Blocks are ranked by the mean
    magnitude of their weights.

    Args:
      scope: `"local"` if each matrix reaches the sparsity by itself, `"global"` if all matrices
        that share a schedule reach it together, with one threshold.
      minimum_remaining: fraction of each matrix that stays in any case, in [0, 1); None for a
        single weight or block.

    Reference:
      Zhu & Gupta (2017), https://arxiv.org/abs/1710.01878.
    """

    scope: str = "local"
    minimum_remaining: float | None = None

    has_scores: ClassVar[bool] = False

    def importance(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, block_size: tuple[int, int]
    ) -> tf.Tensor:
        return mean_blocks(tf.abs(kernel), block_size)


@dataclasses.dataclass(frozen=True)
class KeepZeros(_Masked):
    """Trains a sparse model and keeps its zeros: those that weights have when it is pruned.

        mask = (W != 0) at the time of pruning

    It is for fine-tuning a published sparse model on data of one's own, and for training on with
    what `strip_pruning` returned. There are no scores and there is no schedule: masks are right as
    soon as the model is pruned, and never change. Weights that become zero later are trained on.
    Masked weights get no gradient.

    Blocks, heads and neurons are masked if all their weights and biases are zero. Pruning is
    refused if others have zeros too, which would come back, and if no weight is zero. Masks of
    single weights, the default, keep all zeros.

    Reference:
      Zafrir et al. (2021), https://arxiv.org/abs/2111.05754, where it is called pattern-lock.
    """

    has_scores: ClassVar[bool] = False
    keeps_zeros: ClassVar[bool] = True

    @property
    def schedule_value(self) -> None:
        return None

    def importance(
        self, kernel: tf.Tensor, scores: tf.Tensor | None, block_size: tuple[int, int]
    ) -> tf.Tensor:
        """1 for blocks with a weight that is not zero, and 0 for others."""
        return tf.cast(any_in_blocks(~is_zero(kernel), block_size), tf.float32)

    def select(
        self, importances: Sequence[tf.Tensor], value: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        return [(importance > 0, tf.ones([])) for importance in importances]


@dataclasses.dataclass(frozen=True)
class SoftMovement(_Movement):
    """Soft movement pruning: weights stay while their score is above a threshold that rises.

        mask    = sigmoid(S) > threshold
        penalty = lambda * mean over matrices of mean(sigmoid(S))

    `CubicThreshold` is its schedule, and `lambda = final_lambda * threshold / final_threshold`
    rises with it. The resulting sparsity follows from `final_lambda` and the task. The gradient of
    the mask is that of `HardMovement`; that of the penalty is the ordinary one.

    With `target=True` a sparsity schedule such as `CubicSparsity` sets the overall sparsity. Each
    refresh then solves for the one threshold, common to all matrices, above which exactly the
    wanted number of scores lies. `lambda` rises with the sparsity. It no longer decides how many
    weights stay, but still which: it lowers the scores on which movement is silent.

    Args:
      final_lambda: weight of the penalty at the end, at least 0.
      minimum_remaining: fraction in [0, 1). At least `int(minimum_remaining * n) + 1` of the n
        scores of a matrix stay, its highest ones.
      target: whether the schedule sets the overall sparsity instead of the threshold.
      score_initializer: initial scores; see `HardMovement`.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, section 3. The mean over matrices
      follows the authors' code; the paper prints a sum.
    """

    final_lambda: float = 0.0
    minimum_remaining: float = 0.005
    target: bool = False
    score_initializer: Any = "zeros"

    has_scores: ClassVar[bool] = True
    has_penalty: ClassVar[bool] = True
    score_learning_rate_multiplier: ClassVar[float] = 1e-2 / 3e-5

    def __post_init__(self) -> None:
        check_number("final_lambda", self.final_lambda, example=100.0, minimum=0)
        check_fraction("minimum_remaining", self.minimum_remaining)
        check_boolean("target", self.target)
        check_initializer(self.score_initializer)

    @property
    def schedule_value(self) -> str:
        return "sparsity" if self.target else "threshold"

    def select(
        self, importances: Sequence[tf.Tensor], value: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        sizes = [importance.shape.num_elements() for importance in importances]
        minimums = [int(self.minimum_remaining * size) + 1 for size in sizes]
        if self.target:
            count = masks.kept_count(sum(sizes), value)
            chosen, threshold = masks.global_topk_masks(importances, count, minimums)
            return [(mask, tf.sigmoid(threshold)) for mask in chosen]
        threshold = tf.cast(value, tf.float32)
        chosen = masks.threshold_masks(importances, threshold, minimums)
        return [(mask, threshold) for mask in chosen]

    def penalty(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.sigmoid(scores))

    def penalty_weight(self, progress: tf.Tensor) -> tf.Tensor:
        return self.final_lambda * progress


@dataclasses.dataclass(frozen=True)
class L0(_ByScores):
    """L0 regularisation: hard concrete gates, closed by a penalty on their chance of being open.

        kernel  = gate * W
        penalty = lambda * mean over matrices of mean(P(gate > 0))

    Gates are random in training, and between 0 and 1; scores have the ordinary gradient (see
    `hard_concrete_gate`). Noise depends on the step and `seed` alone. There is no schedule: the
    resulting sparsity follows from `final_lambda`, the score rate and the length of training.
    `strip_pruning` folds the gates into the weights.

    Args:
      final_lambda: weight of the penalty from the first step on, at least 0; 125 on SQuAD.
      score_initializer: initial scores, see `HardMovement`; at 2.197 a gate is open.
      seed: seed of the noise, at least 0.

    Reference:
      Louizos, Welling & Kingma (2018), https://arxiv.org/abs/1712.01312, with the settings of
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
    """

    final_lambda: float = 125.0
    score_initializer: Any = 2.197
    seed: int = 0

    has_scores: ClassVar[bool] = True
    has_penalty: ClassVar[bool] = True
    has_noise: ClassVar[bool] = True
    score_learning_rate_multiplier: ClassVar[float] = 1e-1 / 3e-5

    def __post_init__(self) -> None:
        check_number("final_lambda", self.final_lambda, example=100.0, minimum=0)
        check_integer("seed", self.seed, example=0, minimum=0)
        check_initializer(self.score_initializer)

    @property
    def schedule_value(self) -> None:
        return None

    def select(
        self, importances: Sequence[tf.Tensor], value: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        threshold = tf.constant(GATE_THRESHOLD, tf.float32)
        return [(hard_concrete_gate(scores) > 0, threshold) for scores in importances]

    def mask_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor | None,
        mask: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if seed is not None:
            seed = tf.random.experimental.stateless_fold_in(seed, self.seed)
        return kernel * tf.cast(hard_concrete_gate(scores, seed), kernel.dtype)

    def penalty(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(open_gate_probability(scores))

    def penalty_weight(self, progress: tf.Tensor) -> tf.Tensor:
        return tf.constant(self.final_lambda)
