"""Description of a run in words and numbers, without a step of training."""

from __future__ import annotations

import math
from typing import Any

from tf_movprune.core.granularity import HEADS, NEURONS
from tf_movprune.core.masks import kept_count
from tf_movprune.core.remaining_units import chosen_units
from tf_movprune.core.schedules import Ramp
from tf_movprune.core.wording import listed
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import Prepared, prepare
from tf_movprune.runs.pruning_setup import compaction_step, prune, schedule_of
from tf_movprune.runs.settings import FINE_TUNE, TrainSettings, step_of
from tf_movprune.runs.teacher_check import given_teacher
from tf_movprune.sparsity import summarize_sparsity

_ADAM = 16  # bytes of a float32 weight, its gradient and its two slots


def describe(settings: TrainSettings) -> str:
    """Reads data, loads and prunes the model, tries the teacher, and says what would be trained.

    Args:
      settings: settings of the run.

    Raises:
      FileNotFoundError: data or a model are missing.
      ValueError: data are malformed, or do not fit the model or the settings, or the teacher cannot
        teach the task.
    """
    prepared, model = prepare(settings)
    given_teacher(settings, prepared, model, lambda text: print(text) if text else None)
    total = sum(math.prod(v.shape) for v in model.weights)
    trained = sum(math.prod(v.shape) for v in model.trainable_weights)
    lines = [
        f"{prepared.task.title} with {settings.model_or_default} ({settings.library}), "
        f"into {settings.folder}",
        *_phases(settings, prepared),
        f"model      {total:,} weights, {trained:,} of them trained",
    ]
    masked, score_bytes = 0, 0
    if settings.method != "dense":
        pruned = prune(model, settings, prepared.num_train_steps)
        report = summarize_sparsity(pruned)
        masked = report.total
        score_bytes = _bytes_of_masks(settings)
        lines += [
            f"pruned     {masked:,} weights in {len(report.weights)} matrices, "
            f"{settings.structure}, by {settings.method}",
            *_units(pruned, settings),
            *_ramp(settings, prepared.num_train_steps),
        ]
    memory = total * 4 + trained * (_ADAM - 4) + masked * score_bytes
    lines.append(
        f"memory     {memory / 1e9:.2f} GB for weights, gradients, slots, scores and masks, "
        "without activations"
    )
    return "\n".join([*lines, *filter(None, [settings.note])])


def _phases(settings: TrainSettings, prepared: Prepared) -> list[str]:
    steps, plan = prepared.num_train_steps, prepared.plan
    rows = settings.batch_size * settings.gradient_accumulation_steps
    epochs = steps * settings.gradient_accumulation_steps / plan.steps_per_epoch
    warmup = step_of(settings.warmup, steps)
    lines = [
        f"training   {steps:,} steps of {rows} rows, {epochs:.2f} passes over the data",
        f"rate       {settings.learning_rate:g} after {warmup:,} steps, then falling to 0",
        f"batches    padded to {', '.join(map(str, plan.buckets))} tokens",
    ]
    if prepared.label_names:
        lines.append(f"labels     {len(prepared.label_names)}: {listed(prepared.label_names)}")
    if settings.teacher == FINE_TUNE:
        lines.insert(0, f"teacher    fine-tuned first, {steps:,} steps")
    elif settings.teacher is not None:
        lines.insert(0, f"teacher    {settings.teacher}")
    if compaction_step(settings, steps) < steps:
        lines.append(f"compacted  after step {compaction_step(settings, steps):,}")
    if settings.recovery_steps:
        lines.append(f"recovery   {settings.recovery_steps:,} steps of the smaller model")
    return lines


def _units(model: Any, settings: TrainSettings) -> list[str]:
    """How many heads and neurons stay in the end, if they are what goes."""
    layers = shell_of(settings.library).masked_layers(model)
    lines = []
    for kind, sparsity in ((HEADS, settings.head_sparsity), (NEURONS, None)):
        sparsity = settings.final_sparsity if sparsity is None else sparsity
        found = chosen_units(layers, kind)
        sizes = [len(u["remaining"]) if kind is HEADS else u["total"] for u in found]
        if sizes and settings.scope == "global":
            kept = int(kept_count(sum(sizes), sparsity))
            lines.append(f"{kind!s:11}{kept:,} of {sum(sizes):,} stay, in all layers together")
        elif sizes:
            counts = {size: max(int(kept_count(size, sparsity)), 1) for size in sizes}
            kinds = listed([f"{kept:,} of {size:,}" for size, kept in counts.items()])
            lines.append(f"{kind!s:11}{kinds} stay in each layer")
    return lines


def _ramp(settings: TrainSettings, steps: int) -> list[str]:
    """The values of the schedules on their way."""
    schedules: Any = schedule_of(settings, steps)
    if schedules is None:
        return []
    if not isinstance(schedules, dict):
        schedules = {"": schedules}
    lines = []
    for pattern, schedule in schedules.items():
        ramp = Ramp.of(schedule)
        begin, end = ramp.begin_step, ramp.end_step
        end = begin if end is None else end
        points = sorted({begin + (end - begin) * i // 4 for i in range(5)})
        values = ", ".join(f"{ramp.value_at(step):.3f} at {step:,}" for step in points)
        lines.append(f"ramp       {ramp.value_name} {pattern}".rstrip() + f": {values}")
    return lines


def _bytes_of_masks(settings: TrainSettings) -> int:
    """Bytes of the scores, their slots and gradients, and the mask, for each masked weight."""
    if settings.method == "magnitude":
        return 1
    if settings.structure not in ("weights",):
        return 1  # one score for many weights
    return 9 if settings.recipe == "short" else 17
