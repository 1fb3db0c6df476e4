"""Models that are made from the configuration in a file, which may hold anything."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.described_model import (
    MOST_REMOVED,
    check_numbers,
    check_size,
    configuration_for,
    useless,
)
from tf_movprune.keras3 import keras_hub
from tf_movprune.keras3.compacted_layer import (
    class_of,
    full_size,
    plain_class,
    register_classes,
)

_KEYS = ("config", "build_config")


def describe(model: keras.Model) -> dict[str, Any] | None:
    """The class and configuration of a model, without what it was compiled with.

    KerasHub's tasks are described without their preprocessors, whose vocabularies are in other
    files. The result is None for models whose class has no `get_config` of its own.
    """
    cls = type(model)
    if not has_configuration(cls):
        return None
    try:
        serialized = keras.saving.serialize_keras_object(model)
        config = {key: serialized[key] for key in _KEYS if key in serialized}
        json.dumps(config)
    except Exception:  # whatever a user's get_config raises, or values that JSON lacks
        return None
    if keras_hub.is_task(cls):
        config["config"]["preprocessor"] = None
    return {"class": plain_class(cls).__name__, "config": config}


def has_configuration(cls: Any) -> bool:
    """Returns whether a class of models has a `get_config` of its own.

    That of Keras lists layers; or it guesses, and misses arguments of the class.
    """
    is_model = isinstance(cls, type) and issubclass(cls, keras.Model)
    return is_model and not cls.get_config.__module__.startswith("keras.")


def model_of(
    cls: type,
    description: dict[str, Any] | None,
    specs: Mapping[str, tf.TensorSpec],
    path: str | pathlib.Path,
) -> keras.Model:
    """Makes a model of a class like the one that was described.

    Args:
      cls: class of Keras models.
      description: what `describe` returned.
      specs: shapes and dtypes of the weights in the file by name. A model that has more weights is
        not made, so that memory is in proportion to them.
      path: path of the file, for messages.

    Raises:
      ValueError: the description is missing or of another class, or makes no model of such weights.
    """
    config = configuration_for(cls, description, "a model without a configuration", path)
    try:
        check_numbers(config, specs)
        with tf.Graph().as_default():  # of which nothing runs, so that weights take no memory
            is_compacted = register_classes(config)
            made = _made(cls, full_size(config))
            shapes = [tuple(weight.shape) for weight in made.weights]
        check_size(shapes, specs, MOST_REMOVED if is_compacted else 1)
        return _made(cls, config)
    except Exception as error:  # a configuration can fail anywhere in its model
        raise useless(cls, path, error) from error


def _made(cls: type, config: Mapping[str, Any]) -> keras.Model:
    """The model of a configuration; Keras's safe mode refuses code in it."""
    cls, name = class_of(cls, config), cls.__name__
    described = {key: copy.deepcopy(config[key]) for key in _KEYS if key in config}
    described |= {"class_name": name, "registered_name": name}
    return keras.saving.deserialize_keras_object(
        described, custom_objects={name: cls}, safe_mode=True
    )
