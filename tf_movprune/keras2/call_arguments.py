"""The arguments with which an export calls a tf_keras model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.call_arguments import (
    CallArguments,
    arguments_from,
    bound_arguments,
    dense,
    in_float32,
    names_arguments,
    opened,
)
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import keras


def call_arguments(model: keras.Model, inputs: Mapping[str, Any] | None = None) -> CallArguments:
    """The arguments with which an export calls a model.

    Sequential and Functional models and those of Hugging Face say what they take. Other models are
    called on `inputs` if its keys are names of arguments of `call`, or as they were called first.

    Raises:
      ValueError: an argument is not known, not a dense tensor, or of unknown rank.
    """
    if hugging_face.takes_its_signature(model):
        specs = hugging_face.input_specs(model)
        names = [spec.name for spec in tf.nest.flatten(specs)]
        return dense(model.name, CallArguments([specs], names), inputs)
    if compat.runs_its_graph(model) and model.inputs:
        specs = tf.nest.map_structure(compat.input_type_spec, model.input)
        names = [tensor.node.layer.name for tensor in tf.nest.flatten(model.input)]
        return dense(model.name, CallArguments([specs], names), inputs)
    signature = inspect.signature(model.call)
    recorded = compat.recorded_call(model)
    if inputs and model.built and _names_arguments(inputs, signature, recorded):
        return arguments_from(model.name, inputs, signature, keras.backend.floatx())
    if recorded is None:
        raise ValueError(
            f"The inputs of {model.name!r} are not known. Call the model once on example inputs "
            "before exporting; or, if it is built, pass inputs=... with an array for each argument "
            "of its call."
        )
    args, kwargs = recorded
    call = bound_arguments(model.name, signature.bind_partial(*args, **kwargs), is_recorded=True)
    call = opened(dense(model.name, call, inputs))
    return call if model.compute_dtype != "float32" else in_float32(call)


def _names_arguments(
    inputs: Mapping[str, Any], signature: inspect.Signature, recorded: Any
) -> bool:
    """Returns whether the keys are the names of arguments, and not those of the known inputs."""
    if recorded is not None and set(inputs) == _names_of_first(recorded):
        return False
    return names_arguments(inputs, signature)


def _names_of_first(recorded: tuple[list[Any], dict[str, Any]]) -> set[str | None]:
    """The names that Keras gives to the tensors in the first argument."""
    return {getattr(spec, "name", None) for spec in tf.nest.flatten(recorded[0][0])}
