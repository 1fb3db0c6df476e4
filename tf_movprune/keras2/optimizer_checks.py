"""Checks of a compiled tf_keras model before its first step: losses, optimizers, their rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tf_movprune.core import run_checks
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.optimizer_steps import inner_optimizer
from tf_movprune.core.run_checks import Run
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.optimizers import LinearWarmupDecay


def check_trainable(model: keras.Model, scores: Mapping[str, tf.Variable]) -> None:
    """Raises ValueError if scores, given by the path of their layer, cannot learn.

    The layer may be frozen, or the optimizer built before they existed.
    """
    optimizer = inner_optimizer(model.optimizer)
    optimizers = [optimizer, getattr(optimizer, "score_optimizer", None)]
    trainable = {id(weight) for weight in model.trainable_weights}
    for path, variable in scores.items():
        if id(variable) not in trainable:
            raise ValueError(
                f"{path} is frozen (trainable=False), so its movement scores cannot learn. "
                "Unfreeze it, leave it out of pruning with a mapping of path patterns to "
                "schedules or a pruning_policy, or use tf_movprune.Magnitude()."
            )
        if all(compat.was_built_without(o, variable) for o in optimizers if o is not None):
            raise run_checks.built_too_early(repr(variable.name))


def check_loss(model: keras.Model, layers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError if nothing would be learned but the penalties of pruning.

    Keras asks for a loss only if the layers of a model have none.
    """
    penalties = sum(layer.adds_penalty for layer in layers.values())  # one loss per layer
    if not model.loss and 0 < len(model.losses) <= penalties:
        raise ValueError(
            f"{model.name!r} was compiled without a loss: nothing but the penalty of pruning would "
            "be trained. Pass a loss to compile."
        )


def warn_if_rate_ends(optimizer: keras.optimizers.Optimizer, run: Run) -> None:
    """Warns of an optimizer whose learning rate is 0 before a run is over, or long after it."""
    rate = compat.learning_rate_of(inner_optimizer(optimizer))
    if isinstance(rate, LinearWarmupDecay):
        run_checks.warn_if_rate_ends(rate, run)


def warn_if_scores_learn_otherwise(
    optimizer: keras.optimizers.Optimizer, group: Sequence[MaskedKernel]
) -> None:
    """Warns of scores of `ShortRun` that learn by another optimizer than the recipe's."""
    optimizer = inner_optimizer(optimizer)
    optimizer = getattr(optimizer, "score_optimizer", None) or optimizer
    is_plain = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.momentum
    run_checks.warn_if_scores_learn_otherwise(
        group, type(optimizer).__name__, is_plain, compat.learning_rate_of(optimizer)
    )
