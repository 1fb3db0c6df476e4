"""Methods, schedules, granularity and optimizers of pruning that settings of a run mean."""

from __future__ import annotations

from typing import Any

from tf_movprune.core.granularity import HEADS, NEURONS, WEIGHTS, Blocks
from tf_movprune.core.methods import L0, HardMovement, Magnitude, SoftMovement
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.schedules import CubicSparsity, CubicThreshold
from tf_movprune.pruning import create_optimizer, prune_low_movement
from tf_movprune.recipes import ShortRun
from tf_movprune.runs.settings import TrainSettings, step_of
from tf_movprune.sparsity import summarize_sparsity

ATTENTION = "*attention*"
"""Pattern of the paths of attention layers, in KerasHub's and Hugging Face's models."""


def method_of(settings: TrainSettings) -> PruningMethod:
    """The method that settings name, before a recipe chooses where its scores start."""
    if settings.method == "hard":
        return HardMovement(scope=settings.scope)
    if settings.method == "magnitude":
        return Magnitude(scope=settings.scope)
    if settings.method == "l0":
        return L0(settings.penalty or 125.0)
    return SoftMovement(settings.penalty or 100.0, target=settings.final_threshold is None)


def schedule_of(settings: TrainSettings, num_train_steps: int) -> Any:
    """The schedule, or schedules by pattern, for a run of some steps; None for L0."""
    span = {
        "begin_step": step_of(settings.begin, num_train_steps),
        "end_step": step_of(settings.end, num_train_steps),
    }
    if settings.method == "l0":
        return None
    if settings.final_threshold is not None:
        return CubicThreshold(settings.final_threshold, **span)
    schedule = CubicSparsity(settings.final_sparsity, **span)
    if settings.head_sparsity is None:
        return schedule
    return {ATTENTION: CubicSparsity(settings.head_sparsity, **span), "*": schedule}


def block_size_of(settings: TrainSettings) -> Any:
    """The granularity, or granularities by pattern."""
    return {
        "weights": WEIGHTS,
        "blocks": Blocks(*settings.block_size),
        "heads": HEADS,
        "neurons": NEURONS,
        "heads+neurons": {ATTENTION: HEADS, "*": NEURONS},
    }[settings.structure]


def compaction_step(settings: TrainSettings, num_train_steps: int) -> int:
    """The step at which a run goes on with a compacted model; its last one if it never does.

    Raises:
      ValueError: heads and neurons would be removed before all are pruned, or after training.
    """
    if settings.compact_at is None or not settings.is_structured:
        return num_train_steps
    step, end = (step_of(s, num_train_steps) for s in (settings.compact_at, settings.end))
    if not end <= step < num_train_steps:
        raise ValueError(
            f"compact_at must be a step from end, here {end:,}, on, and before the last one, here "
            f"{num_train_steps:,}; got {step:,}. Lower end too, or pass a later step."
        )
    return step


def prune(model: Any, settings: TrainSettings, num_train_steps: int) -> Any:
    """Prepares a model for pruning, in place, and returns it."""
    compaction_step(settings, num_train_steps)  # raises before a step is trained
    recipe = _recipe_of(settings, num_train_steps)
    method = method_of(settings) if recipe is None else recipe.method
    schedule = schedule_of(settings, num_train_steps)
    if settings.structure == "heads":
        schedule = {ATTENTION: schedule}
    if settings.structure == "neurons":
        schedule = dict.fromkeys(_feed_forward_paths(model), schedule)
    multiplier = None
    if recipe is None and method.has_scores:
        rate = settings.score_learning_rate or (1e-1 if settings.method == "l0" else 1e-2)
        multiplier = rate / settings.learning_rate
    return prune_low_movement(
        model,
        schedule,
        method,
        block_size=block_size_of(settings),
        score_learning_rate_multiplier=multiplier,
    )


def _feed_forward_paths(model: Any) -> list[str]:
    """Paths of the layers that are pruned by default, without those of attention."""
    paths = [weight.path.rpartition(".")[0] for weight in summarize_sparsity(model).weights]
    return [path for path in paths if "attention" not in path]


def optimizer_of(
    model: Any, settings: TrainSettings, num_train_steps: int, *, is_pruned: bool
) -> Any:
    """The optimizer of a dense or pruned model for a run of some steps."""
    common = {
        "weight_decay": settings.weight_decay,
        "clipnorm": settings.clipnorm,
        "model": model,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
    }
    recipe = _recipe_of(settings, num_train_steps) if is_pruned else None
    warmup = min(step_of(settings.warmup, num_train_steps), num_train_steps - 1)
    scores = None
    if recipe is not None and recipe.method.has_scores:
        scores = recipe.score_optimizer(model)
    return create_optimizer(
        settings.learning_rate, num_train_steps, warmup, score_optimizer=scores, **common
    )


def _recipe_of(settings: TrainSettings, num_train_steps: int) -> ShortRun | None:
    """The recipe for the scores; None if they start and learn as in the paper."""
    if settings.recipe != "short":
        return None
    return ShortRun(num_train_steps, settings.final_sparsity, method_of(settings))
