"""Whether a teacher that was given knows the task, before anything is learned from it."""

from __future__ import annotations

import os

import numpy as np
import scipy.optimize

from tf_movprune.core.wording import listed
from tf_movprune.runs.evaluation import Outputs
from tf_movprune.runs.preparation import Prepared
from tf_movprune.tasks.examples import Examples
from tf_movprune.tasks.features import text_features
from tf_movprune.tasks.metrics import predictions_of

_MOST = 256
"""Examples that a teacher is tried on; few, as swapped classes show in some tens."""


def check_teacher(
    prepared: Prepared, teacher: Outputs, path: str | os.PathLike[str], batch_size: int
) -> str:
    """Tries a classifier on examples that are evaluated on, and returns a line about it.

    A model that does not name its classes may have them in another order than the task, which
    nothing but its answers tells. The line is empty for tasks without classes.

    Args:
      prepared: data of the run.
      teacher: the classifier.
      path: its folder, for messages.
      batch_size: rows of a batch.

    Raises:
      ValueError: the teacher finds the classes, on average, less often than guessing does.
    """
    split = prepared.splits_while_training[0]
    data = prepared.data[split]
    if prepared.task.kind != "classification" or not isinstance(data, Examples):
        return ""
    sample = data.select(np.random.RandomState(0).permutation(len(data))[:_MOST])
    features = text_features(sample, prepared.tokenizer, prepared.max_length)
    predicted = predictions_of("classification", np.stack(teacher(features, batch_size)["logits"]))
    counts = np.zeros([prepared.outputs] * 2, np.int64)  # [class, prediction]
    np.add.at(counts, (np.asarray(sample.targets), predicted), 1)
    sizes = counts.sum(axis=1)
    found = np.diag(counts)[sizes > 0] / sizes[sizes > 0]
    right = f"{np.trace(counts) / len(sample):.1%} of {len(sample)} examples of {split}"
    if found.mean() < 1 / len(counts):
        best = scipy.optimize.linear_sum_assignment(counts, maximize=True)
        names = [prepared.label_names[i] for i in np.argsort(best[1])]
        raise ValueError(
            f"The teacher {path} is right on {right}, which is worse than guessing; with its "
            f"outputs read as {listed(names, 20)} it would be on "
            f"{counts[best].sum() / len(sample):.1%}. Pass a teacher whose classes are "
            f"{listed(prepared.label_names, 20)}, in this order, and that was trained on the task."
        )
    return f"teacher: right on {right}"
