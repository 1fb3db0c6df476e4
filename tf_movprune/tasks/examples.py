"""Examples of a split: texts with labels or scores, or questions with answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts, or pairs of texts, with a label or a score each.

    Attributes:
      texts: the text of each example, or the first of a pair.
      pairs: the second text of each; None if the task is about single texts.
      targets: int32 labels or float32 scores; None if they are secret, as in GLUE's test splits.
      label_names: name of each label; empty for scores.
      source: where they come from, to be shown.
      skipped: number of rows in the file that are no example, such as MNLI's without a label.
    """

    texts: list[str]
    pairs: list[str] | None
    targets: np.ndarray | None
    label_names: tuple[str, ...] = ()
    source: str = ""
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """The examples of these indices, in their order."""
        return dataclasses.replace(
            self,
            texts=[self.texts[i] for i in rows],
            pairs=None if self.pairs is None else [self.pairs[i] for i in rows],
            targets=None if self.targets is None else self.targets[np.asarray(rows, np.int64)],
        )

    def with_label_names(self, label_names: Sequence[str]) -> Examples:
        """The same examples with the labels of a model, in its order.

        Raises:
          ValueError: the model lacks one of the labels.
        """
        names = tuple(label_names)
        if names == self.label_names:
            return self
        missing = [name for name in self.label_names if name not in names]
        if missing:
            raise ValueError(
                f"The labels of {self.source or 'the examples'} are {listed(self.label_names)}, "
                f"but the model has {listed(names)}: it lacks {listed(missing)}. Use a model with "
                "these labels, or one with a new head."
            )
        numbers = np.array([names.index(name) for name in self.label_names], np.int32)
        targets = None if self.targets is None else numbers[self.targets]
        return dataclasses.replace(self, targets=targets, label_names=names)


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer, and the character of the context at which it starts."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Questions:
    """Questions about contexts, each with its right answers.

    Attributes:
      contexts: each context once, although several questions share it.
      context_of: int32, the index of each question's context.
      questions: the text of each question.
      ids: the id of each question, unique.
      answers: the right answers of each question; empty if it has none in its context.
      has_unanswerable: whether a question may have no answer, as in SQuAD v2.
      source: where they come from, to be shown.
    """

    contexts: list[str]
    context_of: np.ndarray
    questions: list[str]
    ids: list[str]
    answers: list[tuple[Answer, ...]]
    has_unanswerable: bool = False
    source: str = ""

    def __len__(self) -> int:
        return len(self.questions)

    def select(self, rows: Sequence[int] | np.ndarray) -> Questions:
        """The questions of these indices, in their order, and their contexts alone."""
        used, context_of = np.unique(
            self.context_of[np.asarray(rows, np.int64)], return_inverse=True
        )
        return dataclasses.replace(
            self,
            contexts=[self.contexts[i] for i in used],
            context_of=context_of.astype(np.int32),
            questions=[self.questions[i] for i in rows],
            ids=[self.ids[i] for i in rows],
            answers=[self.answers[i] for i in rows],
        )


T = TypeVar("T", Examples, Questions)


def held_out(data: T, count: int, seed: int = 0) -> tuple[T, T]:
    """A training split and a validation split, taken from a training split at random.

    A context of questions goes to one of the two whole: no model is asked about what it read in
    training. The validation split then has `count` questions or a few more.

    Args:
      data: a training split.
      count: size of the validation split, in [1, len(data)).
      seed: seed of the choice, in [0, 2**32).

    Returns:
      The rest of `data`, and the validation split; both in the order of `data`.

    Raises:
      ValueError: `count` leaves nothing for one of the two.
    """
    if not 0 < count < len(data):
        raise ValueError(
            f"A validation split of {count} cannot be taken from {len(data)} examples: it must "
            f"be at least 1 and less than {len(data)}."
        )
    random = np.random.RandomState(seed)
    if isinstance(data, Questions):
        order = random.permutation(len(data.contexts))
        sizes = np.bincount(data.context_of, minlength=len(data.contexts))
        contexts = order[: np.searchsorted(np.cumsum(sizes[order]), count) + 1]
        chosen = np.isin(data.context_of, contexts)
    else:
        chosen = np.zeros(len(data), bool)
        chosen[random.permutation(len(data))[:count]] = True
    if isinstance(data, Questions) and chosen.all():
        raise ValueError(
            f"A validation split of {count} cannot be taken from questions about "
            f"{len(data.contexts)} contexts, which stay whole: nothing would be left to train on."
        )
    return data.select(np.flatnonzero(~chosen)), data.select(np.flatnonzero(chosen))


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names with commas between them, for a message; those beyond `most` are counted."""
    text = ", ".join(map(str, names[:most]))
    more = len(names) - most
    return f"{text} and {more} more" if more > 0 else text or "none"
