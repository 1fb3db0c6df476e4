"""Exact match and F1 of answers, by the rules of SQuAD's official scripts."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Mapping

import numpy as np

from tf_movprune.tasks.examples import Questions, listed

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def normalized(text: str) -> str:
    """A text in lower case, without ASCII punctuation, articles and needless white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 if both are the same when normalized, or else 0."""
    return float(normalized(prediction) == normalized(answer))


def f1(prediction: str, answer: str, empty_matches: bool = True) -> float:
    """Harmonic mean of the shares of words that two answers have in common.

    Args:
      prediction: the predicted answer.
      answer: a right one.
      empty_matches: whether two that have no words are the same, as in v2's script; in v1.1's
        they have nothing in common.
    """
    predicted, right = normalized(prediction).split(), normalized(answer).split()
    if not predicted or not right:
        return float(empty_matches and predicted == right)
    common = (collections.Counter(predicted) & collections.Counter(right)).total()
    return 2 * common / (len(predicted) + len(right))


def question_scores(questions: Questions, texts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Scores of each question: the best of those against each of its right answers.

    In v2, right answers without words do not count, and a question without any other is right if
    it is answered by "".

    Args:
      questions: questions with their right answers.
      texts: an answer by the id of each question.

    Returns:
      float64 {"exact_match", "f1"} in [0, 1], in the order of the questions.

    Raises:
      ValueError: a question has no prediction.
    """
    missing = [id_ for id_ in questions.ids if id_ not in texts]
    if missing:
        raise ValueError(
            f"Expected a prediction for each of {len(questions)} questions, but {len(missing)} "
            f"have none: {listed(missing, 3)}. Predict all of the split."
        )
    scores = np.zeros([2, len(questions)])
    for i, (id_, answers) in enumerate(zip(questions.ids, questions.answers)):
        right = [answer.text for answer in answers]
        if questions.has_unanswerable:
            right = [text for text in right if normalized(text)] or [""]
        empty = questions.has_unanswerable
        scores[0, i] = max((exact_match(texts[id_], text) for text in right), default=0)
        scores[1, i] = max((f1(texts[id_], text, empty) for text in right), default=0)
    return {"exact_match": scores[0], "f1": scores[1]}


def squad_metrics(questions: Questions, texts: Mapping[str, str]) -> dict[str, float]:
    """Means of exact match and F1, in [0, 1]; the official scripts print percentages.

    Args:
      questions: questions with their right answers.
      texts: an answer by the id of each question.

    Returns:
      "exact_match" and "f1"; in v2 also "HasAns_exact", "HasAns_f1", "NoAns_exact" and "NoAns_f1"
      of the questions with and without an answer, if there are any.
    """
    scores = question_scores(questions, texts)
    metrics = {name: float(values.mean()) for name, values in scores.items()}
    if questions.has_unanswerable:
        has_answer = np.array([bool(answers) for answers in questions.answers])
        for group, rows in (("HasAns", has_answer), ("NoAns", ~has_answer)):
            if rows.any():
                metrics[f"{group}_exact"] = float(scores["exact_match"][rows].mean())
                metrics[f"{group}_f1"] = float(scores["f1"][rows].mean())
    return metrics
