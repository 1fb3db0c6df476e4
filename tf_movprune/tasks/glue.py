"""The tasks of GLUE, from their own files or through tensorflow_datasets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tf_movprune.tasks.datasets import read_dataset, texts_of
from tf_movprune.tasks.examples import Examples, listed
from tf_movprune.tasks.targets import checked_texts, label_numbers, score_values
from tf_movprune.tasks.task import Data, Task, file_in, folder_of
from tf_movprune.tasks.text_files import Table, read_tsv


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlueTask(Task):
    """A task of GLUE.

    Attributes:
      columns: columns of the texts in the files.
      label_column: column of the label or score in the files.
      features: names of the texts in tensorflow_datasets.
      no_header: columns of training and development files that have no header line.
      has_damaged_rows: whether some rows of the official files lack fields, which are skipped,
        or have an empty text, which are kept.
      unlabelled: what stands for the label of rows without one, which are skipped.
    """

    columns: tuple[str, ...]
    label_column: str
    features: tuple[str, ...]
    no_header: tuple[str, ...] | None = None
    has_damaged_rows: bool = False
    unlabelled: str | None = None

    @property
    def dataset(self) -> str:
        """The name in tensorflow_datasets."""
        return f"glue/{self.name}"

    def _read(
        self, folder: pathlib.Path | None, files: Mapping[str, pathlib.Path], splits: Sequence[str]
    ) -> dict[str, Data]:
        if folder is not None:
            folder = folder_of(folder, [self.title, self.name])
        elif not files:
            return {split: self._from_dataset(split) for split in splits}
        return {split: self._from_files(split, folder, files.get(split)) for split in splits}

    def _from_dataset(self, split: str) -> Examples:
        data = read_dataset(self.dataset, split)
        is_scored = self.kind == "regression"
        targets = data["label"].astype(np.float32 if is_scored else np.int32)
        texts = [[text.strip() for text in texts_of(data[name])] for name in self.features]
        return Examples(
            texts[0],
            texts[1] if len(texts) > 1 else None,
            None if split.startswith("test") else targets,
            self.label_names,
            f"{self.dataset} of tensorflow_datasets, {split}",
        )

    def _from_files(
        self, split: str, folder: pathlib.Path | None, path: pathlib.Path | None
    ) -> Examples:
        is_test = split.startswith("test")
        table, skipped = self._table(split, folder, path)
        if not is_test:
            labels = table.column(self.label_column)
            known = [i for i, label in enumerate(labels) if label != self.unlabelled]
            skipped += len(labels) - len(known)
            table = table.select(known)
        texts = [
            checked_texts(name, table.column(name), table.place, empty=self.has_damaged_rows)
            for name in self.columns
        ]
        targets = None
        if not is_test:
            labels = table.column(self.label_column)
            if self.kind == "regression":
                targets = score_values(labels, table.place)
            else:
                targets = label_numbers(labels, self.label_names, table.place)
        return Examples(
            texts[0],
            texts[1] if len(texts) > 1 else None,
            targets,
            self.label_names,
            str(table.path),
            skipped,
        )

    def _table(
        self, split: str, folder: pathlib.Path | None, path: pathlib.Path | None
    ) -> tuple[Table, int]:
        """The rows of a split, and the number of rows that were left out."""
        path = path or file_in(self._folder(split, folder), [_file_name(split)])
        columns = None if split.startswith("test") else self.no_header
        return read_tsv(path, columns, skip_incomplete=self.has_damaged_rows)

    def _folder(self, split: str, folder: pathlib.Path | None) -> pathlib.Path:
        if folder is None:
            raise ValueError(
                f"No file is given for the split {split!r} of {self.title}. Name it in `files`, "
                f"or pass the folder that has {_file_name(split)} as data_dir."
            )
        return folder


class _Mrpc(GlueTask):
    """MRPC, which may also be as Microsoft gives it: one file, and a list of the rows to keep."""

    def _table(
        self, split: str, folder: pathlib.Path | None, path: pathlib.Path | None
    ) -> tuple[Table, int]:
        if path is not None or split.startswith("test"):
            return super()._table(split, folder, path)
        folder = self._folder(split, folder)
        whole, own = folder / "msr_paraphrase_train.txt", folder / _file_name(split)
        if own.is_file() or not whole.is_file():
            return super()._table(split, folder, path)
        table, _ = read_tsv(whole)
        held_out = folder / "dev_ids.tsv"
        if not held_out.is_file():
            raise FileNotFoundError(
                f"{folder} has {whole.name}, but neither {own.name} nor {held_out.name}, which "
                f"lists the rows to validate on. It has: "
                f"{listed(sorted(found.name for found in folder.iterdir()), 20)}."
            )
        ids = {tuple(row) for row in read_tsv(held_out, ("#1 ID", "#2 ID"))[0].rows}
        is_held_out = [key in ids for key in zip(table.column("#1 ID"), table.column("#2 ID"))]
        chosen = [i for i, found in enumerate(is_held_out) if found == (split == "validation")]
        return table.select(chosen), 0


def _file_name(split: str) -> str:
    return split.replace("validation", "dev") + ".tsv"


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

GLUE = (
    GlueTask(
        name="cola",
        title="CoLA",
        kind="classification",
        label_names=("unacceptable", "acceptable"),
        metrics=("matthews",),
        main_metric="matthews",
        columns=("sentence",),
        label_column="label",
        features=("sentence",),
        no_header=("source", "label", "star", "sentence"),
    ),
    GlueTask(
        name="sst2",
        title="SST-2",
        kind="classification",
        label_names=("negative", "positive"),
        metrics=("accuracy",),
        main_metric="accuracy",
        columns=("sentence",),
        label_column="label",
        features=("sentence",),
    ),
    _Mrpc(
        name="mrpc",
        title="MRPC",
        kind="classification",
        label_names=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        main_metric="f1",
        columns=("#1 String", "#2 String"),
        label_column="Quality",
        features=_SENTENCES,
    ),
    GlueTask(
        name="qqp",
        title="QQP",
        kind="classification",
        label_names=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        main_metric="f1",
        columns=("question1", "question2"),
        label_column="is_duplicate",
        features=("question1", "question2"),
        has_damaged_rows=True,
    ),
    GlueTask(
        name="stsb",
        title="STS-B",
        kind="regression",
        metrics=("pearson", "spearman"),
        main_metric="pearson",
        columns=_SENTENCES,
        label_column="score",
        features=_SENTENCES,
    ),
    GlueTask(
        name="mnli",
        title="MNLI",
        kind="classification",
        label_names=("entailment", "neutral", "contradiction"),
        metrics=("accuracy_matched", "accuracy_mismatched"),
        main_metric="accuracy_matched",
        splits=("train", "validation_matched", "validation_mismatched"),
        columns=_SENTENCES,
        label_column="gold_label",
        features=("premise", "hypothesis"),
        unlabelled="-",
    ),
    GlueTask(
        name="qnli",
        title="QNLI",
        kind="classification",
        label_names=_ENTAILMENT,
        metrics=("accuracy",),
        main_metric="accuracy",
        columns=("question", "sentence"),
        label_column="label",
        features=("question", "sentence"),
    ),
    GlueTask(
        name="rte",
        title="RTE",
        kind="classification",
        label_names=_ENTAILMENT,
        metrics=("accuracy",),
        main_metric="accuracy",
        columns=_SENTENCES,
        label_column="label",
        features=_SENTENCES,
    ),
    GlueTask(
        name="wnli",
        title="WNLI",
        kind="classification",
        label_names=("not_entailment", "entailment"),
        metrics=("accuracy",),
        main_metric="accuracy",
        columns=_SENTENCES,
        label_column="label",
        features=_SENTENCES,
    ),
)
"""All tasks of GLUE that have training data."""
