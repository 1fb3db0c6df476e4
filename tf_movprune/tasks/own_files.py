"""Tasks of the user's own: files with named columns, or other data sets of tensorflow_datasets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_choice
from tf_movprune.tasks.datasets import read_dataset
from tf_movprune.tasks.examples import Examples, listed
from tf_movprune.tasks.targets import (
    checked_texts,
    is_whole_number,
    label_numbers,
    label_text,
    score_values,
)
from tf_movprune.tasks.task import Data, Task, file_in
from tf_movprune.tasks.text_files import Table, read_csv, read_json_lines, read_tsv

READERS = {
    ".csv": read_csv,
    ".tsv": lambda path: read_tsv(path)[0],
    ".json": read_json_lines,
    ".jsonl": read_json_lines,
}
_MOST_LABELS = 1000
_FEW_ROWS = 50  # in which each label may be there once


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnTask(Task):
    """A task whose texts and labels are columns of a table.

    Files are comma-separated values with quotes (`.csv`), tab-separated values in which quotes are
    characters like any others (`.tsv`), or JSON objects, one a line (`.json`, `.jsonl`).

    Attributes:
      text: column of the text.
      text_pair: column of the second text; None if the task is about single texts.
      label: column of the label or score.
      dataset: name in tensorflow_datasets; None if there are files only.
    """

    text: str
    text_pair: str | None = None
    label: str
    dataset: str | None = None

    def _read(
        self, folder: pathlib.Path | None, files: Mapping[str, pathlib.Path], splits: Sequence[str]
    ) -> dict[str, Data]:
        tables = {split: self._table(split, folder, files.get(split)) for split in splits}
        texts = {split: self._texts(table) for split, table in tables.items()}
        names = self.label_names
        if self.kind == "classification" and not names:
            names = self._names(tables)
        return {
            split: Examples(
                *texts[split], self._targets(split, table, names), names, str(table.path)
            )
            for split, table in tables.items()
        }

    def _table(self, split: str, folder: pathlib.Path | None, path: pathlib.Path | None) -> Table:
        if path is None and folder is not None:
            path = file_in(folder, [f"{split}{suffix}" for suffix in READERS])
        if path is None:
            if self.dataset is None:
                raise ValueError(
                    f"No file is given for the split {split!r} of {self.title}. Name it in "
                    "`files`, or pass the folder that has it as data_dir."
                )
            return _dataset_table(self.dataset, split)
        if path.suffix not in READERS:
            raise ValueError(
                f"{path} must be one of {listed([*READERS])}, got {path.suffix or 'no suffix'!r}. "
                "Rename the file by its format."
            )
        return READERS[path.suffix](path)

    def _names(self, tables: Mapping[str, Table]) -> tuple[str, ...]:
        """Names of the labels of the training split, sorted; as numbers if all of them are."""
        if "train" not in tables:
            raise ValueError(
                "The names of the labels are taken from the training split, which is not read. "
                f"Pass label_names to {self.title}, or read the training split."
            )
        table = tables["train"]
        values = table.column(self.label)
        labels = [label_text(value) for value in values]
        for row, value in enumerate(values):
            if (
                value is None
                or labels[row].lower() in ("", "nan")
                or isinstance(value, list | dict)
            ):
                raise ValueError(
                    f"{table.place(row)}: expected the name or number of a label as "
                    f"{self.label!r}, got {value!r:.60}. Correct or remove the line."
                )
        names = set(labels)
        scores = [name for name in labels if _is_fraction(name)]
        are_texts = len(labels) > _FEW_ROWS and len(names) > len(labels) / 2
        if scores or are_texts or len(names) > _MOST_LABELS:
            raise ValueError(
                f"{table.path}: {self.label!r} has {len(names)} different values, such as "
                f"{[*scores, *labels][0]!r}, which do not look like labels. Pass "
                "kind regression if they are scores, or name the column of the labels."
            )
        if len(names) == 1:
            raise ValueError(
                f"{table.path}: {self.label!r} has one label only, {labels[0]!r}. Classification "
                "needs two or more: pass a file with all of them."
            )
        if all(map(is_whole_number, names)):
            return tuple(sorted(names, key=int))
        return tuple(sorted(names))

    def _texts(self, table: Table) -> tuple[list[str], list[str] | None]:
        """The first and the second texts; None if there are no second ones."""
        first, *second = [
            checked_texts(name, table.column(name), table.place)
            for name in (self.text, self.text_pair)
            if name is not None
        ]
        return first, second[0] if second else None

    def _targets(self, split: str, table: Table, names: tuple[str, ...]) -> np.ndarray | None:
        """Labels or scores; None if a test split has none."""
        if split.startswith("test") and self.label not in table.columns:
            return None
        labels = table.column(self.label)
        if self.kind == "regression":
            return score_values(labels, table.place)
        return label_numbers(labels, names, table.place)


def column_task(
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    *,
    kind: str = "classification",
    label_names: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    name: str = "own",
    title: str | None = None,
    dataset: str | None = None,
) -> ColumnTask:
    """A task of the user's own.

    Args:
      text: column of the text.
      text_pair: column of the second text of a pair.
      label: column of the label or score.
      kind: "classification" or "regression".
      label_names: names of the labels in order; by default those of the training split, sorted.
      metrics: names of metrics, the main one first: by default accuracy and macro F1, or Pearson
        and Spearman correlation.
      name: name of the task in files of results.
      title: name of the task for people; the name by default.
      dataset: name in tensorflow_datasets, whose features are then the columns.

    Raises:
      ValueError: `kind` is another, or two labels have one name.
    """
    check_choice("kind", kind, ["classification", "regression"])
    is_scored = kind == "regression"
    if len(set(label_names)) < len(label_names) or len(label_names) == 1:
        raise ValueError(f"label_names must be two or more different names, got {label_names}.")
    if metrics is None:
        metrics = ("pearson", "spearman") if is_scored else ("accuracy", "f1_macro")
    return ColumnTask(
        name=name,
        title=title or name,
        kind="regression" if is_scored else "classification",
        label_names=tuple(label_names),
        metrics=tuple(metrics),
        main_metric=metrics[0],
        text=text,
        text_pair=text_pair,
        label=label,
        dataset=dataset,
    )


def _dataset_table(dataset: str, split: str) -> Table:
    """The features of a split of tensorflow_datasets as columns."""
    data = read_dataset(dataset, split)
    columns = {name: values for name, values in data.items() if not isinstance(values, dict)}
    rows = list(zip(*(map(_plain, values) for values in columns.values())))
    source = f"{dataset} of tensorflow_datasets, {split}"
    return Table(source, list(columns), rows, range(1, len(rows) + 1))


def _plain(value: Any) -> Any:
    """A text or a number of Python."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if hasattr(value, "item") else value


def _is_fraction(text: str) -> bool:
    """Whether a text is a number, but not a whole one."""
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False
