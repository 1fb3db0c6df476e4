"""Teachers that are given are tried on some examples before a student learns from them."""

import dataclasses

import numpy as np
import pytest
import tiny_pretrained

from tf_movprune.runs import teacher_check, training
from tf_movprune.runs.preparation import prepare
from tf_movprune.runs.teacher_check import check_teacher


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
        rf"The teacher x is right on 0.0% of 8 .*read as {names[1]}, {names[2]}, {names[0]} it "
        rf"would be on 100.0%.*classes are {', '.join(names)}, in this order"
    )
    with pytest.raises(ValueError, match=message):
        check_teacher(prepared, outputs([2, 0, 1]), "x", 8)


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
    with pytest.raises(ValueError, match=r"is right on 0.0% of 8 .*worse than guessing"):
        training.train(settings, verbose=0)
    assert not (tmp_path / "student").exists()
