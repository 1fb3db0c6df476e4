"""Settings by name: the paper's runs, and those that were found to work in less time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_movprune.runs.settings import DEFAULTS
from tf_movprune.runs.unused_options import unused_options
from tf_movprune.tasks.catalog import named_task
from tf_movprune.tasks.catalog import task as task_of


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of a run, and what is known of its result.

    Attributes:
      task: the task that it is for; None if it is for any.
      settings: settings that differ from the defaults.
      reported: what the run reaches, and who says so.
      distilled: settings of runs with a teacher, which are those that prune, unless they are given
        none or the task has scores and no classes.
    """

    task: str | None
    settings: Mapping[str, Any]
    reported: str
    distilled: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_PAPER = {
    "recipe": "paper",
    "learning_rate": 3e-5,
    "score_learning_rate": 1e-2,
    "freeze_embeddings": True,
}
_SQUAD = {**_PAPER, "num_train_epochs": 10.0, "batch_size": 16, "warmup": 5400, "begin": 5400}
_SQUAD |= {"end": -10800, "max_length": 384, "stride": 128, "lengths": (384,)}
_MNLI = {**_PAPER, "num_train_epochs": 6.0, "batch_size": 32, "warmup": 12000, "begin": 12000}
_MNLI |= {"end": -12000, "max_length": 128}
_QQP = {**_PAPER, "num_train_epochs": 10.0, "batch_size": 32, "warmup": 11000, "begin": 22000}
_QQP |= {"end": -33000, "max_length": 128}
_SOFT = {"method": "soft", "final_threshold": 0.1}
_HARD = {"method": "hard", "final_sparsity": 0.9}

_DISTILLED = {
    "teacher": "fine-tune",
    "teacher_learning_rate": 8e-5,
    "learning_rate": 3.2e-4,
    "alpha_hidden": 1.0,
    "dropout": 0.0,
}

PRESETS: Mapping[str, Preset] = {
    "short": Preset(
        None,
        {"num_train_steps": 1500, "learning_rate": 8e-5},
        "MiniLM-L6 on SST-2: 85.8 % of 89.6 % at a tenth of the weights (docs/short_runs.md)",
        _DISTILLED,
    ),
    "structured": Preset(
        None,
        {
            "structure": "heads+neurons",
            "final_sparsity": 0.73,
            "head_sparsity": 0.5,
            "end": 0.5,
            "compact_at": 0.5,
            "num_train_steps": 1500,
            "learning_rate": 8e-5,
        },
        "MiniLM-L6 on SST-2 in 600 steps: 85.8 % of 87.3 %, 2.5 times as fast (docs/results.md)",
        _DISTILLED,
    ),
    "paper-squad-hard": Preset(
        "squad",
        {**_SQUAD, **_HARD},
        "EM/F1 71.9/81.7 at 10 %, 65.2/76.3 at 3 % (Sanh et al. 2020, BERT base; dense 80.4/88.1)",
    ),
    "paper-squad-soft": Preset(
        "squad",
        {**_SQUAD, **_SOFT, "penalty": 400.0},
        "EM/F1 71.3/81.5 at 10 %, 69.5/79.9 at 3 % (Sanh et al. 2020, BERT base; dense 80.4/88.1)",
    ),
    "paper-mnli-hard": Preset(
        "mnli",
        {**_MNLI, **_HARD},
        "matched/mismatched 79.3/79.5 at 10 %, 76.1/76.7 at 3 % (San"
        "h et al. 2020; dense 84.5/84.9)",
    ),
    "paper-mnli-soft": Preset(
        "mnli",
        {**_MNLI, **_SOFT, "penalty": 290.0},
        "matched/mismatched 80.7/81.1 at 10 % (penalty 290), 79.0/79.6 at 3 % (680) (Sanh et al. "
        "2020; the penalties are those of a later paper's re-run)",
    ),
    "paper-qqp-hard": Preset(
        "qqp",
        {**_QQP, **_HARD},
        "accuracy/F1 89.1/85.5 at 10 %, 85.6/81.0 at 3 % (Sanh et al. 2020; dense 91.4/88.4)",
    ),
    "paper-qqp-soft": Preset(
        "qqp",
        {**_QQP, **_SOFT, "penalty": 190.0},
        "accuracy/F1 90.5/87.1 at 10 % (penalty 190), 89.3/85.6 at 3 % (550) (Sanh et al. 2020; "
        "the penalties are those of a later paper's re-run)",
    ),
}


def settings_of(name: str, task: str, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a preset, without those that have no effect beside others.

    So a preset for pruning is one for other methods too, and for dense baselines.

    Args:
      name: the preset.
      task: the task of the run.
      others: settings that are given besides, and win over the preset's.

    Raises:
      ValueError: there is no such preset, or it is for another task.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}. Presets are: {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    if preset.task is not None and preset.task != task_of(task).name:
        raise ValueError(
            f"The preset {name} is for {preset.task}, got {task}: its steps are those of that "
            "task's training data. Use the preset short, or settings of your own."
        )
    settings, others = dict(preset.settings), others or {}
    if _may_be_distilled(task, others):
        settings |= preset.distilled
        if others.get("alpha_hidden") == 0:  # the higher rate is for hidden states
            settings["learning_rate"] = preset.settings["learning_rate"]
    unused = unused_options({**DEFAULTS, **settings, **others, "task": task})
    return {name: value for name, value in settings.items() if name not in unused}


def _may_be_distilled(task: str, others: Mapping[str, Any]) -> bool:
    known = named_task(task)
    kind = others.get("kind") if known is None else known.kind
    has_none = "teacher" in others and others["teacher"] is None
    return others.get("method") != "dense" and not has_none and kind != "regression"


def table() -> str:
    """The presets, with what is known of each and the settings in full."""
    lines = []
    for name, preset in PRESETS.items():
        settings = {**preset.settings, **preset.distilled}
        values = ", ".join(f"{key}={value}" for key, value in settings.items())
        lines += [
            f"{name}",
            f"  for       {preset.task or 'any task'}",
            f"  reports   {preset.reported}",
        ]
        lines += [f"  settings  {values}", ""]
    return "\n".join(lines).rstrip()
