"""Comparison of a model's outputs before and after its layers are wrapped.

Code of a user's own may ask for the class or the name of a layer and find those of its wrapper. The
model then computes something else, without an error. Before anything is masked, the outputs must be
the same, so the model is called once on made-up inputs with plain layers and once with wrappers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.forward_pass import MakesVariablesError, trace
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import LayerTree

_KNOWN = ("tf_keras.", "tf_movprune.", hugging_face.PACKAGE)
_OPEN_SIZE = 16


class Example:
    """What a model computes from one example before it is pruned.

    There is none of models that were never called, whose code is all Keras's or Hugging Face's,
    that cannot be traced, or that compute something else each time: `check` accepts what they do.

    Args:
      tree: the layers of the model, before any is wrapped.
    """

    def __init__(self, tree: LayerTree):
        self._outputs: list[np.ndarray] | None = None
        if not isinstance(tree.root, keras.Model) or not _has_own_code(tree):
            return
        with contextlib.suppress(Exception):  # whatever a user's call raises on zeros and ones
            forward = trace(tree.root)
            self._inputs = tf.nest.map_structure(_zeros_and_ones, compat.recorded_call(tree.root))
            outputs = _outputs(forward, self._inputs)
            if _are_equal(outputs, _outputs(forward, self._inputs)):
                self._outputs = outputs

    def check(self, model: keras.Model, wrappers: Sequence[PruneLowMovement]) -> None:
        """Calls the pruned model on the same example.

        Raises:
          ValueError: its outputs are others.
          Exception: whatever the pruned model raises, and did not before.
        """
        if self._outputs is None:
            return
        with contextlib.ExitStack() as unmasked:
            for wrapper in wrappers:
                unmasked.enter_context(wrapper.unmasked())
            try:
                outputs = _outputs(trace(model), self._inputs)
            except MakesVariablesError:  # metrics of the penalties, for instance
                return
        if not _are_equal(self._outputs, outputs):
            name = wrappers[0].layer.name
            raise ValueError(
                f"The outputs of {model.name!r} change when its layers are wrapped, before "
                "anything is masked. Does its code ask for the class or the name of a layer, as in "
                f"isinstance(layer, Dense) or layer.name == {name!r}? It finds those of the "
                "wrapper. Let it ask for an attribute, such as hasattr(layer, 'units'), or decide "
                "when the model is made; or leave these layers out, with a mapping of path "
                "patterns to schedules or a pruning_policy."
            )


def _has_own_code(tree: LayerTree) -> bool:
    """Returns whether a layer that calls others has a `call` of neither Keras nor Hugging Face."""
    return any(
        tree.children(layer) and not type(layer).call.__module__.startswith(_KNOWN)
        for layer in tree.layers()
    )


def _zeros_and_ones(spec: Any) -> Any:
    """An array for a spec, of zeros and ones, which are in every vocabulary."""
    if not isinstance(spec, tf.TensorSpec):
        return spec
    shape = [_OPEN_SIZE if size is None else size for size in spec.shape]
    return tf.cast(np.random.RandomState(0).randint(0, 2, shape), spec.dtype)


def _outputs(forward: tf.types.experimental.ConcreteFunction, inputs: Any) -> list[np.ndarray]:
    """What a function returns. The variables that it assigns are as before, thereafter."""
    states = [v for v in forward.graph.variables if not v.trainable]
    values = [tf.identity(state) for state in states]
    try:
        return [np.asarray(output) for output in forward(*inputs)]
    finally:
        for state, value in zip(states, values):
            state.assign(value)


def _are_equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and _is_close(a, b) for a, b in zip(some, others)
    )


def _is_close(some: np.ndarray, other: np.ndarray) -> bool:
    if some.dtype.kind not in "fV":  # V: bfloat16
        return bool(np.array_equal(some, other))
    some, other = some.astype(np.float64), other.astype(np.float64)
    size = np.max(np.abs(some), initial=0, where=np.isfinite(some))
    return bool(np.allclose(some, other, rtol=0, atol=1e-3 * size, equal_nan=True))
