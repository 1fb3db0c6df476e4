"""Checks for mistakes in a training run, before its first step or when it is over.

There is one function for each mistake, and so there are many.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core.masked_kernel import MaskedKernel, masked_parts
from tf_movprune.core.masks import kept_count
from tf_movprune.core.refresh import groups
from tf_movprune.core.schedules import Ramp
from tf_movprune.core.scores import MOVEMENT_PER_MAGNITUDE, MagnitudeScores
from tf_movprune.core.wording import counted
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import kernels_of
from tf_movprune.keras2.optimizers import LinearWarmupDecay

_DENSE_STEPS = 1000  # after fewer, scores that began at zero are still noise; the paper has 5,400


class Run(NamedTuple):
    """Optimizer steps of a run, from `start` to before `end`, and words for its length."""

    start: int
    end: int
    description: str


def describe_ramp(group: Sequence[MaskedKernel]) -> str:
    """One line on what a group prunes, and its sparsity at begin, middle and end of the ramp."""
    ramp = group[0].settings.ramp
    begin, end = ramp.begin_step, ramp.end_step
    steps = [begin] if end is None or end <= begin else [begin, (begin + end) // 2, end]
    if group[0].has_units:
        units = str(group[0].settings.block_size)
        pieces, places = counted(_total(group), units[:-1]), counted(len(group), "layer")
    else:
        sizes = [weight.shape.num_elements() for weight, _ in masked_parts(group)]
        pieces = counted(sum(sizes), "weight")
        places = counted(len(sizes), "matrix", "matrices")
    what = f"Pruning {pieces} in {places}."
    if ramp.value_name is None:
        return what
    values = ", ".join(f"{ramp.value_at(step):.2f} at {step}" for step in steps)
    return f"{what} {ramp.value_name.capitalize()} by step: {values}."


def check_schedule(ramp: Ramp, run: Run) -> None:
    """Raises ValueError if a schedule does not end, or never fires, within a run."""
    begin, end, frequency = ramp.begin_step, ramp.end_step, ramp.frequency
    length = _length(run)
    if end is not None and end > run.end:
        raise ValueError(
            f"The schedule ends at step {end}, but {length}: it would stop at "
            f"{ramp.value_name} {ramp.value_at(run.end):.2f}. Lower end_step (a recipe makes it "
            f"from num_train_steps, which would be {run.end}) or train longer. If this is one of "
            "several calls of fit, pass num_train_steps to UpdatePruningStep."
        )
    if ramp.final_value == 0:  # as it is asked for
        return
    # A ramp from 0 prunes nothing yet at its first refresh.
    first = begin + frequency if ramp.value_at(begin) == 0 else begin
    last = run.end - 1 if end is None else end
    if run.start <= last and first > min(last, run.end - 1):
        raise ValueError(
            f"{type(ramp.schedule).__name__} never prunes on its way: with begin_step {begin} and "
            f"frequency {frequency} the first step at which it would is {first}, but its end_step "
            f"is {-1 if end is None else end}, and {length}. Lower begin_step or frequency, or "
            "train longer."
        )


def _length(run: Run) -> str:
    return run.description + (f" after the first {run.start}" if run.start else "")


def check_trainable(model: keras.Model, layers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError if scores cannot learn.

    Their layer may be frozen, or the optimizer built before they existed.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    optimizers = [optimizer, getattr(optimizer, "score_optimizer", None)]
    trainable = {id(weight) for weight in model.trainable_weights}
    for path, scores in _scores(layers):
        if id(scores) not in trainable:
            raise ValueError(
                f"{path} is frozen (trainable=False), so its movement scores cannot learn. "
                "Unfreeze it, leave it out of pruning with a mapping of path patterns to "
                "schedules or a pruning_policy, or use tf_movprune.Magnitude()."
            )
        if all(compat.was_built_without(o, scores) for o in optimizers if o is not None):
            raise ValueError(
                "The optimizer was built before the model was pruned, and does not know "
                f"{scores.name!r}. Compile the pruned model with a new optimizer."
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


def sums_of_scores(layers: Mapping[str, PruneLowMovement]) -> list[tuple[float, float]]:
    """Two sums over each score variable, which change if the scores do."""
    sums = []
    for _, variable in _scores(layers):
        scores = tf.cast(tf.convert_to_tensor(variable), tf.float64)
        sums.append((float(tf.reduce_sum(scores)), float(tf.reduce_sum(scores * scores))))
    return sums


def warn_if_scores_stood_still(
    layers: Mapping[str, PruneLowMovement], before: Sequence[tuple[float, float]]
) -> None:
    """Warns of scores that training has not changed."""
    after = sums_of_scores(layers)
    still = [path for (path, _), a, b in zip(_scores(layers), before, after) if a == b]
    if still:
        warnings.warn(
            f"Training has not moved the movement scores of {', '.join(still)}: their masks follow "
            "from the first scores alone. A train step or loop of your own has to train the "
            "model's trainable_variables as they are after pruning, at a learning rate above 0.",
            stacklevel=3,
        )


def warn_if_not_called(name: str, layers: Iterable[PruneLowMovement]) -> None:
    """Warns if weights were trained between two updates of masks without calling pruned layers."""
    first, *others = layers
    is_called = any(layer.usage.was_called for layer in others)
    if not is_called and first.usage.was_passed_by(first.get_prunable_weights()[0]):
        warnings.warn(
            f"The weights of {name!r} were trained without calling its pruned layers: the masks "
            "have no effect. A function that was traced before pruning (tf.function) goes on "
            "computing without them: make it after tf_movprune.prune_low_movement.",
            stacklevel=3,
        )


def check_scores(layers: Mapping[str, PruneLowMovement], step: int) -> None:
    """Raises ValueError if scores are not finite."""
    for path, scores in _scores(layers):
        if not np.all(tf.math.is_finite(scores)):
            raise ValueError(
                f"The movement scores of {path} contain NaN or infinity at step {step}. "
                "Go back to the last checkpoint, and lower the learning rate, clip gradients, "
                "or use a LossScaleOptimizer under mixed_float16."
            )


def _scores(layers: Mapping[str, PruneLowMovement]) -> list[tuple[str, tf.Variable]]:
    """All score variables, each once and with the path of its first layer."""
    found: dict[int, tuple[str, tf.Variable]] = {}
    for path, layer in layers.items():
        for kernel in layer.kernels:
            if kernel.scores is not None:
                found.setdefault(id(kernel.scores), (path, kernel.scores))
    return list(found.values())


def warn_if_rate_ends(optimizer: keras.optimizers.Optimizer, run: Run) -> None:
    """Warns of an optimizer whose learning rate is 0 before a run is over, or long after it."""
    rate = compat.learning_rate_of(getattr(optimizer, "inner_optimizer", optimizer))
    if not isinstance(rate, LinearWarmupDecay):
        return
    if rate.num_train_steps < run.end:
        warnings.warn(
            f"The optimizer's learning rate is 0 from step {rate.num_train_steps} on, its "
            f"num_train_steps, but {_length(run)}: nothing would learn in the steps after. Make "
            f"the optimizer for num_train_steps={run.end}, or train shorter.",
            stacklevel=2,
        )
    elif rate.num_train_steps > 1.1 * run.end:
        left = float(rate(run.end)) / rate.peak_learning_rate
        warnings.warn(
            f"The optimizer was made for num_train_steps={rate.num_train_steps}, but "
            f"{_length(run)}: the learning rate would still be {left:.0%} of its peak at the end. "
            f"Make the optimizer for num_train_steps={run.end}, or train longer. If this is one of "
            "several calls of fit, pass num_train_steps to UpdatePruningStep.",
            stacklevel=2,
        )


def warn_if_scores_learn_otherwise(
    optimizer: keras.optimizers.Optimizer, group: Sequence[MaskedKernel]
) -> None:
    """Warns of scores of `ShortRun` that learn by another optimizer than the recipe's."""
    method, scale = group[0].method, group[0].settings.score_scale
    if getattr(method, "score_initializer", None) != MagnitudeScores(MOVEMENT_PER_MAGNITUDE):
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer = getattr(optimizer, "score_optimizer", None) or optimizer
    rate, ramp = compat.learning_rate_of(optimizer), group[0].settings.ramp
    if callable(rate):  # a schedule
        rate = max(float(rate(step)) for step in (ramp.begin_step, ramp.final_step or 0))
    if not isinstance(optimizer, keras.optimizers.SGD) or getattr(optimizer, "momentum", None):
        what = f"by {type(optimizer).__name__}"
    elif rate is not None and not 0.1 <= float(rate) / scale.rate_for(1.0) <= 10:
        what = f"at rate {float(rate):.3g}"
    else:
        return
    warnings.warn(
        f"Scores start from MagnitudeScores({MOVEMENT_PER_MAGNITUDE}), as in tf_movprune.ShortRun, "
        "whose scores learn by gradient descent without momentum at rate 1, but here they learn "
        f"{what}: accuracy is lower then. Compile with recipe.create_optimizer(...), or pass "
        "score_optimizer=tf_keras.optimizers.SGD(1.0) to tf_movprune.create_optimizer.",
        stacklevel=2,
    )


def warn_if_scores_are_noise(group: Sequence[MaskedKernel], step: int) -> None:
    """Warns of scores that start at zero shortly before the first weights go by their order."""
    method, ramp = group[0].method, group[0].settings.ramp
    if not method.has_scores or method.schedule_value != "sparsity" or step > 0:
        return
    is_late = ramp.begin_step >= _DENSE_STEPS
    if not is_late and not any(np.any(kernel.scores) for kernel in group):
        warnings.warn(
            f"Movement scores start at zero and pruning begins at step {ramp.begin_step}. Scores "
            "are noise for the first hundreds of steps, and cuts by them remove large weights: "
            "accuracy was at chance when this was measured (docs/short_runs.md). Use "
            "tf_movprune.ShortRun, or start the scores from tf_movprune.MagnitudeScores, or train "
            "densely for thousands of steps before begin_step, as the paper does.",
            stacklevel=2,
        )


def warn_if_ahead(kernels: Iterable[MaskedKernel], step: int) -> None:
    """Warns of masks with more zeros than their schedule has at the step at which training goes on.

    This happens when weights were loaded without the optimizer's state.
    """
    for group in groups(kernels):
        if group[0].method.schedule_value != "sparsity":
            continue
        sparsity, target = 1 - _kept(group) / _total(group), group[0].settings.ramp.value_at(step)
        if sparsity > target + 0.01:
            warnings.warn(
                f"Masks have sparsity {sparsity:.3f}, but training starts at step {step}, where "
                f"their schedule says {target:.3f}: weights will come back. To resume, restore the "
                "optimizer too, with tf.train.Checkpoint(model=model, optimizer=model.optimizer).",
                stacklevel=2,
            )


def warn_if_behind(name: str, layers: Collection[PruneLowMovement]) -> None:
    """Warns of masks that were never refreshed, are behind their schedule, or have no zeros."""
    kernels = kernels_of(layers)
    if all(np.all(kernel.threshold == -np.inf) for kernel in kernels) and (
        _kept(kernels) == _total(kernels)
    ):
        warnings.warn(
            f"The masks of {name!r} were never refreshed: stripping gives the dense model. "
            "Train it with tf_movprune.UpdatePruningStep(), or call tf_movprune.update_masks.",
            stacklevel=3,
        )
        return
    empty = [layer.layer.name for layer in layers if not all(np.any(k.mask) for k in layer.kernels)]
    if empty:
        warnings.warn(
            f"Nothing remains of a kernel of {', '.join(empty)}. Prune less, or leave these layers "
            "out; hard and soft movement and magnitude keep minimum_remaining of each.",
            stacklevel=3,
        )
    unused = [layer.layer.name for layer in layers if not layer.usage.was_called]
    if 0 < len(unused) < len(layers):
        warnings.warn(
            f"{name!r} was trained without calling its pruned layers {', '.join(unused)}: their "
            "masks had no effect, and stripping changes what the model computes. Functions that "
            "were traced before pruning (tf.function) have to be made after it.",
            stacklevel=3,
        )
    for group in groups(kernels):
        _warn_if_group_is_behind(name, group)


def _warn_if_group_is_behind(name: str, group: Sequence[MaskedKernel]) -> None:
    method, ramp = group[0].method, group[0].settings.ramp
    kept, total = _kept(group), _total(group)
    if method.schedule_value != "sparsity":
        if kept == total:
            warnings.warn(
                f"{type(method).__name__} has pruned nothing in {name!r}. Raise final_lambda, "
                "or score_learning_rate_multiplier, or train longer.",
                stacklevel=4,
            )
        return
    if ramp.end_step is None:
        return
    target = ramp.value_at(ramp.end_step)
    minimum = getattr(method, "minimum_remaining", None) or 0.0
    # One more in each matrix may be the rounding of a method that counts in another way.
    sizes = [kernel.size for kernel in group]
    allowed = (max(int(kept_count(n, target)), int(minimum * n) + 1) for n in sizes)
    if kept > sum(allowed) + len(sizes):
        warnings.warn(
            f"Sparsity is {1 - kept / total:.4f} in masks whose {type(ramp.schedule).__name__} "
            f"says {target:.4f} at its end_step {ramp.end_step}. Train to end_step, and after a "
            "loop of your own call tf_movprune.update_masks(model, step, force=True).",
            stacklevel=4,
        )


def _kept(kernels: Iterable[MaskedKernel]) -> int:
    return sum(int(np.count_nonzero(kernel.mask)) for kernel in kernels)


def _total(kernels: Iterable[MaskedKernel]) -> int:
    return sum(kernel.size for kernel in kernels)
