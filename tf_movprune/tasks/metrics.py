"""Metrics of tasks, from what a model predicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics

from tf_movprune.tasks.examples import Examples, Questions
from tf_movprune.tasks.squad_metrics import squad_metrics
from tf_movprune.tasks.task import Data, Kind, Task

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """The share of right labels."""
    return float(sklearn.metrics.accuracy_score(targets, predictions))


def f1(predictions: np.ndarray, targets: np.ndarray) -> float:
    """F1 of label 1 of two; 0 if it is neither right nor predicted anywhere."""
    return float(sklearn.metrics.f1_score(targets, predictions, zero_division=0.0))


def f1_macro(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean of the F1 of each label that is right or predicted somewhere."""
    return float(sklearn.metrics.f1_score(targets, predictions, average="macro", zero_division=0.0))


def matthews(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Matthews correlation; 0 if all predictions, or all targets, are the same."""
    return float(sklearn.metrics.matthews_corrcoef(targets, predictions))


def pearson(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Pearson correlation; 0 if undefined, as for NaN or if all predictions are the same."""
    return _correlation(scipy.stats.pearsonr, predictions, targets)


def spearman(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Spearman rank correlation; 0 if undefined, as for NaN or if all predictions are the same."""
    return _correlation(scipy.stats.spearmanr, predictions, targets)


METRICS: dict[str, Metric] = {
    function.__name__: function
    for function in (accuracy, f1, f1_macro, matthews, pearson, spearman)
}
"""Metrics of labels and of scores, by name."""


def predictions_of(kind: Kind, logits: np.ndarray) -> np.ndarray:
    """What a model predicts by its logits.

    Args:
      kind: "classification" or "regression".
      logits: float array [examples, labels], or [examples, 1] or [examples] for scores.

    Returns:
      int32 labels, or float32 scores, [examples].
    """
    if kind == "classification":
        return np.argmax(logits, axis=-1).astype(np.int32)
    return np.asarray(logits, np.float32).reshape(len(logits))


def task_metrics(
    task: Task, data: Mapping[str, Data], predictions: Mapping[str, np.ndarray | Mapping[str, str]]
) -> dict[str, float]:
    """The metrics of a task on its validation splits.

    A metric that belongs to one of several splits ends with the rest of its name:
    "accuracy_matched" is the accuracy on "validation_matched".

    Args:
      task: the task.
      data: examples with targets, or questions with answers, by split.
      predictions: labels, scores, or answers by the ids of questions, by split.

    Returns:
      Values in [-1, 1] by the names in `task.metrics`; what is undefined is 0.

    Raises:
      ValueError: a split has no targets, or another number of predictions.
    """
    metrics: dict[str, float] = {}
    for split, predicted in predictions.items():
        examples = data[split]
        if isinstance(examples, Questions):
            if not isinstance(predicted, Mapping):
                raise TypeError("Predictions for questions must be answers by their ids.")
            metrics.update(squad_metrics(examples, predicted))
            continue
        _check_predictions(split, examples, np.asarray(predicted))
        suffix = split.removeprefix("validation")
        for name in task.metrics:
            if name.endswith(suffix):
                metric = METRICS[name.removesuffix(suffix)]
                metrics[name] = metric(np.asarray(predicted), np.asarray(examples.targets))
    return metrics


def _check_predictions(split: str, examples: Examples, predictions: np.ndarray) -> None:
    if examples.targets is None:
        raise ValueError(
            f"The split {split!r} has no targets to compare with: those of test splits are "
            "secret. Take metrics on a validation split."
        )
    if predictions.shape != examples.targets.shape:
        raise ValueError(
            f"Expected predictions of shape {examples.targets.shape} for the split {split!r}, got "
            f"{predictions.shape}."
        )


def _correlation(
    function: Callable[..., Any], predictions: np.ndarray, targets: np.ndarray
) -> float:
    if len(targets) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant inputs
        value = float(function(predictions, targets)[0])
    return value if np.isfinite(value) else 0.0
