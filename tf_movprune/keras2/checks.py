"""What can be wrong with a training run: found before its first step, or when it is over."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core import masks
from tf_movprune.core.refresh import groups
from tf_movprune.core.schedules import value_at, value_name
from tf_movprune.keras2.compat import PruningSchedule, check_keras_object, keras
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.optimizers import LinearWarmupDecay
from tf_movprune.keras2.tree import pruned_layers


class Run(NamedTuple):
    """Optimizer steps of a run, from `start` to before `end`, and words for its length."""

    start: int
    end: int
    description: str


def describe_ramp(schedule: PruningSchedule, layers: Sequence[PruneLowMovement]) -> str:
    """One line: what a group prunes, and its sparsity at the begin, middle and end of the ramp."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", -1)
    steps = [begin, (begin + end) // 2, end] if end > begin else [begin]
    if layers[0].shared_masks:
        what = f"Pruning {_total(layers):,} {layers[0].block_size} in {len(_masks(layers))} layers."
    else:
        sizes = [k.shape.num_elements() for layer in layers for k in layer.get_prunable_weights()]
        what = f"Pruning {sum(sizes):,} weights in {len(sizes)} matrices."
    name = value_name(schedule)
    if name is None:
        return what
    ramp = ", ".join(f"{value_at(schedule, step):.2f} at {step}" for step in steps)
    return f"{what} {name.capitalize()} by step: {ramp}."


def check_schedule(schedule: PruningSchedule, run: Run) -> None:
    """Raises ValueError where a schedule does not end, or never fires, within a run."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", -1)
    frequency = getattr(schedule, "frequency", 1)
    length = _length(run)
    if end > run.end:
        raise ValueError(
            f"The schedule ends at step {end}, but {length}: it would stop at "
            f"{value_name(schedule)} {value_at(schedule, run.end):.2f}. Lower end_step or train "
            "longer. If this is one of several calls of fit, pass num_train_steps to "
            "UpdatePruningStep."
        )
    # A ramp from 0 prunes nothing yet at its first refresh.
    first = begin + frequency if value_at(schedule, begin) == 0 else begin
    last = run.end - 1 if end < 0 else end
    if run.start <= last and first > min(last, run.end - 1):
        raise ValueError(
            f"{type(schedule).__name__} never prunes on its way: with begin_step {begin} and "
            f"frequency {frequency} the first step at which it would is {first}, but its end_step "
            f"is {end}, and {length}. Lower begin_step or frequency, or train longer."
        )


def _length(run: Run) -> str:
    return run.description + (f" after the first {run.start}" if run.start else "")


def check_trainable(model: keras.Model, layers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError where scores cannot learn.

    Because their layer is frozen, or the optimizer was built before they existed.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    known = set(getattr(optimizer, "_index_dict", {}))
    known |= set(getattr(getattr(optimizer, "score_optimizer", None), "_index_dict", {}))
    trainable = {id(weight) for weight in model.trainable_weights}
    for path, layer in layers.items():
        for scores in layer.scores:
            if id(scores) not in trainable:
                raise ValueError(
                    f"{path} is frozen (trainable=False), so its movement scores cannot learn. "
                    "Unfreeze it, leave it out of pruning with a mapping of path patterns to "
                    "schedules or a pruning_policy, or use tf_movprune.Magnitude()."
                )
            if getattr(optimizer, "_built", False) and optimizer._var_key(scores) not in known:
                raise ValueError(
                    "The optimizer was built before the model was pruned, and does not know "
                    f"{scores.name!r}. Compile the pruned model with a new optimizer."
                )


def check_loss(model: keras.Model, layers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError where nothing would be learned but the penalties of pruning.

    Keras asks for a loss only where the layers of a model have none.
    """
    penalties = sum(layer.penalties > 0 for layer in layers.values())  # one loss to a layer
    if not model.loss and 0 < len(model.losses) <= penalties:
        raise ValueError(
            f"{model.name!r} was compiled without a loss: nothing but the penalty of pruning would "
            "be trained. Pass a loss to compile."
        )


def warn_if_rate_ends(optimizer: keras.optimizers.Optimizer, run: Run) -> None:
    """Warns of an optimizer whose learning rate is 0 before a run is over."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, LinearWarmupDecay) and rate.num_train_steps < run.end:
        warnings.warn(
            f"The optimizer's learning rate is 0 from step {rate.num_train_steps} on, its "
            f"num_train_steps, but {_length(run)}: nothing would learn in the steps after. Make "
            f"the optimizer for num_train_steps={run.end}, or train shorter.",
            stacklevel=2,
        )


def check_scores(layers: Mapping[str, PruneLowMovement], step: int) -> None:
    """Raises ValueError where scores are not finite."""
    for path, layer in layers.items():
        for scores in layer.scores:
            if not np.all(tf.math.is_finite(scores)):
                raise ValueError(
                    f"The movement scores of {path} contain NaN or infinity at step {step}. "
                    "Go back to the last checkpoint, and lower the learning rate, clip gradients, "
                    "or use a LossScaleOptimizer under mixed_float16."
                )


def warn_if_ahead(layers: Iterable[PruneLowMovement], step: int) -> None:
    """Warns of masks with more zeros than their schedule has at the step at which training goes on.

    As where weights were loaded without the optimizer's state.
    """
    for schedule, method, group in groups(layers):
        if method.schedule_value != "sparsity":
            continue
        sparsity, target = 1 - _kept(group) / _total(group), value_at(schedule, step)
        if sparsity > target + 0.01:
            warnings.warn(
                f"Masks have sparsity {sparsity:.3f}, but training starts at step {step}, where "
                f"their schedule says {target:.3f}: weights will come back. To resume, restore the "
                "optimizer too, with tf.train.Checkpoint(model=model, optimizer=model.optimizer).",
                stacklevel=2,
            )


def warn_if_behind(name: str, layers: Collection[PruneLowMovement]) -> None:
    """Warns of masks that were never refreshed, are behind their schedule, or have no zeros."""
    if all(float(threshold) == -np.inf for layer in layers for threshold in layer.thresholds) and (
        _kept(layers) == _total(layers)
    ):
        warnings.warn(
            f"The masks of {name!r} were never refreshed: stripping gives the dense model. "
            "Train it with tf_movprune.UpdatePruningStep(), or call tf_movprune.update_masks.",
            stacklevel=3,
        )
        return
    empty = [layer.layer.name for layer in layers if not all(map(np.any, layer.masks))]
    if empty:
        warnings.warn(
            f"Nothing remains of a kernel of {', '.join(empty)}. Prune less, or set "
            "minimum_remaining on the method.",
            stacklevel=3,
        )
    for schedule, method, group in groups(layers):
        kept, total = _kept(group), _total(group)
        if method.schedule_value != "sparsity":
            if kept == total:
                warnings.warn(
                    f"{type(method).__name__} has pruned nothing in {name!r}. Raise final_lambda, "
                    "or score_learning_rate_multiplier, or train longer.",
                    stacklevel=3,
                )
            continue
        end = getattr(schedule, "end_step", -1)
        if end < 0:
            continue
        target = value_at(schedule, end)
        minimum = getattr(method, "minimum_remaining", 0.0)
        # One more to a matrix may be the rounding of a method that counts in another way.
        sizes = [mask.shape.num_elements() for mask in _masks(group)]
        allowed = (max(int(masks.kept_count(n, target)), int(minimum * n) + 1) for n in sizes)
        if kept > sum(allowed) + len(sizes):
            warnings.warn(
                f"Sparsity is {1 - kept / total:.4f} in masks whose {type(schedule).__name__} "
                f"says {target:.4f} at its end_step {end}. Train to end_step, and after a loop of "
                "your own call tf_movprune.update_masks(model, step, force=True).",
                stacklevel=3,
            )


def _masks(layers: Iterable[PruneLowMovement]) -> list[tf.Variable]:
    """Each once, however many layers share it."""
    return list({id(mask): mask for layer in layers for mask in layer.masks}.values())


def _kept(layers: Iterable[PruneLowMovement]) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in _masks(layers))


def _total(layers: Iterable[PruneLowMovement]) -> int:
    return sum(mask.shape.num_elements() for mask in _masks(layers))


def check_stripped(model: keras.Model) -> None:
    """Raises TypeError where `model` is no Keras model, ValueError where it is still pruned."""
    check_keras_object(model, keras.Model, "a tf_keras model")
    if pruned_layers(model):
        raise ValueError(
            f"{model.name!r} still has pruning wrappers. Use what "
            "tf_movprune.strip_pruning(model) returns."
        )
