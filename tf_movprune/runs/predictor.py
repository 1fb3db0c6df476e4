"""The model of a run, with its tokenizer, as a function of texts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.special

from tf_movprune.runs.evaluation import Outputs
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.opened_model import open_model
from tf_movprune.runs.predictions import named
from tf_movprune.tasks.answers import answer_texts
from tf_movprune.tasks.examples import Examples, Questions
from tf_movprune.tasks.features import text_features
from tf_movprune.tasks.metrics import predictions_of
from tf_movprune.tasks.task import Kind
from tf_movprune.tasks.windows import question_windows


class Predictor:
    """Labels, scores or answers for texts, by the model of a run.

        predict = tf_movprune.load_predictor("runs/sst2-hard")
        predict(["A fine film."])  # ["positive"]
        predict.probabilities(["A fine film."])  # [[0.02, 0.98]], in the order of label_names

    Attributes:
      model: the plain Keras model.
      kind: "classification", "regression" or "questions".
      label_names: the names of the classes.
      max_length: most tokens of an input.

    Args:
      folder: folder of a run, or of its model.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        opened = open_model(pathlib.Path(folder))
        missing = {"kind", "label_names", "max_length", "stride"} - opened.description.keys()
        if opened.library is None or missing:
            raise ValueError(
                f"{folder} does not tell what its model is for: it was not written by "
                "`tf-movprune train`. Load it with the library of its model."
            )
        shell = shell_of(opened.library)
        self.model = opened.model
        self.kind: Kind = opened.description["kind"]
        self.label_names = tuple(opened.description["label_names"])
        self.max_length: int = opened.description["max_length"]
        self._stride: int = opened.description["stride"]
        self._has_unanswerable: bool = opened.description.get("has_unanswerable", False)
        self._is_pair: bool | None = opened.description.get("is_pair")  # None: written before
        self._tokenizer = shell.tokenizer_of(str(opened.folder), opened.model)
        self._outputs = Outputs(shell, opened.model, jit_compile=False)

    def __repr__(self) -> str:
        what = ", ".join(self.label_names) or self.kind
        return f"Predictor({what}; at most {self.max_length} tokens)"

    def __call__(
        self, texts: Sequence[str], others: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> list[str] | list[float]:
        """Predictions for texts.

        Args:
          texts: texts; or questions, if the model answers them. Those of more than `max_length`
            tokens are cut.
          others: the second text of each pair; or the context of each question.
          batch_size: texts that are computed at once.

        Returns:
          The name of a label for each text, a score, or an answer, which is a part of its context
          and empty if there is none.

        Raises:
          TypeError: a single text is given and no list, or something else than a text.
          ValueError: the two lists are not of the same length, one is missing, or the model reads
            single texts.
        """
        first, second = self._checked(texts, others)
        if self.kind == "questions":
            return self._answers(first, second, batch_size)
        if not first:
            return []
        logits = self._logits(first, second, batch_size)
        return named(predictions_of(self.kind, logits), self.label_names)

    def probabilities(
        self, texts: Sequence[str], others: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> np.ndarray:
        """Probabilities of the classes.

        Args:
          texts: texts; see `__call__`.
          others: the second text of each pair; see `__call__`.
          batch_size: texts that are computed at once.

        Returns:
          float32 array [texts, classes] in the order of `label_names`; each row sums to 1.

        Raises:
          TypeError: a single text is given and no list, or something else than a text.
          ValueError: the model has no classes, or texts are not what it reads; see `__call__`.
        """
        if self.kind != "classification":
            raise ValueError(
                f"The model is for {self.kind} and has no classes. Call predict(...) for its "
                "predictions."
            )
        first, second = self._checked(texts, others)
        if not first:
            return np.zeros([0, len(self.label_names)], np.float32)
        return scipy.special.softmax(self._logits(first, second, batch_size), axis=-1)

    def _checked(
        self, texts: Sequence[str], others: Sequence[str] | None
    ) -> tuple[list[str], list[str] | None]:
        """Both lists, if they are what the model reads."""
        first, second = _listed(texts), None if others is None else _listed(others)
        if second is not None and len(first) != len(second):
            raise ValueError(
                f"Expected as many other texts as texts, got {len(second)}, and {len(first)} texts."
            )
        if self._is_pair and second is None:
            raise ValueError("The model reads pairs of texts. Pass predict(texts, others).")
        if self._is_pair is False and second is not None and self.kind != "questions":
            raise ValueError("The model reads single texts, got pairs. Pass predict(texts).")
        return first, second

    def _logits(self, texts: list[str], others: list[str] | None, batch_size: int) -> np.ndarray:
        """float32 [texts, outputs]."""
        features = text_features(Examples(texts, others, None), self._tokenizer, self.max_length)
        return np.stack(self._outputs(features, batch_size)["logits"]).astype(np.float32)

    def _answers(
        self, questions: Sequence[str], contexts: Sequence[str] | None, batch_size: int
    ) -> list[str]:
        if contexts is None:
            raise ValueError("Questions need a context each. Pass predict(questions, contexts).")
        if not questions:
            return []
        different = list(dict.fromkeys(contexts))
        asked = Questions(
            contexts=different,
            context_of=np.array([different.index(context) for context in contexts], np.int32),
            questions=list(questions),
            ids=[str(i) for i in range(len(questions))],
            answers=[()] * len(questions),
            has_unanswerable=self._has_unanswerable,
        )
        windows = question_windows(asked, self._tokenizer, self.max_length, self._stride)
        return list(answer_texts(asked, windows, self._outputs(windows, batch_size)).values())


def _listed(texts: Iterable[str]) -> list[str]:
    """Texts as a list: also those of an array, or of a column of a table."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list of texts, got a single one. Pass [text].")
    found = list(texts)
    for text in found:
        if not isinstance(text, str):
            raise TypeError(f"texts must be a list of texts, got {text!r:.60} in it.")
    return found


def load_predictor(folder: str | os.PathLike[str]) -> Predictor:
    """Loads the model of a run with its tokenizer, as a function of texts.

    Args:
      folder: folder of a run of `tf-movprune train`, or of its model.

    Returns:
      A `Predictor`: call it with a list of texts, or with two lists if the model reads pairs, or
      answers questions.

    Raises:
      FileNotFoundError: there is no model.
      ValueError: it does not tell what it is for.
    """
    return Predictor(folder)
