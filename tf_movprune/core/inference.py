"""A model of any Keras version as a function from named tensors to named tensors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Inference:
    """A model's inference with fixed names, dtypes and, if wanted, sizes.

    Attributes:
      name: name of the model, for messages.
      specs: specs of the inputs, in the order in which `function` takes them.
      function: function from input tensors to output tensors by name.
      variables: variables of the model.
      vocabulary_size: number of token ids; None if the model takes none, or it is not known.
    """

    name: str
    specs: Sequence[tf.TensorSpec]
    function: Callable[..., dict[str, tf.Tensor]]
    variables: Sequence[tf.Variable]
    vocabulary_size: int | None = None

    @functools.cached_property
    def concrete(self) -> Any:
        """The traced function.

        Raises:
          ValueError: the model does not take inputs of these sizes.
        """
        try:
            return tf.function(
                self.function, input_signature=list(self.specs)
            ).get_concrete_function()
        except ValueError as error:
            shapes = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in self.specs)
            raise ValueError(
                f"{self.name!r} cannot be called on inputs of these shapes: {shapes}. Pass "
                "another sequence_length or batch_size, or None for any size."
            ) from error

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {spec.name: tuple(spec.shape) for spec in self.specs}

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {name: tuple(x.shape) for name, x in self.concrete.structured_outputs.items()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's outputs on `inputs`, computed eagerly."""
        outputs = self.function(*(tf.constant(inputs[s.name], s.dtype) for s in self.specs))
        return {name: output.numpy() for name, output in outputs.items()}

    def example_inputs(self, given: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The `given` inputs in the dtypes of `specs`, or random ones that look like real ones.

        Raises:
          TypeError: `given` is not a mapping.
          ValueError: an input is missing, or has another shape.
        """
        if given is None:
            return _random_inputs(self.specs, self.vocabulary_size or 2)
        if not isinstance(given, Mapping):
            raise TypeError(
                "inputs must map the names of the model's inputs to arrays, with the keys "
                f"{sorted(self.input_shapes)}, got {type(given).__name__}."
            )
        inputs = {}
        for spec in self.specs:
            if spec.name not in given:
                raise ValueError(
                    f"inputs lacks {spec.name!r}: it has {sorted(given)}, and the model takes "
                    f"{sorted(self.input_shapes)}."
                )
            inputs[spec.name] = np.asarray(given[spec.name], spec.dtype.as_numpy_dtype)
            if not spec.shape.is_compatible_with(inputs[spec.name].shape):
                raise ValueError(
                    f"inputs has {spec.name!r} of shape {inputs[spec.name].shape}, but the file "
                    f"takes {tuple(spec.shape)}. Pass inputs of that shape, or another "
                    "sequence_length or batch_size."
                )
        return inputs


def _random_inputs(specs: Sequence[tf.TensorSpec], vocabulary_size: int) -> dict[str, np.ndarray]:
    """Inputs that look like real ones: token ids within the vocabulary, and some padding."""
    random = np.random.RandomState(0)
    inputs: dict[str, np.ndarray] = {}
    for spec in specs:
        open_sizes = [2, *[16] * (spec.shape.rank - 1)]
        shape = [size or other for size, other in zip(spec.shape, open_sizes)]
        if not spec.dtype.is_integer:
            inputs[spec.name] = random.standard_normal(shape)
        elif "mask" in spec.name:
            inputs[spec.name] = np.arange(shape[-1]) < max(1, shape[-1] // 2) + np.zeros(shape)
        else:
            high = 1 if "type" in spec.name else vocabulary_size
            inputs[spec.name] = random.randint(0, high, shape)
    return {spec.name: inputs[spec.name].astype(spec.dtype.as_numpy_dtype) for spec in specs}
