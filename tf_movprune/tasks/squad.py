"""SQuAD v1.1 and v2.0, from their own files or through tensorflow_datasets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.tasks.datasets import read_dataset, texts_of
from tf_movprune.tasks.examples import Answer, Questions, listed
from tf_movprune.tasks.targets import check_characters
from tf_movprune.tasks.task import Data, Task, file_in, folder_of
from tf_movprune.tasks.text_files import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionTask(Task):
    """Questions whose answers are parts of a context, in SQuAD's format.

    Attributes:
      version: "v1.1" or "v2.0", in which questions may have no answer.
      dataset: the name in tensorflow_datasets; None if it has none.
      stride: the usual step between the starts of windows.
      question_length: the usual number of tokens that questions are cut to.
    """

    version: str
    dataset: str | None = None
    stride: int = 128
    question_length: int = 64

    @property
    def has_unanswerable(self) -> bool:
        """Whether a question may have no answer."""
        return self.version == "v2.0"

    def _read(
        self, folder: pathlib.Path | None, files: Mapping[str, pathlib.Path], splits: Sequence[str]
    ) -> dict[str, Data]:
        if folder is None and not files and self.dataset is not None:
            return {split: self._from_dataset(self.dataset, split) for split in splits}
        if folder is not None:
            folder = folder_of(
                folder, [f"squad_{self.version}", f"squad{self.version[1]}", "squad"]
            )
        return {split: self._from_file(split, folder, files.get(split)) for split in splits}

    def _from_file(
        self, split: str, folder: pathlib.Path | None, path: pathlib.Path | None
    ) -> Questions:
        start = split.replace("validation", "dev")
        if path is None and folder is None:
            raise ValueError(
                f"No file is given for the split {split!r} of {self.title}. Name it in `files`, or "
                f"pass the folder that has {start}-{self.version}.json as data_dir."
            )
        if path is None:
            names = [
                f"{start}-{self.version}.json",
                f"{start}*{self.version}.json",
                f"{start}.json",
            ]
            path = file_in(folder or pathlib.Path(), names)
        return questions_of(read_json(path), self.has_unanswerable, str(path))

    def _from_dataset(self, dataset: str, split: str) -> Questions:
        data = read_dataset(dataset, split)
        count = len(data["id"])
        titles, contexts, questions, ids = (
            texts_of(data[key]) for key in ("title", "context", "question", "id")
        )
        no_answer = data["is_impossible"] if "is_impossible" in data else np.zeros(count, bool)
        starts, texts = _lists(data["answers"]["answer_start"]), _lists(data["answers"]["text"])
        records = [
            {
                "id": ids[i],
                "question": questions[i],
                "is_impossible": bool(no_answer[i]),
                "answers": [
                    {"text": text, "answer_start": _moved(contexts[i], text, int(start))}
                    for text, start in zip(texts_of(texts[i]), starts[i])
                ],
            }
            for i in range(count)
        ]
        articles = [
            {"title": title, "paragraphs": [{"context": context, "qas": [record]}]}
            for title, context, record in zip(titles, contexts, records)
        ]
        source = f"{dataset} of tensorflow_datasets, {split}"
        return questions_of({"data": articles}, self.has_unanswerable, source)


def questions_of(content: Any, has_unanswerable: bool, source: str) -> Questions:
    """The questions of a JSON document in SQuAD's format.

    Args:
      content: the document.
      has_unanswerable: whether questions may have no answer, as in v2.
      source: where it comes from, for messages.

    Raises:
      ValueError: a key is missing or of another type, an id is there twice, or an answer is not
        where it should be in its context.
    """
    number: dict[str, int] = {}
    seen: dict[str, str] = {}
    context_of: list[int] = []
    questions: list[str] = []
    answers: list[tuple[Answer, ...]] = []
    for place, context, record in _records(content, source):
        id_ = record["id"]
        if id_ in seen:
            raise ValueError(
                f"{place}: the id {id_!r} is that of {seen[id_]} already. Give each question an "
                "id of its own."
            )
        seen[id_] = place
        context_of.append(number.setdefault(context, len(number)))
        questions.append(record["question"].strip())
        answers.append(_answers(f"{place} (id {id_!r})", context, record, has_unanswerable))
    return Questions(
        list(number),
        np.array(context_of, np.int32),
        questions,
        list(seen),
        answers,
        has_unanswerable,
        source,
    )


def _records(content: Any, source: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The place, the context and the record of each question."""
    for a, article in enumerate(_value(source, content, "data", list)):
        where = f"{source}: data[{a}]"
        for p, paragraph in enumerate(_value(where, article, "paragraphs", list)):
            place = f"{where}.paragraphs[{p}]"
            context = _value(place, paragraph, "context", str)
            for q, record in enumerate(_value(place, paragraph, "qas", list)):
                here = f"{place}.qas[{q}]"
                _value(here, record, "id", str)
                _value(here, record, "question", str)
                yield here, context, record


def _answers(
    place: str, context: str, record: dict[str, Any], has_unanswerable: bool
) -> tuple[Answer, ...]:
    """The right answers of a question, all of them found in the context."""
    if has_unanswerable and record.get("is_impossible", False):
        return ()
    found = []
    for answer in _value(place, record, "answers", list):
        text = _value(place, answer, "text", str, may_be_empty=True)
        start = _value(place, answer, "answer_start", int)
        if not 0 <= start <= len(context) - len(text):
            raise ValueError(
                f"{place}: the answer {text!r} at character {start} is outside of its context of "
                f"{len(context)} characters. Correct answer_start."
            )
        if context[start : start + len(text)] != text:
            raise ValueError(
                f"{place}: expected the answer {text!r} at character {start} of the context, got "
                f"{context[start : start + len(text)]!r}. {_hint(context, text)}"
            )
        found.append(Answer(text, start))
    if not found and not has_unanswerable:
        raise ValueError(
            f"{place}: the question has no answer, as only v2.0 allows. Add one, or take the task "
            "squad_v2."
        )
    return tuple(found)


def _hint(context: str, text: str) -> str:
    if text in context:
        return f"Correct answer_start, which counts characters: {context.index(text)} has it."
    return "The context does not have it: correct the text."


def _value(place: str, record: Any, key: str, kind: type, may_be_empty: bool = False) -> Any:
    """A value of a JSON object, of the right type.

    Raises:
      ValueError: it is not there, of another type, a blank text, or has half of a character.
    """
    if not isinstance(record, dict):
        raise ValueError(
            f"{place}: expected an object with {key!r}, got {type(record).__name__}. Compare with "
            "a file of SQuAD."
        )
    if key not in record:
        raise ValueError(f"{place} has no {key!r}, but {listed(list(record))}. Add it.")
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(
            f"{place}: {key!r} must be {_KINDS[kind]}, got {value!r:.60}. Compare with a file of "
            "SQuAD."
        )
    if isinstance(value, str) and not may_be_empty and not value.strip():
        raise ValueError(f"{place}: {key!r} is empty. Fill it in, or remove the question.")
    if isinstance(value, str):
        check_characters(key, value, place)
    return value


_KINDS = {str: "a text", int: "a whole number", list: "a list"}


def _lists(values: Any) -> Any:
    """Rows of a ragged array of tensorflow_datasets, which NumPy has no type for."""
    return values.to_list() if hasattr(values, "to_list") else values


def _moved(context: str, text: str, start: int) -> int:
    """Where an answer is, nearest to `start`: tensorflow_datasets strips texts, not offsets."""
    for distance in range(len(context) + 1):
        for place in (start + distance, start - distance):
            if place >= 0 and context.startswith(text, place):
                return place
    return start


_METRICS = ("exact_match", "f1")

SQUAD = tuple(
    QuestionTask(
        name=name,
        title=f"SQuAD {version}",
        kind="questions",
        metrics=metrics,
        main_metric="f1",
        max_length=384,
        version=version,
        dataset=f"squad/{version}",
    )
    for name, version, metrics in (
        ("squad", "v1.1", _METRICS),
        ("squad_v2", "v2.0", (*_METRICS, "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")),
    )
)
"""SQuAD v1.1 and SQuAD v2.0."""
