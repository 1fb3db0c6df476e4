"""Trial of a teacher that was given, before anything is learned from it."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from tf_movprune.core.wording import listed
from tf_movprune.distillation import Distiller
from tf_movprune.runs.evaluation import Outputs
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import Prepared, load_model, load_teacher
from tf_movprune.runs.settings import FINE_TUNE, TrainSettings
from tf_movprune.tasks.examples import Examples
from tf_movprune.tasks.features import text_features
from tf_movprune.tasks.metrics import predictions_of

_MOST = 256
"""Examples that a teacher is tried on; few, as swapped classes show in some tens."""


def given_teacher(
    settings: TrainSettings, prepared: Prepared, model: Any, say: Callable[[str], None]
) -> Any:
    """The model to learn from that is there already; None if there is none.

    Args:
      settings: settings of the run.
      prepared: data of the run.
      model: the model that is to learn from it.
      say: is called with what a trial of the teacher found.

    Raises:
      ValueError: it cannot teach the task, see `load_teacher` and `check_teacher`; or hidden
        states are wanted, and cannot be compared.
    """
    wanted = settings.teacher
    if wanted is None:
        return None
    if wanted == FINE_TUNE:
        if settings.alpha_hidden:
            _check_hidden_states(settings, model, load_model(settings, prepared))
        return None
    teacher = load_teacher(settings, prepared, pathlib.Path(wanted))
    outputs = Outputs(shell_of(settings.library), teacher, jit_compile=False)
    if settings.alpha_hidden:
        _check_hidden_states(settings, model, teacher)
    say(check_teacher(prepared, outputs, wanted, settings.evaluation_batch_size))
    return teacher


def _check_hidden_states(settings: TrainSettings, model: Any, teacher: Any) -> None:
    shell = shell_of(settings.library)
    ids = tf.ones([1, 8], tf.int32)
    inputs = shell.inputs(model, {"ids": ids, "mask": ids, "segments": tf.zeros_like(ids)})
    try:
        Distiller(model, teacher, hidden_states=True).check(inputs)
    except ValueError as error:
        raise ValueError(
            f"alpha_hidden is {settings.alpha_hidden}, and hidden states of the student and of the "
            f"teacher {settings.teacher} cannot be compared: {error} Or pass alpha_hidden 0, to "
            "learn from outputs alone."
        ) from error


def check_teacher(
    prepared: Prepared, teacher: Outputs, path: str | os.PathLike[str], batch_size: int
) -> str:
    """Tries a classifier on examples that are evaluated on, and returns a line about it.

    A model that does not name its classes may have them in another order than the task, which
    nothing but its answers tells. A class counts as much as another, however many examples it has.
    The line warns of a teacher that may be worse than guessing by chance alone, and is empty for
    tasks without classes.

    Args:
      prepared: data of the run.
      teacher: the classifier.
      path: its folder, for messages.
      batch_size: rows of a batch.

    Raises:
      ValueError: the teacher is worse than guessing by more than two standard errors, or would
        clearly be better with its classes in another order.
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
    trial = _Trial(counts)
    line = f"right on {np.trace(counts) / len(sample):.1%} of {len(sample)} examples of {split}"
    if trial.is_worse_than_guessing or trial.is_better_in_other_order:
        names = [prepared.label_names[i] for i in np.argsort(trial.order)]
        raise ValueError(
            f"The teacher {path} is {line}. It finds {trial.found.mean():.1%} of a class on "
            f"average, where guessing finds {trial.guessed:.1%}; with its outputs read as "
            f"{listed(names, 20)} it would find {trial.found_in_order.mean():.1%}. Pass a teacher "
            f"whose classes are {listed(prepared.label_names, 20)}, in this order, and that was "
            "trained on the task."
        )
    if trial.found.mean() < trial.guessed:
        line += (
            ", which is worse than guessing, though not by more than chance: make sure that it was "
            f"trained on the task, with the classes {listed(prepared.label_names, 20)}, in this "
            "order"
        )
    return f"teacher: {line}"


class _Trial:
    """Shares of each class that a teacher finds, and would find with its classes in another order.

    Attributes:
      guessed: the share that guessing finds.
      found: the share of each class that the teacher finds.
      order: the output that is taken for each class in the best order.
      found_in_order: the share of each class that it would find then.

    Args:
      counts: int64 [class, prediction], the examples of each.
    """

    def __init__(self, counts: np.ndarray):
        self.guessed = 1 / len(counts)
        sizes = counts.sum(axis=1)
        shares = counts / np.maximum(sizes, 1)[:, None]
        self.order = scipy.optimize.linear_sum_assignment(shares, maximize=True)[1]
        seen = np.flatnonzero(sizes)
        self.found, self._sizes = shares[seen, seen], sizes[seen]
        self.found_in_order = shares[seen, self.order[seen]]
        self._is_moved = self.order[seen] != seen
        self._other_orders = max(1, math.factorial(len(counts)) - 1)

    @property
    def is_worse_than_guessing(self) -> bool:
        """True if it is so by more than two standard errors of guessing."""
        error = self._error(np.full(len(self.found), self.guessed * (1 - self.guessed)))
        return bool(self.found.mean() < self.guessed - 2 * error)

    @property
    def is_better_in_other_order(self) -> bool:
        """True if the difference is more than two standard errors, and more if there are many.

        The best of many orders looks better than the given one by chance, and needs the larger a
        difference, by the bound of Bonferroni.
        """
        # McNemar's test: examples that both orders or none are right about say nothing.
        error = self._error((self.found + self.found_in_order) * self._is_moved)
        least = math.sqrt(4 + 2 * math.log(self._other_orders)) * error
        return bool((self.found_in_order - self.found).mean() > least)

    def _error(self, variances: np.ndarray) -> float:
        """The standard error of a mean over classes, given the variance of one example of each."""
        return float(np.sqrt((variances / self._sizes).sum()) / len(variances))
