"""Checks of the configuration in a file, which may hold anything, before a model is made of it."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

MOST_REMOVED = 64
"""Times that a model was larger before it was compacted, at most."""


def configuration_for(
    cls: type, description: dict[str, Any] | None, others: str, path: str | pathlib.Path
) -> dict[str, Any]:
    """The configuration of a model of a class in a file.

    Args:
      cls: the class.
      description: what `describe` of a shell returned.
      others: words for the models that a file does not describe.
      path: path of the file, for messages.

    Raises:
      ValueError: the description is missing, or of another class.
    """
    if description is None or description["class"] != cls.__name__:
        raise ValueError(
            f"{path} holds {description['class'] if description else others}, got the class "
            f"{cls.__name__}. Pass the class of the model that was written, or a built model."
        )
    return description["config"]


def useless(cls: type, path: str | pathlib.Path, error: Exception) -> ValueError:
    """The error to raise if no model can be made of the description in a file."""
    return ValueError(
        f"The configuration in {path} makes no {cls.__name__} of its weights: {error} Build "
        "the model yourself and pass it instead of its class."
    )


def check_numbers(config: Mapping[str, Any], specs: Mapping[str, tf.TensorSpec]) -> None:
    """Refuses numbers of which a model would make too many objects, before it has weights.

    Raises:
      ValueError: a number is too large for the weights in the file.
    """
    most = max(10**6, _elements(spec.shape for spec in specs.values()))
    for key, value in _numbers(config):
        limit = len(specs) if _COUNTS.search(key) else most
        if abs(value) > limit:
            raise ValueError(f"{key} is {value}, and the weights allow {limit}.")


def check_size(
    shapes: Iterable[Any], specs: Mapping[str, tf.TensorSpec], most_removed: int = 1
) -> None:
    """Refuses a model that has more elements than the file.

    Args:
      shapes: shapes of the model's weights.
      specs: shapes and dtypes of the weights in the file by name.
      most_removed: how many times larger the model was, at most, before parts of it were removed.

    Raises:
      ValueError: the model is larger.
    """
    found = _elements(shapes)
    declared = _elements(spec.shape for spec in specs.values())
    if found > declared * most_removed:
        raise ValueError(f"it has {found:,} elements, and the file {declared:,}.")


_COUNTS = re.compile("layer|block|depth|stage|group")  # of what is made in Python, one by one


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif type(value) is int:
        yield key, value


def _elements(shapes: Iterable[Any]) -> int:
    return sum(math.prod(shape) for shape in shapes)
