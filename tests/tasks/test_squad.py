"""SQuAD's files: what is read, and what is wrong with them."""

import copy
import os
import pathlib

import numpy as np
import pytest
import task_files
import tensorflow as tf

from tf_movprune.tasks.examples import Answer
from tf_movprune.tasks.squad import SQUAD, questions_of

V1, V2 = SQUAD
SHARED = pathlib.Path(
    os.environ.get("TF_MOVPRUNE_TASK_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data")
)
CONTEXT = "It was déjà vu — twice, twice."


def document(**question):
    """A document of one question, with some values of it changed or, if None, left out."""
    record = {"id": "q1", "question": "How often?", "answers": [answer("twice", 17)], **question}
    record = {key: value for key, value in record.items() if value is not None}
    return {"data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": [record]}]}]}


def answer(text, start):
    return {"text": text, "answer_start": start}


@pytest.mark.parametrize("task", SQUAD, ids=lambda task: task.version)
def test_official_files(task, tmp_path):
    task_files.write_squad(tmp_path / "data", task.version)
    data = task.load(tmp_path)
    assert {split: len(found) for split, found in data.items()} == {"train": 12, "validation": 6}
    train, validation = data.values()
    assert len(train.contexts) == 6 and train.context_of.tolist() == np.repeat(range(6), 2).tolist()
    assert train.has_unanswerable == (task.version == "v2.0")
    counts = [len(answers) for answers in validation.answers]
    assert counts == ([2, 0] * 3 if task.has_unanswerable else [2] * 6)
    for context, answers in zip(train.context_of, train.answers):
        for found in answers:
            assert train.contexts[context][found.start :].startswith(found.text)


def test_answers_are_where_characters_are():
    questions = questions_of(document(), False, "here")
    assert questions.answers == [(Answer("twice", 17),)] and questions.ids == ["q1"]
    assert questions.contexts == [CONTEXT] and questions.questions == ["How often?"]


def test_a_subset_is_found_unless_there_are_several(tmp_path):
    folder = task_files.write_squad(tmp_path)
    (folder / "train-v1.1.json").rename(folder / "train-subset-v1.1.json")
    assert len(V1.load(folder)["train"]) == 12
    (folder / "train-other-v1.1.json").write_text("{}")
    message = r"several files train\*v1\.1\.json: train-other.*train-subset.*Name one of them"
    with pytest.raises(FileNotFoundError, match=message):
        V1.load(folder)


@pytest.mark.parametrize(
    "question, message",
    [
        (
            {"answers": [answer("twice", 16)]},
            r"expected the answer 'twice' at .*16.* got ' twic'\.",
        ),
        ({"answers": [answer("twice", 16)]}, r"counts characters: 17 has it\."),
        ({"answers": [answer("once", 17)]}, r"The context does not have it: correct the text"),
        ({"answers": [answer("twice.", 26)]}, r"'twice\.' at character 26 is outside .* 30 charac"),
        ({"answers": [answer("twice", -5)]}, r"at character -5 is outside"),
        ({"answers": [{"text": "twice"}]}, r"\(id 'q1'\) has no 'answer_start', but text\. Add it"),
        ({"answers": [answer("twice", "17")]}, r"'answer_start' must be a whole number, got '17'"),
        ({"answers": [answer(None, 17)]}, r"'text' must be a text, got None"),
        ({"answers": {}}, r"'answers' must be a list, got {}"),
        ({"answers": ["twice"]}, r"expected an object with 'text', got str\."),
        ({"answers": []}, r"the question has no answer, as only v2\.0 allows\. Add one"),
        ({"question": "a\ud800"}, r"'question' has a lone surrogate, .* 'a\\ud800'\. Write"),
        ({"question": " "}, r"'question' is empty\. Fill it in"),
        ({"question": None}, r"x\.json: data\[0\]\.paragraphs\[0\]\.qas\[0\] has no 'question'"),
        ({"id": 3}, r"'id' must be a text, got 3"),
    ],
)
def test_malformed_questions(question, message):
    with pytest.raises(ValueError, match=message):
        questions_of(document(**question), False, "x.json")


def test_ids_are_unique():
    twice = document()
    twice["data"].append(copy.deepcopy(twice["data"][0]))
    message = (
        r"data\[1\]\.paragraphs\[0\]\.qas\[0\]: the id 'q1' is that of .*data\[0\]\.para.* already"
    )
    with pytest.raises(ValueError, match=message):
        questions_of(twice, False, "x.json")


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", r"t\.json: expected an object with 'data', got list"),
        ("{}", r"t\.json has no 'data', but none"),
        ('{\n"data": [}', r"t\.json, line 2, column 10: expected JSON, got '}'"),
        ('{"data": []}', r"The split 'train' of .*t\.json has no examples"),
    ],
)
def test_malformed_documents(text, message, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        V1.load(files={"train": path})


def test_questions_that_may_have_no_answer():
    for question in (
        {"answers": []},
        {"is_impossible": True},
        {"is_impossible": True, "answers": []},
    ):
        assert questions_of(document(**question), True, "here").answers == [()]


def test_missing_files(tmp_path):
    folder = task_files.write_squad(tmp_path, "v2.0")
    with pytest.raises(
        FileNotFoundError, match=r"no file train-v1\.1\.json or .* has: dev-v2\.0\.json"
    ):
        V1.load(folder)
    with pytest.raises(
        ValueError, match=r"No file is given for the split 'validation' of SQuAD v2"
    ):
        V2.load(files={"train": folder / "train-v2.0.json"}, splits=["train", "validation"])


def test_tensorflow_datasets(monkeypatch):
    def load(dataset, split, batch_size):
        assert (dataset, split, batch_size) == ("squad/v2.0", "train", -1)
        return {
            "id": np.array([b"a", b"b"]),
            "title": np.array([b"T", b"T"]),
            "question": np.array([b"How often?", b"Who?"]),
            "context": np.array([CONTEXT.encode()] * 2),
            "is_impossible": np.array([False, True]),
            "answers": {  # the offset is that of the text with a space before it
                "text": tf.ragged.constant([[b"twice"], []], dtype=tf.string),
                "answer_start": tf.ragged.constant([[16], []], dtype=tf.int32),
            },
        }

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda data: data)
    (questions,) = V2.load(splits=["train"]).values()
    assert questions.contexts == [CONTEXT] and questions.context_of.tolist() == [0, 0]
    assert questions.answers == [(Answer("twice", 17),), ()]


@pytest.mark.skipif(
    not (SHARED / "squad_v1.1").is_dir(), reason="TF_MOVPRUNE_TASK_DATA has no squad_v1.1"
)
def test_all_of_squad():
    data = V1.load(SHARED)
    assert {split: len(found) for split, found in data.items()} == {
        "train": 14_348,
        "validation": 10_570,
    }
    assert len(data["validation"].contexts) == 2067
