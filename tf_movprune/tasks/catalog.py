"""Tasks by name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from tf_movprune.tasks.glue import GLUE
from tf_movprune.tasks.own_files import column_task
from tf_movprune.tasks.squad import SQUAD
from tf_movprune.tasks.task import Task

_OWN_QUESTIONS = tuple(
    dataclasses.replace(task, name=name, title=title, dataset=None)
    for task, name, title in zip(
        SQUAD, ("questions", "questions_v2"), ("Questions", "Questions, some without answer")
    )
)
OWN = "own"
"""Name of a task whose files have columns of the user's choice."""

TASKS: tuple[Task, ...] = (*GLUE, *SQUAD, *_OWN_QUESTIONS)
"""All tasks that have a name; "questions" are files of the user's own in SQuAD's format."""

_OTHER_NAMES = {"squadv11": "squad", "squad11": "squad", "squadv1": "squad", "squad1": "squad"}
_OTHER_NAMES |= {"squadv20": "squad_v2", "squad20": "squad_v2", "squad2": "squad_v2"}


def named_task(name: str) -> Task | None:
    """The task of `TASKS` that a name means; None if it is another one."""
    plain = _plain(name)
    known = {found.name.replace("_", ""): found for found in TASKS}
    return known.get(_OTHER_NAMES.get(plain, plain).replace("_", ""))


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().removeprefix("glue/") if c.isalnum())


def task(
    name: str,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str = "label",
    kind: str = "classification",
    label_names: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
) -> Task:
    """A task by its name.

    Case, and characters other than letters and digits, do not matter: "sst2", "SST-2" and
    "glue/sst2" are one task, and so are "squad", "squad/v1.1" and "SQuAD v1.1".

    Args:
      name: one of the names in `TASKS`; "own" for files of the user's own; or, if `text` is given,
        any name in tensorflow_datasets.
      text: column of the text, for "own", where it is "text" by default, and other data sets.
      text_pair: column of the second text of a pair.
      label: column of the label or score.
      kind: "classification" or "regression".
      label_names: names of the labels in order; by default those of the training split, sorted.
      metrics: names of metrics, the main one first.

    Raises:
      ValueError: there is no task of that name, or it has columns of its own.
    """
    found = named_task(name)
    if found is not None:
        if text is not None or text_pair is not None:
            raise ValueError(
                f"{found.title} has columns of its own, got text={text!r} and "
                f"text_pair={text_pair!r}. Take the task {OWN!r} for files with other columns."
            )
        return found
    if text is None and name != OWN:
        names = [OWN, *(found.name for found in TASKS)]
        nearest = difflib.get_close_matches(_plain(name), names, n=1)
        raise ValueError(
            f"There is no task {name!r}."
            + (f" Did you mean {nearest[0]!r}?" if nearest else "")
            + f" The tasks are {', '.join(names)}; for another data set of tensorflow_datasets, "
            "name its columns."
        )
    return column_task(
        text or "text",
        text_pair,
        label,
        kind=kind,
        label_names=label_names,
        metrics=metrics,
        name=name,
        title="Own files" if name == OWN else name,
        dataset=None if name == OWN else name,
    )
