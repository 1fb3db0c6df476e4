"""Models that are made from the configuration in a file, which may hold anything."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.described_model import (
    MOST_REMOVED,
    check_numbers,
    check_size,
    configuration_for,
    useless,
)
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compact import resized
from tf_movprune.keras2.compat import keras


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
    others = "a model that is not of Hugging Face's classes"
    values = configuration_for(cls, description, others, path)
    try:
        check_numbers(values, specs)
        config = hugging_face.configuration(cls, values)
        is_compacted = hugging_face.is_compacted(config)
        shapes = hugging_face.full_size_shapes(cls, config)
        check_size(shapes, specs, MOST_REMOVED if is_compacted else 1)
        return resized(cls(config))
    except Exception as error:  # a configuration can fail anywhere in its model
        raise useless(cls, path, error) from error
