"""Options of a run that have no effect beside the others, and what to do instead."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from tf_movprune.core.wording import listed
from tf_movprune.tasks.catalog import OWN, named_task

FINE_TUNE = "fine-tune"
"""The `teacher` that is fine-tuned in the same run."""
_OF_A_COMPARISON = {
    "dense": (
        *("final_sparsity", "structure", "block_size", "head_sparsity", "scope", "recipe"),
        *("begin", "end"),
    ),
    "magnitude": ("recipe",),
}
"""Options that a command may give all methods that it compares, though one prunes without them."""


def unused_options(values: Mapping[str, Any]) -> dict[str, str]:
    """The options without effect in a run: the reason and a remedy by name.

    They are in the order in which they are checked. Options that the run's method has no use for,
    but others that it is compared with, are not among them; see `note_on_other_methods`.

    Args:
      values: all settings of a run by name.
    """
    settings = types.SimpleNamespace(**values)
    spared = _OF_A_COMPARISON.get(settings.method, ())
    found: dict[str, str] = {}
    for names, reason in _reasons(settings):
        for name in names.split():
            if name not in spared:
                found.setdefault(name, f"{name} {reason}")
    return found


def note_on_other_methods(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A line on options that only other methods of a comparison have a use for; "" if none is set.

    Args:
      values: all settings of a run by name.
      defaults: the default of each.
    """
    names = _OF_A_COMPARISON.get(values["method"], ())
    set_ones = [name for name in names if values[name] != defaults[name]]
    if not set_ones:
        return ""
    return f"Method {values['method']} has no use for {listed(set_ones)}: other methods have."


def is_structured(settings: Any) -> bool:
    """Returns whether heads or neurons go."""
    return settings.method != "dense" and settings.structure in (
        "heads",
        "neurons",
        "heads+neurons",
    )


def prunes_to_target(settings: Any) -> bool:
    """Returns whether a run ends at `final_sparsity`."""
    return settings.method in ("hard", "magnitude") or (
        settings.method == "soft" and settings.final_threshold is None
    )


def _reasons(s: Any) -> Iterator[tuple[str, str]]:
    """Names of options, and why they have no effect."""
    task = named_task(s.task)
    if task is not None:
        yield (
            "text_column pair_column label_column kind",
            f"is for files of your own, and {task.title} has columns of its own. Leave it out, or "
            "take the task own.",
        )
    elif s.task != OWN:
        yield (
            "train_file validation_file",
            f"is for the tasks own and questions, got {s.task}, which may be a name in "
            "tensorflow_datasets. Correct the name, or leave it out.",
        )
    if task is None or task.kind != "questions":
        yield "stride", f"is for questions, got task {s.task}. Leave it out."
    if s.structure != "blocks":
        yield (
            "block_size",
            f"is for structure blocks, got {s.structure}. Pass structure blocks, or leave it out.",
        )
    if s.structure != "heads+neurons":
        yield (
            "head_sparsity",
            f"is for structure heads+neurons, got {s.structure}. Use final_sparsity.",
        )
    if s.method != "soft":
        yield "final_threshold", f"is for method soft, got method {s.method}. Use final_sparsity."
    if s.method not in ("soft", "l0"):
        yield "penalty", f"is for methods soft and l0, got {s.method}. Leave it out."
    if s.method not in ("hard", "magnitude"):
        yield "scope", f"is for methods hard and magnitude, got {s.method}. Leave it out."
    if s.method in ("dense", "magnitude"):
        yield (
            "score_learning_rate recipe",
            f"is for scores that learn, got method {s.method}. Leave it out.",
        )
    if s.recipe == "short":
        yield "score_learning_rate", "is for recipe paper; that of short is its own. Leave it out."
    if not prunes_to_target(s):
        decides = "penalty" if s.method == "l0" else "final_threshold and penalty"
        yield "final_sparsity", f"is no target of method {s.method}, got {decides}. Leave it out."
    if s.method in ("dense", "l0"):
        yield "begin end", f"is for schedules, and method {s.method} has none. Leave it out."
    if not is_structured(s):
        yield (
            "compact_at",
            f"is for structure heads, neurons or heads+neurons, got structure {s.structure} and "
            f"method {s.method}: nothing else is removed. Pass one of these, or leave it out.",
        )
        yield (
            "recovery_steps",
            f"are for a model without heads or neurons, got structure {s.structure} and method "
            f"{s.method}: nothing is removed. Train longer with num_train_steps.",
        )
    if s.num_train_steps is not None:
        yield "num_train_epochs", "is for runs without num_train_steps. Pass one of the two."
    if s.teacher is None:
        yield (
            "alpha_distil alpha_ce alpha_hidden temperature",
            "is for distillation, and there is no teacher. Pass teacher, or leave it out.",
        )
    if s.teacher != FINE_TUNE:
        yield (
            "teacher_learning_rate",
            f"is for a teacher that is trained first, got teacher {s.teacher}. Pass teacher "
            f"{FINE_TUNE}, or leave it out.",
        )
