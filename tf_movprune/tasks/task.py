"""The record of a task: what is asked, how it is scored, and where its data are."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from tf_movprune.tasks.examples import Examples, Questions, listed

Kind = Literal["classification", "regression", "questions"]
Path: TypeAlias = str | os.PathLike[str]
Data: TypeAlias = Examples | Questions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A task that a model is fine-tuned for.

    Attributes:
      name: the name that commands use, such as "sst2".
      title: the name that people use, such as "SST-2".
      kind: "classification", "regression" or "questions".
      label_names: name of each label; empty if they are known from the data only.
      metrics: names of the metrics, as `metrics.scores` returns them; all in [-1, 1].
      main_metric: the one that a run is judged by; greater is better.
      max_length: the usual number of tokens of a row.
      splits: names of the splits that are read: "train", and those to validate on.
    """

    name: str
    title: str
    kind: Kind
    label_names: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    main_metric: str
    max_length: int = 128
    splits: tuple[str, ...] = ("train", "validation")

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """The splits that metrics are of."""
        return tuple(split for split in self.splits if split != "train")

    def load(
        self,
        data_dir: Path | None = None,
        files: Mapping[str, Path] | None = None,
        splits: Sequence[str] | None = None,
    ) -> dict[str, Data]:
        """The splits of the task.

        Args:
          data_dir: folder with the task's own files, or one that has it inside under its usual
            name. Without it and without `files`, data come through tensorflow_datasets.
          files: a file for each split, read instead of those in `data_dir`.
          splits: names of the splits to read; by default those in `files`, or else all of the
            task. "test" has no targets.

        Returns:
          Examples, or Questions, by the name of the split.

        Raises:
          FileNotFoundError: a folder or a file is missing.
          ValueError: a file is malformed, or a split is empty.
          ImportError: tensorflow_datasets is needed and not installed.
        """
        paths = {split: pathlib.Path(path) for split, path in (files or {}).items()}
        folder = None if data_dir is None else pathlib.Path(data_dir)
        if splits is None:
            splits = tuple(paths) if paths and folder is None else self.splits
        for path in paths.values():
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not a file. {_neighbours(path.parent)}")
        data = self._read(folder, paths, tuple(splits))
        for split, found in data.items():
            if not len(found):
                raise ValueError(f"The split {split!r} of {found.source} has no examples.")
        return data

    @abc.abstractmethod
    def _read(
        self, folder: pathlib.Path | None, files: Mapping[str, pathlib.Path], splits: Sequence[str]
    ) -> dict[str, Data]:
        """Reads splits from files, from a folder, or from tensorflow_datasets."""


def check_data_dir(data_dir: pathlib.Path) -> None:
    """Raises FileNotFoundError if a path is not that of a folder."""
    if not data_dir.is_dir():
        kind = "is a file, not a folder" if data_dir.exists() else "does not exist"
        raise FileNotFoundError(f"{data_dir} {kind}. {_neighbours(data_dir.parent)}")


def folder_of(data_dir: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """The folder in `data_dir`, or in a folder of it, that has one of these names.

    Case, and characters other than letters and digits, do not matter. `data_dir` itself if
    there is none.

    Raises:
      FileNotFoundError: `data_dir` is not a folder.
    """
    check_data_dir(data_dir)
    wanted = {_plain(name) for name in names}
    if _plain(data_dir.resolve().name) not in wanted:
        for pattern in ("*", "*/*"):
            for folder in sorted(data_dir.glob(pattern)):
                if folder.is_dir() and _plain(folder.name) in wanted:
                    return folder
    return data_dir


def file_in(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """The first of the files of these names, which may be patterns, in a folder.

    Raises:
      FileNotFoundError: there is none, or a pattern fits several.
    """
    for name in names:
        found = sorted(folder.glob(name))
        if len(found) > 1:
            raise FileNotFoundError(
                f"{folder} has several files {name}: {listed([path.name for path in found])}. "
                "Name one of them in `files`."
            )
        if found:
            return found[0]
    raise FileNotFoundError(f"{folder} has no file {' or '.join(names)}. {_neighbours(folder)}")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _neighbours(folder: pathlib.Path) -> str:
    """The contents of a folder, for a message about what is missing."""
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    return f"{folder} has: {listed(sorted(path.name for path in folder.iterdir()), 20)}."
