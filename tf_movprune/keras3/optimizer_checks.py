"""Checks of a compiled Keras 3 model before its first step: losses, optimizers, their rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core import run_checks
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.optimizer_steps import accumulation_steps, inner_optimizer
from tf_movprune.core.run_checks import Run
from tf_movprune.keras3 import compat
from tf_movprune.keras3.optimizers import LinearWarmupDecay


def check_trainable(model: keras.Model, scores: Mapping[str, tf.Variable]) -> None:
    """Raises ValueError if scores cannot learn.

    Their layer may be frozen, or the optimizer built before they existed.

    Args:
      model: a compiled model.
      scores: its score variables, by the path of their layer.
    """
    optimizer = inner_optimizer(model.optimizer)
    trainable = {id(compat.tensorflow_variable(v)): v for v in model.trainable_variables}
    for path, variable in scores.items():
        if id(variable) not in trainable:
            raise ValueError(
                f"{path} is frozen (trainable=False), so its movement scores cannot learn. "
                "Unfreeze it, leave it out of pruning with a mapping of path patterns to "
                "schedules or a pruning_policy, or use tf_movprune.Magnitude()."
            )
        if compat.was_built_without(optimizer, trainable[id(variable)]):
            raise run_checks.built_too_early(f"the movement scores of {path}")


def check_loss(model: keras.Model, kernels: Sequence[MaskedKernel]) -> None:
    """Raises ValueError if nothing would be learned but the penalties of pruning.

    Keras asks for a loss only if the layers of a model have none.
    """
    penalties = sum(kernel.penalty_weight is not None for kernel in kernels)
    if compat.loss_of(model) is None and len(model.losses) <= penalties:
        raise ValueError(
            f"{model.name!r} was compiled without a loss: nothing but the penalty of pruning would "
            "be trained. Pass a loss to compile."
        )


def warn_if_rate_ends(optimizer: keras.optimizers.Optimizer, run: Run) -> None:
    """Warns of an optimizer whose learning rate is 0 before a run is over, or long after it.

    Keras's schedules of the rate count batches, also if an optimizer takes a step for several.
    """
    rate = compat.learning_rate_of(inner_optimizer(optimizer))
    batches = accumulation_steps(optimizer) // getattr(rate, "batches_per_step", 1)
    if batches > 1:
        length = f"this run has {(run.end - run.start) * batches} batches, which the rate counts"
        run = Run(run.start * batches, run.end * batches, length)
    if isinstance(rate, LinearWarmupDecay):
        run_checks.warn_if_rate_ends(rate, run)


def warn_if_scores_learn_otherwise(
    optimizer: keras.optimizers.Optimizer, group: Sequence[MaskedKernel]
) -> None:
    """Warns of scores of `ShortRun` that learn by another optimizer than the recipe's."""
    optimizer = inner_optimizer(optimizer)
    optimizer = getattr(optimizer, "score_optimizer", None) or optimizer
    is_plain = type(optimizer) is keras.optimizers.SGD and not optimizer.momentum
    rate: Any = compat.learning_rate_of(optimizer)
    run_checks.warn_if_scores_learn_otherwise(group, type(optimizer).__name__, is_plain, rate)
