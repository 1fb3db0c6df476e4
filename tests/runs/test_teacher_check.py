"""Teachers that are given are tried on some examples before a student learns from them."""

import dataclasses

import numpy as np
import pytest
import tiny_pretrained

from tf_movprune.keras3 import hidden_layers
from tf_movprune.runs import teacher_check, training
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import prepare
from tf_movprune.runs.teacher_check import _Trial, check_teacher, given_teacher


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("teachers")
    data = tiny_pretrained.write_data("mnli", path / "data")
    settings = tiny_pretrained.settings("mnli", path / "run", data_dir=str(data))
    return prepare(settings, say=lambda text: None)[0]


def outputs(order):
    """A model that knows the labels and has them in another order."""

    def logits(features, batch_size):
        rows = np.array(order)[features.targets["labels"]]
        return {"logits": list(np.eye(len(order))[rows])}

    return logits


def test_a_teacher_that_knows_the_task(prepared):
    line = check_teacher(prepared, outputs([0, 1, 2]), "teacher", 8)
    assert line == "teacher: right on 100.0% of 8 examples of validation_matched"


def test_a_teacher_whose_classes_are_in_another_order(prepared):
    names = prepared.label_names  # the teacher's output 2 means the first of them
    message = (
        rf"The teacher x is right on 0.0% of 8 .*where guessing finds 33.3%; with its outputs read "
        rf"as {names[1]}, {names[2]}, {names[0]} it would find 100.0%.*"
        rf"classes are {', '.join(names)}, in this order"
    )
    with pytest.raises(ValueError, match=message):
        check_teacher(prepared, outputs([2, 0, 1]), "x", 8)


@pytest.mark.parametrize(
    "counts, is_refused",
    [
        ([[4, 0], [0, 4]], False),
        ([[1, 3], [2, 2]], False),  # 3 of 8 right: one of 70 % is that bad in 6 of 100 trials
        ([[1, 3], [1, 3]], False),
        ([[0, 4], [1, 3]], False),
        ([[0, 4], [3, 1]], True),
        ([[0, 1], [1, 0]], False),
        ([[60, 68], [68, 60]], False),
        ([[50, 78], [78, 50]], True),
        ([[90, 110], [6, 50]], False),  # it is right on less than half of them, and finds classes
        ([[0, 3, 0], [0, 0, 3], [2, 0, 0]], True),
        ([[10, 70, 5], [70, 10, 5], [10, 5, 70]], True),  # two of three are exchanged
        ([[0, 1, 2], [2, 0, 1], [1, 1, 0]], False),
        (np.random.RandomState(0).multinomial(13, [0.05] * 20, size=20), False),  # it guesses
        (np.roll(8 * np.eye(20, dtype=int), 1, axis=1), True),
        ([[0, 9, 0], [9, 0, 0], [0, 0, 0]], True),  # no example of the third class
    ],
)
def test_teachers_are_not_refused_by_chance(counts, is_refused):
    trial = _Trial(np.array(counts))
    assert (trial.is_worse_than_guessing or trial.is_better_in_other_order) == is_refused


def test_a_bad_teacher_of_few_examples_is_told(prepared):
    def logits(features, batch_size):
        wrong = np.array([0, 1, 2, 1, 2, 1, 2, 1])
        return {"logits": list(np.eye(3)[(features.targets["labels"] + wrong) % 3])}

    line = check_teacher(prepared, logits, "x", 8)
    assert line.startswith("teacher: right on 12.5% of 8 examples of validation_matched, which is")
    assert "not by more than chance: make sure" in line and "neutral" in line


def test_other_tasks_have_no_classes(prepared):
    scores = dataclasses.replace(
        prepared, task=dataclasses.replace(prepared.task, kind="regression")
    )
    assert check_teacher(scores, outputs([2, 0, 1]), "x", 8) == ""


@pytest.mark.parametrize(
    "library", ["keras_hub", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_a_run_tries_the_teacher_that_it_is_given(library, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "report", lambda *args: None)
    dense = {"library": library, "method": "dense", "num_train_steps": 1}
    tiny_pretrained.run("sst2", tmp_path, **dense)
    teacher = str(tmp_path / "run")
    settings = tiny_pretrained.settings(
        "sst2", tmp_path / "student", data_dir=str(tmp_path / "data"), **dense, teacher=teacher
    )
    wrong = 1 - np.arange(8)[np.random.RandomState(0).permutation(8)] % 2  # labels take turns
    monkeypatch.setattr(teacher_check, "predictions_of", lambda kind, logits: wrong)
    with pytest.raises(ValueError, match=r"is right on 0.0% of 8 .*guessing finds 50.0%"):
        training.train(settings, verbose=0)
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("library", ["keras_hub", "transformers"])
@pytest.mark.parametrize(
    "shape, message",
    [
        ({"layers": 2}, "the student has 1 layer .* and the teacher 2 layers"),
        ({"hidden": 16}, r"\(1, 8, 32\) of the student's .* and \(1, 8, 16\) of the teacher's"),
    ],
)
def test_hidden_states_of_another_kind_of_model(library, shape, message, tmp_path):
    data = str(tiny_pretrained.write_data("sst2", tmp_path / "data"))
    common = {"data_dir": data, "library": library}
    other = tiny_pretrained.settings(
        "sst2", tmp_path, model=tiny_pretrained.folder(**shape), method="dense", **common
    )
    prepared, teacher = prepare(other, say=lambda text: None)
    shell = shell_of(library)
    folder = str(tmp_path / "teacher")
    shell.save(teacher, prepared.tokenizer, folder, prepared.label_names)
    given = tiny_pretrained.settings("sst2", tmp_path, teacher=folder, alpha_hidden=1.0, **common)
    prepared, model = prepare(given, say=lambda text: None)
    with pytest.raises(ValueError, match=f"alpha_hidden is 1.0.*{message}.*pass alpha_hidden 0"):
        given_teacher(given, prepared, model, print)


def test_blocks_that_are_not_known_are_told_before_a_teacher_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(hidden_layers, "blocks", lambda model, layers: {})
    with pytest.raises(ValueError, match=r"blocks of the student .* not known.*alpha_hidden 0"):
        tiny_pretrained.run("sst2", tmp_path, teacher="fine-tune", alpha_hidden=1.0)
    assert not (tmp_path / "run").exists()
