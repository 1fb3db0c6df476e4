"""The one place that names tf_keras, and where tensorflow_model_optimization keeps its parts."""

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
