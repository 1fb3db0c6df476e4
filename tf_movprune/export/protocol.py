"""Functions that exports need from a shell, the package that knows the Keras of a model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tf_movprune.core.inference import Inference
from tf_movprune.core.named_weights import NamedWeight
from tf_movprune.shells import module_for


class Shell(Protocol):
    """The functions of a shell that exports call, with models of its Keras."""

    def check_stripped(self, model: Any) -> None:
        """Raises TypeError if `model` is not a model, ValueError if it is still pruned."""

    def inference_of(
        self,
        model: Any,
        sequence_length: int | None,
        batch_size: int | None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Inference:
        """The inference of a stripped model, with open sizes, and maybe arguments, as given."""

    def computing_in_float32(self, model: Any) -> AbstractContextManager[None]:
        """Lets a model of mixed precision compute in float32 during a context."""

    def compacted(
        self, model: Any, rows: int = 1, min_sparsity: float = 0.0
    ) -> AbstractContextManager[tuple[Any, dict[str, tuple[int, int]]]]:
        """Removes empty heads and neurons during a context; yields the model and their numbers."""

    def write_saved_model(self, model: Any, inference: Inference, path: str) -> None:
        """Writes a SavedModel whose `serving_default` is the inference of a model."""

    def named_weights(self, model: Any) -> list[NamedWeight]:
        """The weights of a stripped model, in its order."""

    def check_loadable(self, model: Any) -> None:
        """Raises an error if weights can be assigned neither to `model` nor to one of its class."""

    def matching_weights(
        self, model: Any, specs: Mapping[str, tf.TensorSpec], path: str | pathlib.Path
    ) -> Mapping[str, Any]:
        """The weights of a model by their names in a file; ValueError if they are not the same."""

    def assign_weights(
        self,
        model: Any,
        weights: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        path: str | pathlib.Path,
    ) -> None:
        """Gives the weights of a model, which `matching_weights` found, values; all or none."""

    def remaining_weights(self, model: Any) -> list[tuple[str, tuple[int, ...], int, str]]:
        """The path, shape, number of remaining entries and group of each prunable weight."""

    def describe(self, model: Any) -> dict[str, Any] | None:
        """JSON values that a model can be made from again; None if its class has none."""

    def model_of(
        self,
        cls: type,
        description: dict[str, Any] | None,
        specs: Mapping[str, tf.TensorSpec],
        path: str | pathlib.Path,
    ) -> Any:
        """Makes a new model of a class from what `describe` returned, if it has such weights."""


def shell_of(model: Any) -> Shell:
    """The shell for a model, or for a class of models.

    Raises:
      TypeError: it is a model of neither Keras.
    """
    return module_for(model, "export_protocol")
