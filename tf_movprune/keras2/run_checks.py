"""Checks of tf_keras models and optimizers, before a training run or after it.

What needs no Keras is in `core/run_checks.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence

import tensorflow as tf

from tf_movprune.core import run_checks
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.run_checks import Run
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.optimizers import LinearWarmupDecay


def check_trainable(model: keras.Model, scores: Mapping[str, tf.Variable]) -> None:
    """Raises ValueError if scores, given by the path of their layer, cannot learn.

    The layer may be frozen, or the optimizer built before they existed.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
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
            raise ValueError(
                "The optimizer was built before the model was pruned, and does not know "
                f"{variable.name!r}. Compile the pruned model with a new optimizer."
            )


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


def check_kernels_used(model: keras.Model, layers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError if steps were taken without a pruned layer, or gave scores no gradient."""
    trained = {id(weight) for weight in model.trainable_weights}
    for layer in layers.values():
        layer.check_run(trained)


def warn_if_not_called(name: str, layers: Iterable[PruneLowMovement]) -> None:
    """Warns if weights were trained between two updates of masks without calling pruned layers."""
    first, *others = layers
    is_called = any(layer.usage.was_called for layer in others)
    if not is_called and first.usage.was_passed_by(first.get_prunable_weights()[0]):
        warnings.warn(
            f"The weights of {name!r} were trained without calling its pruned layers: the masks "
            "have no effect. A function that was traced before pruning (tf.function) goes on "
            "computing without them: make it after tf_movprune.prune_low_movement.",
            stacklevel=4,
        )


def warn_if_left_out(name: str, layers: Collection[PruneLowMovement]) -> None:
    """Warns of pruned layers that training did not call, while it called others."""
    unused = [layer.layer.name for layer in layers if not layer.usage.was_called]
    if 0 < len(unused) < len(layers):
        warnings.warn(
            f"{name!r} was trained without calling its pruned layers {', '.join(unused)}: their "
            "masks had no effect, and stripping changes what the model computes. Functions that "
            "were traced before pruning (tf.function) have to be made after it.",
            stacklevel=4,
        )


def warn_if_rate_ends(optimizer: keras.optimizers.Optimizer, run: Run) -> None:
    """Warns of an optimizer whose learning rate is 0 before a run is over, or long after it."""
    rate = compat.learning_rate_of(getattr(optimizer, "inner_optimizer", optimizer))
    if isinstance(rate, LinearWarmupDecay):
        run_checks.warn_if_rate_ends(rate, run)


def warn_if_scores_learn_otherwise(
    optimizer: keras.optimizers.Optimizer, group: Sequence[MaskedKernel]
) -> None:
    """Warns of scores of `ShortRun` that learn by another optimizer than the recipe's."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer = getattr(optimizer, "score_optimizer", None) or optimizer
    is_plain = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.momentum
    run_checks.warn_if_scores_learn_otherwise(
        group, type(optimizer).__name__, is_plain, compat.learning_rate_of(optimizer)
    )
