"""Labels and scores of examples, from what files say, and checks of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_movprune.tasks.examples import listed

Place = Callable[[int], str]
_WHOLE = re.compile(r"-?[0-9]+(\.0+)?")  # "1.0" is what a column of floats has for 1


def label_numbers(values: Sequence[Any], label_names: Sequence[str], place: Place) -> np.ndarray:
    """The int32 number of each label, which files give by name or by number.

    Args:
      values: names of labels; or their numbers, unless a name is itself a number.
      label_names: the names, in order.
      place: function from an index to the place in a file, for messages.

    Raises:
      ValueError: a label is unknown.
    """
    numbers = {name: i for i, name in enumerate(label_names)}
    if not any(map(is_whole_number, label_names)):
        numbers.update({str(i): i for i in range(len(label_names))})
    try:
        return np.array([numbers[label_text(value)] for value in values], np.int32)
    except KeyError:
        wrong = next(i for i, value in enumerate(values) if label_text(value) not in numbers)
        raise ValueError(
            f"{place(wrong)}: expected one of the labels {listed(label_names, 20)}, got "
            f"{values[wrong]!r}. Correct the label, or name the column and the labels that the "
            "file has."
        ) from None


def label_text(value: Any) -> str:
    """The name of a label: whole numbers are written without a fraction."""
    text = str(value).strip()
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def is_whole_number(name: str) -> bool:
    """Whether the name of a label is a whole number."""
    return _WHOLE.fullmatch(name) is not None


def score_values(values: Sequence[Any], place: Place) -> np.ndarray:
    """Scores as float32.

    Raises:
      ValueError: a score is no finite number.
    """
    scores = np.zeros(len(values), np.float32)
    for i, value in enumerate(values):
        try:
            scores[i] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            scores[i] = math.nan
        if not np.isfinite(scores[i]):
            raise ValueError(
                f"{place(i)}: expected a finite number as score, got {value!r}. Correct or "
                "remove the line."
            )
    return scores


def checked_texts(name: str, values: Sequence[Any], place: Place, empty: bool = False) -> list[str]:
    """Texts without white space around them.

    Args:
      name: the column, for messages.
      values: the texts.
      place: function from an index to the place in a file, for messages.
      empty: whether a text may be empty.

    Raises:
      ValueError: a text is empty, no text, or has half of a character.
    """
    texts = []
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"{place(i)}: expected a text as {name!r}, got {value!r}. Quote it.")
        text = value.strip()
        if not text and not empty:
            raise ValueError(f"{place(i)}: {name!r} is empty. Fill it in or remove the line.")
        if not text.isascii():
            check_characters(name, text, place(i))
        texts.append(text)
    return texts


def check_characters(name: str, text: str, place: str) -> None:
    """Raises ValueError for half of a character, which JSON can express and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{place}: {name!r} has a lone surrogate, half of a character: {text!a:.60}. Write the "
            "whole character."
        ) from None
