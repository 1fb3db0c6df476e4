"""The arguments with which an export calls a Keras 3 model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.call_arguments import (
    CallArguments,
    arguments_from,
    bound_arguments,
    dense,
    names_arguments,
    opened,
)
from tf_movprune.core.nested import named_leaves
from tf_movprune.keras3 import compat


def call_arguments(model: keras.Model, inputs: Mapping[str, Any] | None = None) -> CallArguments:
    """The arguments with which an export calls a model.

    Sequential and Functional models say what they take. Other models are called on `inputs` if its
    keys are names of arguments of `call`; or on floats in the shapes in which they were built,
    which is all that Keras keeps of their first call.

    Raises:
      ValueError: an argument is not known, or not a dense tensor.
    """
    if compat.runs_its_graph(model):
        tensors = compat.graph_inputs(model)
        specs = keras.tree.map_structure(_spec_of_symbolic, tensors)
        names = [compat.input_name(tensor) for tensor in tf.nest.flatten(tensors)]
        call = dense(model.name, CallArguments([specs], names), inputs)
        return opened(call) if isinstance(model, keras.Sequential) else call
    signature = inspect.signature(model.call)
    if inputs and compat.is_built_throughout(model) and names_arguments(inputs, signature):
        return arguments_from(model.name, inputs, signature, keras.config.floatx())
    shapes = compat.recorded_shapes(model)
    if not shapes or not compat.is_built_throughout(model):
        raise ValueError(
            f"The inputs of {model.name!r} are not known. Call the model once on example inputs "
            "before exporting; or, if it is built, pass inputs=... with an array for each argument "
            "of its call."
        )
    arguments = _arguments(shapes, signature)
    bound = signature.bind_partial(**arguments)
    return opened(dense(model.name, bound_arguments(model.name, bound, is_recorded=True), inputs))


def _spec_of_symbolic(tensor: Any) -> tf.TypeSpec:
    """The type spec of a symbolic input, which tells ragged and sparse from dense ones."""
    if getattr(tensor, "sparse", False):
        return tf.SparseTensorSpec(tensor.shape, tensor.dtype)
    if getattr(tensor, "ragged", False):
        return tf.RaggedTensorSpec(tensor.shape, tensor.dtype)
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _arguments(shapes: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """Specs of the arguments of a call, by name, from the shapes in which a model was built.

    `build` has arguments named after those of `call`, or one for the first of them, whatever its
    name. A dict in the first argument names its tensors by itself.
    """
    first = next(iter(signature.parameters))
    if len(shapes) == 1:
        shapes = {first: next(iter(shapes.values()))}
    arguments = {
        name.removesuffix("_shape"): _specs(shape)
        for name, shape in shapes.items()
        if shape is not None
    }
    if isinstance(arguments.get(first), Mapping):
        names = (name for name, _ in named_leaves(arguments[first], "", sorted))
        flat = tf.nest.flatten(arguments[first])
        named = [tf.TensorSpec(s.shape, s.dtype, name) for s, name in zip(flat, names)]
        arguments[first] = tf.nest.pack_sequence_as(arguments[first], named)
    return arguments


def _specs(shapes: Any) -> Any:
    """Specs of float32, which mixed precision casts, for nested shapes."""
    if isinstance(shapes, Mapping):
        return {key: _specs(shape) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec(shapes, tf.float32)
    return [_specs(shape) for shape in shapes]
