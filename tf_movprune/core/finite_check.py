"""Refusal of NaN and infinity in weights and scores, by the names of the layers that have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.scores import is_scores
from tf_movprune.core.variable_names import last_name
from tf_movprune.core.wording import counted

Weights = Mapping[str, Sequence[tf.Variable]]
"""Variables by the path of the layer that has them."""

_LAYERS_NAMED = 3  # in a message; one bad batch reaches all layers


_REMEDY = (
    "Masks stay as they were. Go back to the last checkpoint of model and optimizer, and lower the "
    "learning rate, clip gradients (global_clipnorm=1.0), or use a LossScaleOptimizer under "
    "mixed_float16."
)


class NotFiniteError(ValueError):
    """A weight or a score is NaN or infinite.

    Attributes:
      fault: which one, and since when.
      remedy: what to do.
    """

    def __init__(self, fault: str, remedy: str = _REMEDY):
        super().__init__(fault, remedy)
        self.fault, self.remedy = fault, remedy

    def __str__(self) -> str:
        return f"{self.fault} {self.remedy}"


class FiniteCheck:
    """Looks for NaN and infinity in variables, in one function that reads each of them once.

    A variable is taken for finite if the sum of its values is: a sum passes NaN and infinity on,
    and takes half the time of looking at each value. Values that come near the largest float32 may
    overflow in it, and are refused too.

    Args:
      weights: variables by the path of their layer. Only floats are looked at.
      is_mirrored: whether replicas mirror the variables, which XLA cannot compile.
    """

    def __init__(self, weights: Weights, *, is_mirrored: bool = False):
        self._weights = weights
        # XLA saves GPUs a launch for each variable, and CPUs nothing.
        has_gpu = bool(tf.config.list_logical_devices("GPU"))

        @tf.function(jit_compile=has_gpu and not is_mirrored, autograph=False)
        def are_finite():
            return _all_finite(weights)

        self._are_finite = are_finite

    def __call__(self, step: int, batch: int | None = None, batches: int = 1) -> None:
        """Raises NotFiniteError if a variable is not finite.

        Args:
          step: the number of optimizer steps taken so far, for the message.
          batch: the number of the batch in its epoch that was trained on last, if one was.
          batches: how many batches up to that one may be at fault.
        """
        if not self._are_finite():
            raise NotFiniteError(_fault(self._weights, step, batch, batches))


def weights_of(kernels: Mapping[str, Iterable[MaskedKernel]]) -> dict[str, list[tf.Variable]]:
    """The scores of masked kernels, and the weights that they decide on, by path."""
    return {
        path: [
            variable
            for kernel in members
            for variable in (*(part.weight for part in kernel.parts), kernel.scores)
            if variable is not None
        ]
        for path, members in kernels.items()
    }


def by_innermost(model: Any, layers: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """The trainable weights of a model, by the path of the innermost layer that has them.

    Args:
      model: a model of either Keras, whose own name is the path of weights that no layer has.
      layers: its layers with their paths, each after those around it.
    """
    places = {id(weight): (model.name, weight) for weight in model.trainable_weights}
    for path, layer in layers:
        for weight in layer.trainable_weights:
            if id(weight) in places:
                places[id(weight)] = path, weight
    found: dict[str, list[Any]] = {}
    for path, weight in places.values():
        found.setdefault(path, []).append(weight)
    return found


def joined(weights: Weights, more: Weights) -> dict[str, list[tf.Variable]]:
    """Two mappings in one, in which each variable is once, at its place in the first."""
    found = {path: list(variables) for path, variables in weights.items()}
    seen = {id(variable) for variables in found.values() for variable in variables}
    for path, variables in more.items():
        for variable in variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                found.setdefault(path, []).append(variable)
    return found


def check_finite(weights: Weights, step: int | tf.Tensor) -> tf.Tensor:
    """Looks for NaN and infinity before masks are made from variables.

    Args:
      weights: float variables by the path of their layer.
      step: the number of optimizer steps taken so far, for the message.

    Returns:
      bool scalar, true if all are finite. A graph that XLA compiles raises nothing, so that this
      alone tells.

    Raises:
      NotFiniteError: eagerly, one is not finite. In a graph, running it raises TensorFlow's
        InvalidArgumentError.
    """
    if tf.executing_eagerly():
        if not _all_finite(weights):
            raise NotFiniteError(_fault(weights, int(step)))
        return tf.constant(True)
    all_finite = tf.constant(True)
    for path, variables in weights.items():
        is_finite = tf.reduce_all(_are_finite(variables))
        tf.debugging.Assert(is_finite, ["NaN or infinity at step", step, f"in {path}. {_REMEDY}"])
        all_finite &= is_finite
    return all_finite


def _all_finite(weights: Weights) -> tf.Tensor:
    """Returns whether all variables are finite: bool scalar."""
    return tf.reduce_all(_are_finite(v for members in weights.values() for v in members))


def _are_finite(variables: Iterable[tf.Variable]) -> tf.Tensor:
    """Returns whether each variable is finite: bool tensor of rank 1."""
    sums = [_sum(variable) for variable in variables if variable.dtype.is_floating]
    return tf.stack([tf.math.is_finite(value) for value in sums] or [tf.constant(True)])


def _sum(variable: tf.Variable) -> tf.Tensor:
    values = tf.convert_to_tensor(variable)
    return tf.reduce_sum(tf.cast(values, tf.float32) if values.dtype.size < 4 else values)


def _fault(weights: Weights, step: int, batch: int | None = None, batches: int = 1) -> str:
    found = [
        f"{path} ({', '.join(dict.fromkeys(map(_name, faulty)))})"
        for path, variables in weights.items()
        if (faulty := [v for v in variables if not tf.reduce_all(_are_finite([v]))])
    ]
    more = len(found) - _LAYERS_NAMED
    named = ", ".join(found[:_LAYERS_NAMED])
    named += f" and {counted(more, 'more layer')}" if more > 0 else ""
    fault = f"NaN or infinity at step {step} in {named}"
    if batch is None:
        return f"{fault}."
    first = max(0, batch - batches + 1)
    which = f"batch {batch}" if first == batch else f"batches {first} to {batch}"
    those = "that batch" if first == batch else "those batches"
    return f"{fault}, after {which} of its epoch, counted from 0. Look for NaN in {those}."


def _name(variable: tf.Variable) -> str:
    return "movement scores" if is_scores(variable) else last_name(variable.name)
