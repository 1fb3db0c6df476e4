"""The forward pass of a model as a graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_movprune.core.traced_functions import inlined
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.replacement import unchanged


class MakesVariablesError(ValueError):
    """The forward pass of a model makes variables."""


def trace(model: keras.Model) -> tf.types.experimental.ConcreteFunction:
    """Traces a model in inference, on inputs like those of its first call.

    The model stays as it is. Functions that it calls run as a part of the trace, and keep no trace
    of their own.

    Returns:
      A function of the positional and the keyword arguments of that call, a list and a dict, whose
      outputs are the tensors among the model's outputs.

    Raises:
      MakesVariablesError: the model does.
      ValueError: it was never called.
      Exception: whatever the model raises in a graph.
    """

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise MakesVariablesError("its call makes variables")

    def forward(args: Any, kwargs: Any) -> list[tf.Tensor]:
        with tf.variable_creator_scope(refuse):
            outputs = model(*args, **{**kwargs, "training": False})
        flat = tf.nest.flatten(outputs, expand_composites=True)
        return [output for output in flat if tf.is_tensor(output)]

    specs = model.save_spec()
    if specs is None:
        raise ValueError("it was never called")
    function = tf.function(forward, autograph=False)
    with unchanged(model), compat.unchanged_losses(model), inlined():
        try:
            return function.get_concrete_function(*specs)
        except Exception:  # the size of a batch may be part of what the model computes
            specs = model.save_spec(dynamic_batch=False)
            return function.get_concrete_function(*specs)
