"""Task and files of a run, and checks of them that need no TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from tf_movprune.runs.settings import FINE_TUNE, TrainSettings
from tf_movprune.tasks.catalog import task as task_of
from tf_movprune.tasks.task import Task, check_data_dir

_MOST_BYTES = 20_000_000
"""Size of files that are read for a check: about the time that it takes to load TensorFlow."""


def task_for(settings: TrainSettings, label_names: Sequence[str] = ()) -> Task:
    """The task that settings name.

    Args:
      settings: settings of a run.
      label_names: the labels of its model, if it has one already.
    """
    columns = {
        "text": settings.text_column,
        "text_pair": settings.pair_column,
        "label": settings.label_column,
        "kind": settings.kind,
    }
    task = task_of(settings.task, **{k: v for k, v in columns.items() if v is not None})
    if label_names and not task.label_names:
        task = dataclasses.replace(task, label_names=tuple(label_names))
    return task


def files_of(settings: TrainSettings) -> dict[str, str]:
    """The files of the user's own, by split."""
    named = {"train": settings.train_file, "validation": settings.validation_file}
    return {split: path for split, path in named.items() if path is not None}


def check_inputs(settings: TrainSettings) -> None:
    """Raises for places that do not exist, and for malformed files of the user's own.

    Large files, and those of folders, are checked when they are read for the run.

    Raises:
      FileNotFoundError: a folder or a file is missing.
      ValueError: there is no such task, or a file is malformed or has other columns.
    """
    check_places(settings)
    task, files = task_for(settings), files_of(settings)
    sizes = [path.stat().st_size for path in map(pathlib.Path, files.values()) if path.is_file()]
    if files and sum(sizes) <= _MOST_BYTES:
        task.load(settings.data_dir, files)


def check_places(settings: TrainSettings) -> None:
    """Raises FileNotFoundError for a teacher, a model or a folder of data that does not exist."""
    teacher = settings.teacher
    if teacher not in (None, FINE_TUNE) and not pathlib.Path(str(teacher)).is_dir():
        raise FileNotFoundError(
            f"There is no folder {teacher}. teacher must be the folder of a fine-tuned model or of "
            f"a run, or {FINE_TUNE}."
        )
    check_model(settings.model_or_default)
    if settings.data_dir is not None:
        check_data_dir(pathlib.Path(settings.data_dir))


def check_model(source: str) -> None:
    """Raises FileNotFoundError for a folder that does not exist; other names may be on a hub.

    A name means a folder if it is absolute, starts with "." or "~", or with a folder that is here.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        return
    if path.is_absolute() or source.startswith((".", "~")):
        raise FileNotFoundError(f"There is no folder of a model {source}.")
    first = path.parts[0] if len(path.parts) > 1 else ""
    if first and pathlib.Path(first).is_dir():
        raise FileNotFoundError(
            f"There is no folder of a model {source}, and {first} is a folder here. If it is a "
            "name on a hub, start from another folder."
        )
