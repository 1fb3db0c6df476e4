"""Metrics: their formulas, and what they are where those are undefined."""

import numpy as np
import pytest

from tf_movprune.tasks import metrics
from tf_movprune.tasks.examples import Answer, Examples, Questions
from tf_movprune.tasks.glue import GLUE
from tf_movprune.tasks.squad import SQUAD

TASKS = {task.name: task for task in (*GLUE, *SQUAD)}
PREDICTED = np.array([1, 1, 0, 1, 0, 0], np.int32)
RIGHT = np.array([1, 0, 0, 1, 1, 0], np.int32)


def examples(targets):
    return Examples(["text"] * 6, None, targets)


def test_labels():
    assert metrics.accuracy(PREDICTED, RIGHT) == pytest.approx(4 / 6)
    assert metrics.f1(PREDICTED, RIGHT) == pytest.approx(2 / 3)  # 2 · 2 / (2 · 2 + 1 + 1)
    assert metrics.matthews(PREDICTED, RIGHT) == pytest.approx((2 * 2 - 1 * 1) / 9)
    assert metrics.matthews(1 - RIGHT, RIGHT) == pytest.approx(-1)
    three = np.array([0, 1, 2, 2])
    assert metrics.f1_macro(np.array([0, 1, 2, 1]), three) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_correlations():
    right = np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    assert metrics.pearson(3 * right - 1, right) == pytest.approx(1)
    assert metrics.pearson(-right, right) == pytest.approx(-1)
    assert metrics.spearman(np.exp(right), right) == pytest.approx(1)
    assert metrics.pearson(np.exp(right), right) < 0.95
    x, y = np.array([1.0, 2, 4]), np.array([2.0, 1, 5])
    expected = np.cov(x, y)[0, 1] / np.sqrt(np.var(x, ddof=1) * np.var(y, ddof=1))
    assert metrics.pearson(x, y) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["matthews", "f1", "pearson", "spearman"])
@pytest.mark.parametrize("constant", [0, 3])
def test_constant_predictions_have_no_correlation(name, constant):
    kind = np.int32 if name in ("matthews", "f1") else np.float32
    predicted = np.full(6, min(constant, 1) if name == "f1" else constant, kind)
    found = metrics.METRICS[name](predicted, RIGHT.astype(kind))
    assert found == (2 * 3 / (2 * 3 + 3) if name == "f1" and constant else 0)


@pytest.mark.parametrize(
    "name, predicted",
    [("pearson", [np.nan, 1, 2]), ("pearson", [np.inf, 1, 2]), ("spearman", [1, 2, np.nan])],
)
def test_undefined_correlations_are_0(name, predicted):
    predicted, right = np.array(predicted, np.float32), np.arange(3, dtype=np.float32)
    assert metrics.METRICS[name](predicted, right) == 0
    assert metrics.METRICS[name](right[:1], right[:1]) == 0


def test_predictions_by_logits():
    labels = metrics.predictions_of("classification", np.array([[0.1, 0.2], [3, -1]]))
    assert labels.tolist() == [1, 0] and labels.dtype == np.int32
    for logits in (np.array([[0.5], [2]]), np.array([0.5, 2])):
        assert metrics.predictions_of("regression", logits).tolist() == [0.5, 2]


@pytest.mark.parametrize("name", [task.name for task in GLUE])
def test_each_task_has_its_own(name):
    task = TASKS[name]
    targets = RIGHT if task.kind == "classification" else RIGHT.astype(np.float32)
    data = {split: examples(targets) for split in task.validation_splits}
    found = metrics.task_metrics(task, data, {split: targets for split in data})
    assert found == pytest.approx({metric: 1 for metric in task.metrics})


def test_both_splits_of_mnli():
    data = {f"validation_{end}": examples(RIGHT) for end in ("matched", "mismatched")}
    predictions = {"validation_matched": RIGHT, "validation_mismatched": PREDICTED}
    found = metrics.task_metrics(TASKS["mnli"], data, predictions)
    assert found == {"accuracy_matched": 1, "accuracy_mismatched": pytest.approx(4 / 6)}


@pytest.mark.parametrize("task", SQUAD, ids=lambda task: task.version)
def test_questions(task):
    answers = [(Answer("cat", 0),), () if task.has_unanswerable else (Answer("dog", 0),)]
    zeros = np.zeros(2, np.int32)
    data = Questions(["cat"], zeros, ["?", "?"], ["a", "b"], answers, task.has_unanswerable)
    found = metrics.task_metrics(task, {"validation": data}, {"validation": {"a": "cat", "b": ""}})
    assert found.keys() == set(task.metrics)
    assert found["f1"] == (1 if task.has_unanswerable else 0.5)


def test_predictions_that_do_not_fit():
    data = {"validation": examples(RIGHT), "test": examples(None)}
    with pytest.raises(ValueError, match=r"shape \(6,\) for the split 'validation', got \(6, 2\)"):
        metrics.task_metrics(TASKS["sst2"], data, {"validation": np.zeros([6, 2])})
    with pytest.raises(ValueError, match=r"split 'test' has no targets .* secret"):
        metrics.task_metrics(TASKS["sst2"], data, {"test": RIGHT})
