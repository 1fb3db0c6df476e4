"""Labelled sentences from three sources, tokenized, in batches of like lengths."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

LENGTHS = (16, 24, 32, 48, 64)
"""Batches are padded to one of these: a handful of shapes, so a handful of XLA programs."""


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Token ids of different lengths, and their labels."""

    ids: list[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def load_task(task: str, data_dir: str | None) -> dict[str, tuple[list[str], np.ndarray]]:
    """Texts and labels of the splits train, validation and test.

    `task` is a tensorflow-datasets name; `data_dir` a folder with GLUE's own train.tsv and
    dev.tsv, read instead. GLUE's test labels are secret: its dev split is the test split here,
    and the last 1,000 training sentences validate.
    """
    if data_dir is not None:
        train, test = (_read_tsv(pathlib.Path(data_dir) / f"{s}.tsv") for s in ("train", "dev"))
    elif task == "movie_reviews":
        from benchmarks import movie_review_sentences  # noqa: F401  registers the builder

        splits = ("train", "validation", "test")
        return {
            split: _columns(tfds.load("movie_review_sentences", split=split)) for split in splits
        }
    else:
        train, test = (_columns(tfds.load(task, split=s)) for s in ("train", "validation"))
    texts, labels = train
    order = np.random.RandomState(0).permutation(len(texts))
    texts, labels = [texts[i] for i in order], labels[order]
    return {
        "train": (texts[:-1000], labels[:-1000]),
        "validation": (texts[-1000:], labels[-1000:]),
        "test": test,
    }


def _read_tsv(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"].strip() for row in rows], np.array([int(row["label"]) for row in rows])


def _columns(dataset: tf.data.Dataset) -> tuple[list[str], np.ndarray]:
    rows = list(tfds.as_numpy(dataset))
    return [row["sentence"].decode() for row in rows], np.array([row["label"] for row in rows])


def encoded(encode: Callable, texts: list[str], labels: np.ndarray) -> Sentences:
    """Sentences by a function from texts to rows of token ids."""
    ids = [np.array(row, np.int32) for row in encode(list(texts))]
    return Sentences(ids, np.asarray(labels, np.int32))


def training_batches(
    data: Sentences, batch_size: int, seed: int, lengths: tuple[int, ...] = LENGTHS
) -> tf.data.Dataset:
    """Endless shuffled batches of token ids and labels.

    Each is of sentences of like lengths, padded with zeros to one of `lengths`.
    """

    def generate():
        random = np.random.RandomState(seed)
        while True:
            for i in random.permutation(len(data)):
                yield data.ids[i][: lengths[-1]], data.labels[i]

    signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32))
    return (
        tf.data.Dataset.from_generator(generate, output_signature=signature)
        .bucket_by_sequence_length(
            lambda ids, label: tf.size(ids),
            bucket_boundaries=[length + 1 for length in lengths],
            bucket_batch_sizes=[batch_size] * (len(lengths) + 1),
            pad_to_bucket_boundary=True,
            drop_remainder=True,
        )
        .prefetch(4)
    )


def evaluation_batches(data: Sentences, batch_size: int = 100):
    """All sentences once, sorted by length, as (token ids, labels) of NumPy arrays.

    Each batch is padded with zeros to one of `LENGTHS`.
    """
    order = sorted(range(len(data)), key=lambda i: len(data.ids[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = max(len(data.ids[i]) for i in rows)
        length = next((length for length in LENGTHS if length >= longest), longest)
        ids = np.zeros([len(rows), length], np.int32)
        for row, i in zip(ids, rows):
            row[: len(data.ids[i])] = data.ids[i]
        yield ids, data.labels[rows]
