"""The one place that names tf_keras, and where tensorflow_model_optimization keeps its parts."""

from typing import Any

import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras.prunable_layer import PrunableLayer
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_policy import PruningPolicy
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import (
    ConstantSparsity,
    PolynomialDecay,
    PruningSchedule,
)
from tf_keras.export import ExportArchive
from tf_keras.layers import Layer
from tf_keras.src.saving.legacy.saved_model.utils import in_tf_saved_model_scope as is_saving

REGISTERED_KERNELS: dict[type, list[str]] = PruneRegistry._LAYERS_WEIGHTS_MAP
"""Attribute paths of the kernels of each layer class that tfmot can prune."""

__all__ = [
    "REGISTERED_KERNELS",
    "ConstantSparsity",
    "ExportArchive",
    "Layer",
    "PolynomialDecay",
    "PrunableLayer",
    "PruningPolicy",
    "PruningSchedule",
    "check_keras_object",
    "is_saving",
    "keras",
    "register",
    "registered_name",
]


def register(cls):
    """Registers a class under its own name, so that saved models find it again."""
    return keras.saving.register_keras_serializable(package="tf_movprune")(cls)


def registered_name(cls) -> str:
    """The name under which saved models find a class."""
    return keras.saving.get_registered_name(cls)


def check_keras_object(
    obj: Any,
    cls: type = Layer,
    expected: str = "a tf_keras model, a layer or a list of layers",
) -> None:
    """Raises TypeError where `obj` is not a `cls` of Keras 2, with a remedy if it is of Keras 3."""
    if isinstance(obj, cls):
        return
    if any(base.__module__.split(".")[0] == "keras" for base in type(obj).__mro__):
        raise TypeError(
            f"{type(obj).__name__} is a Keras 3 object, and tf_movprune works with Keras 2: build "
            "the model with tf_keras (`import tf_keras as keras`). For a library that uses "
            "`tf.keras`, set the environment variable TF_USE_LEGACY_KERAS=1 before TensorFlow is "
            "imported."
        )
    raise TypeError(f"Expected {expected}, got {type(obj).__name__}.")
