"""What can be wrong with a training run, found before its first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune._keras import PruningSchedule, keras
from tf_movprune.wrapper import PruneLowMovement


class Run(NamedTuple):
    """Optimizer steps of a run, from `start` to before `end`, and words for its length."""

    start: int
    end: int
    description: str


def layers_by_schedule(
    layers: Iterable[PruneLowMovement],
) -> list[tuple[PruningSchedule, list[PruneLowMovement]]]:
    groups: dict[int, tuple[PruningSchedule, list[PruneLowMovement]]] = {}
    for layer in layers:
        schedule = layer.pruning_schedule
        groups.setdefault(id(schedule), (schedule, []))[1].append(layer)
    return list(groups.values())


def describe_ramp(schedule: PruningSchedule, layers: Iterable[PruneLowMovement]) -> str:
    """One line: what is pruned, and the sparsity at the begin, middle and end of the ramp."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", -1)
    steps = [begin, (begin + end) // 2, end] if end > begin else [begin]
    ramp = ", ".join(f"{_sparsity(schedule, step):.2f} at {step}" for step in steps)
    sizes = [k.shape.num_elements() for layer in layers for k in layer.get_prunable_weights()]
    return f"Pruning {sum(sizes):,} weights in {len(sizes)} matrices. Sparsity by step: {ramp}."


def check_schedule(schedule: PruningSchedule, run: Run) -> None:
    """Raises ValueError where a schedule does not end, or never fires, within a run."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", -1)
    frequency = getattr(schedule, "frequency", 1)
    length = run.description + (f" after the first {run.start}" if run.start else "")
    if end > run.end:
        raise ValueError(
            f"The schedule ends at step {end}, but {length}: it would stop at sparsity "
            f"{_sparsity(schedule, run.end):.2f}. Lower end_step or train longer. If this is one "
            "of several calls of fit, pass num_train_steps to UpdatePruningStep."
        )
    # A ramp still has its initial sparsity at its first refresh.
    is_ramp = hasattr(schedule, "initial_sparsity")
    first = begin + frequency if is_ramp else begin
    last = run.end - 1 if end < 0 else end
    if run.start <= last and first > min(last, run.end - 1):
        raise ValueError(
            f"{type(schedule).__name__} never prunes: with begin_step {begin} and frequency "
            f"{frequency} the first sparsity above its start comes at step {first}, but "
            f"{length}, and its end_step is {end}. Lower begin_step or frequency, or train "
            "longer."
        )


def _sparsity(schedule: PruningSchedule, step: int) -> float:
    return float(schedule(tf.constant(step, tf.int64))[1])


def check_optimizer(
    optimizer: keras.optimizers.Optimizer, layers: Iterable[PruneLowMovement]
) -> None:
    """Raises ValueError where an optimizer was built before the scores existed."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "_built", False):
        return
    known = set(getattr(optimizer, "_index_dict", {}))
    known |= set(getattr(getattr(optimizer, "score_optimizer", None), "_index_dict", {}))
    for layer in layers:
        for scores in layer.scores:
            if layer.trainable and optimizer._var_key(scores) not in known:
                raise ValueError(
                    "The optimizer was built before the model was pruned, and does not know "
                    f"{scores.name!r}. Compile the pruned model with a new optimizer."
                )


def check_scores(layers: Mapping[str, PruneLowMovement], step: tf.Variable) -> None:
    """Raises ValueError where scores are not finite."""
    for path, layer in layers.items():
        for scores in layer.scores:
            if not np.all(tf.math.is_finite(scores)):
                raise ValueError(
                    f"The movement scores of {path} contain NaN or infinity at step {int(step)}. "
                    "Go back to the last checkpoint, and lower the learning rate, clip gradients, "
                    "or use a LossScaleOptimizer under mixed_float16."
                )
