"""Models that are made from the configuration in a file, which may hold anything."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compact import resized
from tf_movprune.keras2.compat import keras

_MOST_REMOVED = 64
"""Times that a model was larger before it was compacted, at most."""


def model_of(
    cls: type,
    description: dict[str, Any] | None,
    specs: Mapping[str, tf.TensorSpec],
    path: str | pathlib.Path,
) -> keras.Model:
    """Makes a model of a class like the one that was described.

    Args:
      cls: class of Hugging Face models.
      description: what `describe` returned.
      specs: shapes and dtypes of the weights in the file by name. A model that has more weights is
        not made, so that memory is in proportion to them.
      path: path of the file, for messages.

    Raises:
      ValueError: the description is missing or of another class, or makes no model of such weights.
    """
    if description is None or description["class"] != cls.__name__:
        held = (
            description["class"] if description else "a model that is not of Hugging Face's classes"
        )
        raise ValueError(
            f"{path} holds {held}, got the class {cls.__name__}. Pass the class of the model that "
            "was written, or a built model."
        )
    try:
        _check_numbers(description["config"], specs)
        config = hugging_face.configuration(cls, description)
        _check_size(cls, config, specs)
        return resized(cls(config))
    except Exception as error:  # a configuration can fail anywhere in its model
        raise ValueError(
            f"The configuration in {path} makes no {cls.__name__} of its weights: {error} Build "
            "the model yourself and pass it instead of its class."
        ) from error


_COUNTS = re.compile("layer|block|depth|stage|group")  # of what is made in Python, one by one


def _check_numbers(config: dict[str, Any], specs: Mapping[str, tf.TensorSpec]) -> None:
    """Refuses numbers of which a model would make too many objects, before it has weights."""
    most = max(10**6, _elements(spec.shape for spec in specs.values()))
    for key, value in _numbers(config):
        limit = len(specs) if _COUNTS.search(key) else most
        if abs(value) > limit:
            raise ValueError(f"{key} is {value}, and the weights allow {limit}.")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif type(value) is int:
        yield key, value


def _check_size(cls: type, config: Any, specs: Mapping[str, tf.TensorSpec]) -> None:
    """Refuses a configuration whose model has more elements than the file."""
    found = _elements(hugging_face.full_size_shapes(cls, config))
    declared = _elements(spec.shape for spec in specs.values())
    is_compacted = hugging_face.remaining_sizes(config) is not None
    if found > declared * (_MOST_REMOVED if is_compacted else 1):
        raise ValueError(f"it has {found:,} elements, and the file {declared:,}.")


def _elements(shapes: Any) -> int:
    return sum(math.prod(shape) for shape in shapes)
