"""Metrics and predictions of a model on a split."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.runs.predictions import write_predictions
from tf_movprune.tasks.batches import evaluation_batches, length_buckets
from tf_movprune.tasks.feature_types import Features
from tf_movprune.tasks.scored_data import ScoredData

_COMPILED_FROM = 50
"""Batches of a shape from which on compiling with XLA takes less time than it saves."""


class Outputs:
    """Runs a model in evaluation.

    Args:
      shell: the module for the model's library.
      model: the model.
      jit_compile: whether XLA may compile it, which it does if there is enough to evaluate.
    """

    def __init__(self, shell: Any, model: Any, *, jit_compile: bool):
        def logits(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return shell.logits(model, shell.inputs(model, batch))

        shape = tf.TensorSpec([None, None], tf.int32)
        signature = [dict.fromkeys(("ids", "mask", "segments"), shape)]
        self._plain = tf.function(logits, input_signature=signature)
        self._compiled = tf.function(logits, jit_compile=True) if jit_compile else self._plain

    def __call__(
        self,
        features: Features,
        batch_size: int,
        *,
        title: str = "",
    ) -> dict[str, list[np.ndarray]]:
        """Logits of each row of features, in their order.

        Args:
          features: the rows.
          batch_size: rows of a batch.
          title: name of the split, for a line that shows how far it is; none if it is empty.

        Returns:
          float32 arrays by the name of the output: [classes] for each row, or [tokens].
        """
        found: dict[str, list[Any]] = {}
        done = 0
        buckets = length_buckets(features.lengths)
        is_much = len(features) >= _COMPILED_FROM * batch_size * len(buckets)
        logits_of = self._compiled if is_much else self._plain
        for batch in evaluation_batches(features, batch_size, buckets):
            inputs = {name: tf.constant(array) for name, array in batch.inputs.items()}
            for name, logits in logits_of(inputs).items():
                rows = found.setdefault(name, [None] * len(features))
                for row, values in zip(batch.rows.tolist(), logits.numpy()):
                    is_of_tokens = name != "logits"
                    rows[row] = values[: features.lengths[row]] if is_of_tokens else values
            done += len(batch.rows)
            _show(title, done, len(features))
        return found


def predictions_of(data: ScoredData, split: str, outputs: Outputs, batch_size: int) -> Any:
    """A model's predictions on a split; see `ScoredData.predictions`."""
    return data.predictions(split, outputs(data.features[split], batch_size, title=split))


def evaluate_splits(
    data: ScoredData, outputs: Outputs, batch_size: int, path_of: Callable[[str], pathlib.Path]
) -> dict[str, float]:
    """The metrics of a model on all splits to evaluate on, whose predictions are written.

    Args:
      data: examples and features.
      outputs: the model.
      batch_size: rows of a batch.
      path_of: function from the name of a split to the file for its predictions.
    """
    metrics: dict[str, float] = {}
    for split in data.evaluation_splits:
        predicted = predictions_of(data, split, outputs, batch_size)
        metrics |= data.scores(split, predicted)
        write_predictions(path_of(split), predicted, data.label_names)
    return metrics


def _show(title: str, done: int, total: int) -> None:
    """Shows how much of a split is evaluated, on a terminal."""
    if title and sys.stderr.isatty():
        end = "\n" if done == total else "\r"
        print(
            f"{title}: {done:,} of {total:,} rows evaluated", end=end, file=sys.stderr, flush=True
        )
