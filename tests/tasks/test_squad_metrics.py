"""Exact match and F1: hand cases of the rules of SQuAD's official scripts."""

import numpy as np
import pytest

from tf_movprune.tasks.examples import Answer, Questions
from tf_movprune.tasks.squad_metrics import (
    exact_match,
    f1,
    normalized,
    question_scores,
    squad_metrics,
)


def asked(*answers, version=1):
    """Questions with these right answers each."""
    ids = [f"q{i}" for i in range(len(answers))]
    right = [tuple(Answer(text, 0) for text in texts) for texts in answers]
    zeros = np.zeros(len(ids), np.int32)
    return Questions(["context"], zeros, ["?"] * len(ids), ids, right, version == 2)


def predicted(*texts):
    return {f"q{i}": text for i, text in enumerate(texts)}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The Ides of March", "ides of march"),
        ("an apple, a pear and THE fig", "apple pear and fig"),
        ("theatre anthem area", "theatre anthem area"),  # articles inside words stay
        ("the the", ""),
        ("a-b the-c", "ab thec"),  # punctuation goes first, so these are words
        ("A. the.", ""),
        ("  white\t\nspace\u00a0here ", "white space here"),
        ("$1,000.50", "100050"),
        ("it's", "its"),
        ("“quoted” – dash—and …", "“quoted” – dash—and …"),  # unicode punctuation stays
        ("«the» a", "« »"),  # and words end at it
        ("ÉCOLE İ", "école i̇"),
        ("", ""),
        ("!?", ""),
    ],
)
def test_normalization(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    "prediction, answer, exact, expected",
    [
        ("the cat", "Cat!", 1, 1),
        ("cat", "cat sat", 0, 2 / 3),
        ("cat cat", "cat", 0, 2 / 3),
        ("cat cat dog", "cat dog dog", 0, 2 / 3),
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("the", "cat", 0, 0),
        ("cat", "", 0, 0),
        ("", "", 1, 1),
        ("the", "a", 1, 1),
        ("in the city of New York", "New York City", 0, 3 / 4),
    ],
)
def test_scores_of_two_answers(prediction, answer, exact, expected):
    assert exact_match(prediction, answer) == exact
    assert f1(prediction, answer) == pytest.approx(expected)


def test_two_empty_answers_have_nothing_in_common_in_v1():
    assert f1("the", "a", empty_matches=False) == 0
    scores = question_scores(asked(["a"]), predicted("the"))
    assert (scores["exact_match"], scores["f1"]) == (1, 0)


def test_the_best_of_several_right_answers_counts():
    questions = asked(["cat", "cat sat", "the cat sat down"], ["dog"])
    scores = question_scores(questions, predicted("cat sat", "a big dog"))
    assert scores["exact_match"].tolist() == [1, 0]
    np.testing.assert_allclose(scores["f1"], [1, 2 / 3])
    found = squad_metrics(questions, predicted("cat sat", "a big dog"))
    assert found == {"exact_match": 0.5, "f1": pytest.approx(5 / 6)}
    # The best of each metric may be against another answer.
    scores = question_scores(asked(["x y z", "x q"]), predicted("x y"))
    assert scores["f1"][0] == pytest.approx(4 / 5)


def test_no_answer_in_v2():
    questions = asked([], [], ["cat"], ["cat"], version=2)
    found = squad_metrics(questions, predicted("", "cat", "", "the cat"))
    assert found == {
        "exact_match": 0.5,
        "f1": 0.5,
        "HasAns_exact": 0.5,
        "HasAns_f1": 0.5,
        "NoAns_exact": 0.5,
        "NoAns_f1": 0.5,
    }
    # A prediction that has no words is no answer.
    assert squad_metrics(asked([], version=2), predicted("the"))["NoAns_f1"] == 1


def test_right_answers_without_words_do_not_count_in_v2():
    scores = question_scores(asked(["the", "cat"], ["the"], version=2), predicted("", ""))
    assert scores["exact_match"].tolist() == scores["f1"].tolist() == [0, 1]
    only = squad_metrics(asked(["cat"], version=2), predicted("cat"))
    assert only == {"exact_match": 1, "f1": 1, "HasAns_exact": 1, "HasAns_f1": 1}


def test_every_question_needs_a_prediction():
    with pytest.raises(ValueError, match=r"for each of 2 questions, but 1 have none: q1\. Predict"):
        squad_metrics(asked(["a"], ["b"]), {"q0": "a"})
