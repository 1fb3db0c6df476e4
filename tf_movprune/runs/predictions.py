"""Predictions in files: answers as SQuAD's official script reads them, or labels and scores."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.reports.run_folder import write_json


def write_predictions(path: pathlib.Path, predictions: Any, label_names: Sequence[str]) -> None:
    """Writes predictions as JSON.

    Args:
      path: file to write.
      predictions: answers by the ids of questions; or labels or scores, in the order of the
        examples.
      label_names: names of the labels, which are written in place of their numbers.
    """
    content = predictions
    if not isinstance(predictions, Mapping):
        content = named(predictions, label_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def named(predictions: np.ndarray, label_names: Sequence[str]) -> list[Any]:
    """The names of labels; scores, which have no names, as they are."""
    values = predictions.tolist()
    return [label_names[label] for label in values] if label_names else values
