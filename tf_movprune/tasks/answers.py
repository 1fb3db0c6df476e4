"""Answers in the words of the context, from logits of their starts and ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tf_movprune.core.arguments import check_integer
from tf_movprune.tasks.examples import Questions
from tf_movprune.tasks.feature_types import Windows
from tf_movprune.tasks.windows import maximum_context

Logits = Mapping[str, Sequence[np.ndarray]]
"""Logits of each row, [classes] or [tokens], by the name of the output."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A possible answer; "" for none. Probabilities are among the candidates of its question."""

    text: str
    score: float
    probability: float


@dataclasses.dataclass(frozen=True)
class PredictedAnswers:
    """Answers to questions, by their ids.

    Attributes:
      n_best: the candidates of each question, best first; "" is one of them if questions may
        have no answer.
      null_odds: score of no answer, minus that of the best answer.
    """

    n_best: dict[str, list[Candidate]]
    null_odds: dict[str, float]

    def best(self) -> dict[str, str]:
        """The best answer to each question; "" only if there is no candidate."""
        return {
            id_: next((c.text for c in candidates if c.text), "")
            for id_, candidates in self.n_best.items()
        }

    def texts(self, null_threshold: float | None) -> dict[str, str]:
        """The answer to each question; "" if `null_odds` exceed the threshold.

        Args:
          null_threshold: usually 0; None if every question has an answer, as in SQuAD v1.1.
        """
        found = self.best()
        if null_threshold is None:
            return found
        return {
            id_: "" if self.null_odds[id_] > null_threshold else text for id_, text in found.items()
        }


def predicted_answers(
    questions: Questions,
    windows: Windows,
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    n_best: int = 20,
    answer_length: int = 30,
) -> PredictedAnswers:
    """The best spans of tokens of each question, over all of its windows.

    A span starts at a token for which its window shows the maximum context, and its score is the
    sum of two logits. The score of no answer is that of column 0, in the window where it is least.
    Columns of padding, and logits that are NaN, are no candidates.

    Args:
      questions: the questions.
      windows: their windows.
      start_logits: float array [length] for each window, in its order, or all in one.
      end_logits: the same for the ends.
      n_best: number of candidates of a question.
      answer_length: most tokens of an answer.
    """
    check_integer("n_best", n_best, example=20, minimum=1)
    check_integer("answer_length", answer_length, example=30, minimum=1)
    allowed = maximum_context(windows)
    spans: list[list[tuple[float, int, int]]] = [[] for _ in range(len(questions))]
    null = np.full(len(questions), np.inf)
    for i, question in enumerate(windows.question.tolist()):
        start, end = _scores(start_logits[i]), _scores(end_logits[i])
        null[question] = min(null[question], start[0] + end[0])
        columns = slice(windows.position[i], windows.position[i] + windows.tokens[i])
        starts = np.where(allowed[i], start[columns], -np.inf)
        found = _best_spans(starts, end[columns], n_best, answer_length)
        first = int(windows.first_token[i])
        spans[question] += [(score, first + a, first + b) for score, a, b in found]
    null[~np.isfinite(null)] = 0
    candidates: dict[str, list[Candidate]] = {}
    odds = {}
    for i, id_ in enumerate(questions.ids):
        offsets = windows.offsets[int(questions.context_of[i])]
        scores = _texts(questions.contexts[questions.context_of[i]], offsets, spans[i], n_best)
        odds[id_] = float(null[i] - max(scores.values(), default=0.0))
        if questions.has_unanswerable:
            scores[""] = float(null[i])
        candidates[id_] = _candidates(scores)
    return PredictedAnswers(candidates, odds)


def answer_texts(questions: Questions, windows: Windows, outputs: Logits) -> dict[str, str]:
    """The best answer to each question by its id; "" if it seems to have none, where it may.

    Args:
      questions: the questions.
      windows: their windows.
      outputs: `start_logits` and `end_logits` of each window.
    """
    found = predicted_answers(questions, windows, outputs["start_logits"], outputs["end_logits"])
    return found.texts(0.0 if questions.has_unanswerable else None)


def _scores(logits: np.ndarray) -> np.ndarray:
    scores = np.asarray(logits, np.float64)
    return np.where(np.isnan(scores), -np.inf, scores)


def _best_spans(
    start: np.ndarray, end: np.ndarray, count: int, longest: int
) -> list[tuple[float, int, int]]:
    """The `count` best (score, first, last) of at most `longest` tokens."""
    if not len(start):
        return []
    padded = np.concatenate([end, np.full(longest - 1, -np.inf)])
    ends = np.lib.stride_tricks.sliding_window_view(padded, longest)
    scores = (start[:, None] + ends).ravel()
    count = min(count, len(scores))
    chosen = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    chosen = chosen[np.isfinite(scores[chosen])]
    first, more = np.divmod(chosen, longest)
    return list(zip(scores[chosen].tolist(), first.tolist(), (first + more).tolist()))


def _texts(
    context: str, offsets: np.ndarray, spans: list[tuple[float, int, int]], count: int
) -> dict[str, float]:
    """The different texts of the best spans, and the score of each, best first."""
    scores: dict[str, float] = {}
    for score, first, last in sorted(spans, key=lambda span: (-span[0], span[1], span[2])):
        text = context[offsets[first, 0] : offsets[last, 1]].strip()
        if text and text not in scores:
            scores[text] = score
            if len(scores) == count:
                break
    return scores


def _candidates(scores: dict[str, float]) -> list[Candidate]:
    if not scores:
        return []
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    weights = np.exp(np.array([score for _, score in ordered]) - ordered[0][1])
    weights /= weights.sum()
    return [Candidate(text, score, float(w)) for (text, score), w in zip(ordered, weights)]
