"""Comparison of a model's outputs before and after some of its layers change.

What reads a layer outside of the graph, as a function in a Lambda layer does, is not seen in the
graph. So the model is called on made-up inputs before and after.
"""

from __future__ import annotations

import contextlib
import itertools

import keras
import numpy as np
import tensorflow as tf

from tf_movprune.core.example_inputs import random_inputs
from tf_movprune.core.inference import IfOpen, Inference
from tf_movprune.keras3 import compat
from tf_movprune.keras3.inference import computing_in_float32, inference_of

_LENGTHS = (16, 4)  # of open axes; some models have no positions for more
_FEW, _MANY = 2, 32  # rows; two labels are often the same by chance
_KNOWN = ("keras.", "keras_hub.", "tf_movprune.")


class Example:
    """What a model computes from one example.

    There is none of models for which no inputs can be made up, or that compute something else each
    time: they count as unchanged.

    Args:
      model: a built model without pruned layers.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._outputs: list[np.ndarray] | None = None
        for length, whole in itertools.product(_LENGTHS, (False, True)):
            with contextlib.suppress(Exception):  # whatever a user's call raises
                inference, outputs = self._example(length, whole, _FEW)
                if not all(map(_is_inexact, outputs)):
                    inference, outputs = self._example(length, whole, _MANY)
                if _are_close(outputs, self._run(inference)):
                    self._outputs = outputs
                self._inference = inference
                return

    def unseen_code(self) -> list[str]:
        """Names of layers that may read others outside of the graph, if nothing is compared."""
        if self._outputs is not None:
            return []
        return [layer.name for layer in compat.all_layers(self._model) if _has_own_code(layer)]

    def is_unchanged(self) -> bool:
        """Returns whether the model as it is now computes the same, up to rounding."""
        if self._outputs is None:
            return True
        try:
            return _are_close(self._outputs, self._run(self._inference))
        except Exception:  # whatever a layer raises on shapes that it does not expect
            return False

    def _example(self, length: int, whole: bool, rows: int) -> tuple[Inference, list[np.ndarray]]:
        inference = inference_of(self._model, IfOpen(length), rows)
        vocabulary_size = inference.vocabulary_size or 2
        self._inputs = random_inputs(inference.specs, vocabulary_size, whole)
        return inference, self._run(inference)

    def _run(self, inference: Inference) -> list[np.ndarray]:
        """The outputs. The variables that a call assigns are as before, thereafter."""
        states = [compat.tensorflow_variable(v) for v in self._model.non_trainable_variables]
        values = [tf.identity(state) for state in states]
        tensors = (tf.constant(self._inputs[s.name], s.dtype) for s in inference.specs)
        try:
            with computing_in_float32(self._model):
                return [output.numpy() for output in inference.function(*tensors).values()]
        finally:
            for state, value in zip(states, values):
                state.assign(value)
            for layer in compat.all_layers(self._model):
                compat.forget_traces(layer)  # of variables that others replace


def _are_close(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and _is_close(a, b) for a, b in zip(some, others)
    )


def _is_inexact(output: np.ndarray) -> bool:
    return output.dtype.kind in "fcV"  # V: bfloat16


def _is_close(some: np.ndarray, other: np.ndarray) -> bool:
    if not _is_inexact(some):  # labels, for instance, which can hang on rounding
        return bool(np.sum(some != other) <= 0.01 * some.size)
    dtype = np.complex128 if some.dtype.kind == "c" else np.float64
    some, other = some.astype(dtype), other.astype(dtype)
    size = np.max(np.abs(some), initial=0, where=np.isfinite(some))
    return bool(np.allclose(some, other, rtol=0, atol=1e-3 * size, equal_nan=True))


def _has_own_code(layer: compat.Layer) -> bool:
    module = getattr(type(layer).call, "__module__", None) or ""
    return isinstance(layer, keras.layers.Lambda) or not module.startswith(_KNOWN)
