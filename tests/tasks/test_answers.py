"""Answers from logits, against a search of all spans."""

import dataclasses

import numpy as np
import pytest
from word_tokenizer import WordTokenizer

from tf_movprune.tasks.answers import predicted_answers
from tf_movprune.tasks.examples import Questions
from tf_movprune.tasks.windows import maximum_context, question_windows

CONTEXT = "The Ides  of March (44 BC), it was; a day – of café and wine."
LONG = " ".join(f"w{i}" for i in range(25))


def asked(*contexts, **kwargs):
    count = len(contexts)
    ids = [f"q{i}" for i in range(count)]
    numbers = np.arange(count, dtype=np.int32)
    return Questions(list(contexts), numbers, ["when was it"] * count, ids, [()] * count, **kwargs)


def logits_for(windows, *spans):
    """Logits that are 0 but for (window, token in it, start or end, value)."""
    logits = {name: np.zeros([len(windows), 16]) for name in ("start", "end")}
    for window, token, name, value in spans:
        logits[name][window, windows.position[window] + token] = value
    return logits["start"], logits["end"]


def test_text_is_that_of_the_context():
    questions = asked(CONTEXT)
    windows = question_windows(questions, WordTokenizer(), 40)
    start, end = np.zeros([2, 1, 40])
    first = windows.position[0]
    start[0, first + 1], end[0, first + 5] = 5, 5
    found = predicted_answers(questions, windows, start, end)
    assert found.best() == {"q0": "Ides  of March (44"}
    best = found.n_best["q0"][0]
    assert best.score == 10 and len(found.n_best["q0"]) == 20
    assert sum(c.probability for c in found.n_best["q0"]) == pytest.approx(1)
    assert [c.score for c in found.n_best["q0"]] == sorted(
        (c.score for c in found.n_best["q0"]), reverse=True
    )


@pytest.mark.parametrize("answer_length", [1, 3, 30])
@pytest.mark.parametrize("seed", range(3))
def test_spans_are_the_best_of_all(seed, answer_length):
    questions = asked(LONG, "only three words")
    windows = question_windows(questions, WordTokenizer(), 16, stride=4)
    start, end = np.random.RandomState(seed).standard_normal([2, len(windows), 16])
    found = predicted_answers(questions, windows, start, end, 5, answer_length)
    allowed = maximum_context(windows)
    for i in range(2):
        spans = []
        for w in np.flatnonzero(windows.question == i):
            shown = questions.contexts[i].split()[windows.first_token[w] :]
            columns = range(windows.position[w], windows.position[w] + windows.tokens[w])
            for a in columns:
                for b in columns:
                    if a <= b < a + answer_length and allowed[w][a - columns[0]]:
                        text = " ".join(shown[a - columns[0] : b - columns[0] + 1])
                        spans.append((start[w, a] + end[w, b], text))
        best = {}
        for score, text in sorted(spans, reverse=True):
            best.setdefault(text, score)
        expected = list(best.items())[:5]
        assert [c.text for c in found.n_best[f"q{i}"]] == [text for text, _ in expected]
        np.testing.assert_allclose(
            [c.score for c in found.n_best[f"q{i}"]], [score for _, score in expected]
        )


def test_an_answer_may_be_in_any_window():
    questions = asked(LONG)
    windows = question_windows(questions, WordTokenizer(), 16, stride=4)
    last = len(windows) - 1
    start, end = logits_for(windows, (last, 7, "start", 4.0), (last, 8, "end", 4.0))
    found = predicted_answers(questions, windows, start, end)
    place = windows.first_token[last] + 7
    assert found.best()["q0"] == f"w{place} w{place + 1}"


def test_logits_of_other_columns_do_not_count():
    questions = asked(LONG)
    windows = question_windows(questions, WordTokenizer(), 16, stride=4)
    start, end = logits_for(windows, (0, 1, "start", 1.0), (0, 2, "end", 1.0))
    start[:, 1:4] = end[:, 1:4] = 100  # the question's
    wide = [np.pad(array, [(0, 0), (0, 9)], constant_values=100) for array in (start, end)]
    for arrays in ((start, end), wide, [list(array) for array in wide]):
        assert predicted_answers(questions, windows, *arrays).best() == {"q0": "w1 w2"}


def test_no_answer_is_weighed_against_the_best():
    questions = asked(LONG, has_unanswerable=True)
    windows = question_windows(questions, WordTokenizer(), 16, stride=4)
    start, end = logits_for(windows, (0, 1, "start", 2.0), (0, 1, "end", 2.0))
    start[:, 0], end[:, 0] = np.arange(len(windows)) + 3, 2.0
    found = predicted_answers(questions, windows, start, end)
    assert found.null_odds == {"q0": 3 + 2 - 4}
    assert found.texts(None) == found.texts(1.0) == {"q0": "w1"} == found.best()
    assert found.texts(0.999) == {"q0": ""}
    assert [c.text for c in found.n_best["q0"]][:2] == ["", "w1"]
    assert found.n_best["q0"][0].score == 5


def test_v1_has_no_empty_candidate():
    questions = asked(LONG)
    windows = question_windows(questions, WordTokenizer(), 16)
    start, end = logits_for(windows)
    start[:, 0] = 9
    assert all(c.text for c in predicted_answers(questions, windows, start, end).n_best["q0"])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_logits_of_a_model_that_diverged(value):
    questions = asked(LONG, has_unanswerable=True)
    windows = question_windows(questions, WordTokenizer(), 16)
    start = np.full([len(windows), 16], value)
    found = predicted_answers(questions, windows, start, start)
    assert found.best() == {"q0": ""} and found.null_odds == {"q0": 0}
    only = dataclasses.replace(questions, has_unanswerable=False)
    assert predicted_answers(only, windows, start, start).n_best == {"q0": []}


def test_logits_that_are_nan_leave_room_for_others():
    questions = asked(LONG)
    windows = question_windows(questions, WordTokenizer(), 40)
    start = np.full([1, 40], np.nan)
    start[0, windows.position[0] + 3] = 1.0
    found = predicted_answers(questions, windows, start, np.zeros([1, 40]), n_best=2)
    assert found.best()["q0"].startswith("w3")
