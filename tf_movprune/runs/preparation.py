"""Data, model, features and batches of a run, before its first step; nothing is trained."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.pytorch.load import load_pytorch
from tf_movprune.runs.inputs import check_model, check_places, files_of, task_for
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.record import description_of, model_folder
from tf_movprune.runs.settings import TrainSettings
from tf_movprune.tasks.batches import BatchPlan, length_buckets
from tf_movprune.tasks.examples import Examples, held_out
from tf_movprune.tasks.feature_types import Features
from tf_movprune.tasks.scored_data import ScoredData, features_of
from tf_movprune.tasks.task import Data, Task

HELD_OUT = "held_out"
"""The split of training examples that a run is evaluated on while it trains."""
PREFIX = f"{HELD_OUT}_"


@dataclasses.dataclass(frozen=True)
class Prepared(ScoredData):
    """The data of a run, and its batches.

    Attributes:
      plan: the batches of training.
      num_train_steps: optimizer steps of the training.
      available: examples of each split before some were chosen.
    """

    plan: BatchPlan
    num_train_steps: int
    available: dict[str, int]

    @property
    def main_metric(self) -> str:
        """The metric that the run is judged by; of the held-out split if there is no other."""
        is_alone = self.evaluation_splits == [HELD_OUT]
        return f"{PREFIX}{self.task.main_metric}" if is_alone else self.task.main_metric

    @property
    def has_unanswerable(self) -> bool:
        """True if questions may have no answer."""
        return bool(getattr(self.data["train"], "has_unanswerable", False))

    @property
    def is_pair(self) -> bool:
        """True if the model reads two texts at a time."""
        return getattr(self.data["train"], "pairs", None) is not None

    @property
    def splits_while_training(self) -> list[str]:
        """The splits that are evaluated on the way: the held-out one, or those of the task."""
        return [HELD_OUT] if HELD_OUT in self.data else self.evaluation_splits

    def as_record(self) -> dict[str, Any]:
        """Counts and sources of the data, for the record of a run."""
        found = super().as_record()
        return {split: {**found[split], "available": self.available[split]} for split in found}

    def plan_of(self, seed: int) -> BatchPlan:
        """The batches in an order of another seed."""
        lengths = self.features["train"].lengths
        return BatchPlan(lengths, self.plan.batch_size, self.plan.buckets, seed)


def prepare(settings: TrainSettings, say: Callable[[str], None] = print) -> tuple[Prepared, Any]:
    """Reads data, and makes features and batches for a model, which is returned too.

    With `held_out`, the split to evaluate on while training is "held_out", and those of the task
    are evaluated at the end.
    """
    check_places(settings)
    task = task_for(settings)
    whole = _with_held_out(task.load(settings.data_dir, files_of(settings) or None), settings)
    data = _chosen(whole, settings)
    if task.kind == "regression" and settings.teacher is not None:
        raise ValueError(
            f"{task.title} has scores and no classes, so that there is nothing to distil. Leave "
            "teacher out."
        )
    label_names = _label_names(data["train"])
    source = _place(settings.model_or_default)
    model = _model(settings, source, task, label_names)[0]
    tokenizer = shell_of(settings.library).tokenizer_of(source, model)
    positions = tokenizer.max_length or task.max_length
    max_length = settings.max_length or min(task.max_length, positions)
    features = features_of(
        data, tokenizer, max_length, settings.stride, cache_folder(settings), say
    )
    plan = _plan(features["train"], settings, max_length)
    batches = settings.num_train_epochs * plan.steps_per_epoch
    steps = max(1, math.floor(batches / settings.gradient_accumulation_steps))
    steps = settings.num_train_steps or steps
    available = {split: len(found) for split, found in whole.items()}
    prepared = Prepared(
        task, label_names, tokenizer, max_length, data, features, plan, steps, available
    )
    return prepared, model


def prepare_evaluation(
    settings: TrainSettings,
    model: Any,
    source: pathlib.Path,
    description: Mapping[str, Any],
    data_dir: str | None,
    file: str | None,
    max_examples: int | None = None,
    say: Callable[[str], None] = print,
) -> ScoredData:
    """Reads the data to evaluate a model on, and makes their features.

    Args:
      settings: settings of the run that made the model.
      model: the model.
      source: folder of the model, which has its tokenizer.
      description: what the run wrote about the model.
      data_dir: folder with the task's own files; that of the run if None.
      file: a file to evaluate on, in place of those of the run.
      max_examples: evaluate on the first so many of each split; on all if None, as a run's own
        limit is one of the run.
      say: is called with what is evaluated on.
    """
    label_names = tuple(description.get("label_names", ()))
    task = task_for(settings, label_names)
    own = None if data_dir is not None else settings.validation_file
    files = {"validation": file or own}
    known = {split: path for split, path in files.items() if path is not None}
    splits = ["validation"] if known else list(task.validation_splits)
    if not known and settings.train_file is not None and data_dir is None:
        raise ValueError(
            "The run has no file of its own to evaluate on but what it held out of its training "
            "file. Name one with --file."
        )
    data = task.load(data_dir or settings.data_dir, known or None, splits)
    if label_names:
        data = {
            split: found.with_label_names(label_names) if isinstance(found, Examples) else found
            for split, found in data.items()
        }
    totals = {split: len(found) for split, found in data.items()}
    data = {split: _first(found, max_examples) for split, found in data.items()}
    for split, found in data.items():
        say(f"{split}: {len(found):,} of the {totals[split]:,} examples of {found.source}")
    tokenizer = shell_of(settings.library).tokenizer_of(str(source), model)
    max_length = description["max_length"]
    features = features_of(
        data, tokenizer, max_length, settings.stride, cache_folder(settings), say
    )
    return ScoredData(task, label_names, tokenizer, max_length, data, features)


def cache_folder(settings: TrainSettings) -> str:
    """The folder for token ids."""
    return settings.cache_dir or str(pathlib.Path(settings.folder).parent / "cache")


def _with_held_out(data: dict[str, Data], settings: TrainSettings) -> dict[str, Data]:
    """The data of a task, with training examples held out if settings ask for that."""
    if not settings.held_out:
        return data
    whole: Any = data["train"]
    train, held = held_out(whole, settings.held_out, settings.seed)
    return {**data, "train": train, HELD_OUT: held}


def _chosen(data: dict[str, Data], settings: TrainSettings) -> dict[str, Data]:
    """The examples of each split that settings ask for."""
    most = settings.max_train_examples or len(data["train"])
    random = np.random.RandomState(settings.seed)
    rows = np.sort(random.permutation(len(data["train"]))[:most])
    return {
        split: found.select(rows)
        if split == "train"
        else _first(found, settings.max_validation_examples)
        for split, found in data.items()
    }


def _first(data: Data, most: int | None) -> Data:
    """The first examples, as many as there may be at most; all if that is None."""
    return data if most is None or most >= len(data) else data.select(range(most))


def _plan(features: Features, settings: TrainSettings, max_length: int) -> BatchPlan:
    lengths = settings.lengths or length_buckets(features.lengths)
    buckets = sorted({min(length, max_length) for length in lengths})
    return BatchPlan(features.lengths, settings.batch_size, buckets, settings.seed)


def load_model(settings: TrainSettings, prepared: Prepared) -> Any:
    """The model that a run starts from, made anew from its seed."""
    source = _place(settings.model_or_default)
    return _model(settings, source, prepared.task, prepared.label_names)[0]


def load_teacher(settings: TrainSettings, prepared: Prepared, path: pathlib.Path) -> Any:
    """A fine-tuned model to learn from.

    Raises:
      ValueError: it has no head for the task, or other labels, or another vocabulary.
    """
    source = _place(str(path))
    teacher, is_new = _model(settings, source, prepared.task, prepared.label_names)
    if is_new:
        raise ValueError(
            f"The teacher {path} has no head for {prepared.task.title} with {prepared.outputs} "
            "outputs. Pass a model that was fine-tuned on the task, or teacher fine-tune."
        )
    shell = shell_of(settings.library)
    names = _names_in(pathlib.Path(source)) or shell.label_names(teacher)
    if names and prepared.label_names and list(names) != list(prepared.label_names):
        raise ValueError(
            f"The teacher {path} has the labels {', '.join(names)}, and the data have "
            f"{', '.join(prepared.label_names)}. Pass a teacher of these labels in this order."
        )
    tokenizer = shell.tokenizer_of(source, teacher)
    if tokenizer.fingerprint != prepared.tokenizer.fingerprint:
        raise ValueError(
            f"The teacher {path} has another vocabulary or tokenizer than the model "
            f"{settings.model_or_default}: their token ids mean different words. Pass a teacher "
            "of the same kind of model."
        )
    return teacher


def _model(
    settings: TrainSettings, source: str, task: Task, label_names: Sequence[str]
) -> tuple[Any, bool]:
    """A model with a head for a task, and whether the head is new."""
    shell = shell_of(settings.library)
    shell.seed(settings.seed)
    with shell.precision(settings.precision):
        model, is_new = shell.load(
            source,
            task.kind,
            ScoredData.outputs_of(task, label_names),
            load_pytorch,
        )
    if settings.freeze_embeddings:
        shell.freeze_embeddings(model)
    return model, is_new


def _place(source: str) -> str:
    """A name or folder of a model; in the folder of a run that of its model."""
    check_model(source)
    path = pathlib.Path(source)
    return str(model_folder(path)) if path.is_dir() else source


def _label_names(data: Data) -> tuple[str, ...]:
    return tuple(data.label_names) if isinstance(data, Examples) else ()


def _names_in(folder: pathlib.Path) -> list[str]:
    return description_of(folder).get("label_names", []) if folder.is_dir() else []
