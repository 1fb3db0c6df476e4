"""A model of any Keras version as a function from named tensors to named tensors."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core.example_inputs import given_inputs, random_inputs


class IfOpen(int):
    """A size for open axes that nobody asked for: a model without any need not have it."""


class Example(NamedTuple):
    """Inputs of a model by name, and its outputs on them."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Inference:
    """A model's inference with fixed names, dtypes and, if wanted, sizes.

    Attributes:
      name: name of the model, for messages.
      specs: specs of the inputs, in the order in which `function` takes them.
      function: function from input tensors to output tensors by name.
      variables: variables of the model.
      vocabulary_size: number of token ids; None if the model takes none, or it is not known.
      constants: arguments of the model's call that are no inputs, with the values that they have.
    """

    name: str
    specs: Sequence[tf.TensorSpec]
    function: Callable[..., dict[str, tf.Tensor]]
    variables: Sequence[tf.Variable]
    vocabulary_size: int | None = None
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def concrete(self) -> Any:
        """The traced function.

        Raises:
          ValueError: the model does not take inputs of these shapes and dtypes, cannot be traced,
            or has an output that is no dense tensor.
        """
        try:
            concrete = tf.function(
                self.function, input_signature=list(self.specs)
            ).get_concrete_function()
        except Exception as error:  # the model's own code can raise anything
            raise ValueError(
                f"{self.name!r} cannot be called on inputs of these shapes: {self._described}. "
                "Pass another sequence_length or batch_size, or None for any size, or, to a "
                "subclassed model, inputs=... with an array for each argument of its call. "
                f"The model raised {_summary(error)}"
            ) from error
        for name, output in concrete.structured_outputs.items():
            if not isinstance(output, tf.Tensor | tf.TensorSpec):
                raise ValueError(
                    f"The output {name!r} of {self.name!r} is a {type(output).__name__}, and files "
                    "hold dense tensors only. Export a model whose outputs are dense, for example "
                    "by to_tensor()."
                )
        return concrete

    @property
    def _described(self) -> str:
        return ", ".join(f"{s.dtype.name} {s.name} {tuple(s.shape)}" for s in self.specs)

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {spec.name: tuple(spec.shape) for spec in self.specs}

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...] | None]:
        outputs = self.concrete.structured_outputs
        return {
            name: None if output.shape.rank is None else tuple(output.shape)
            for name, output in outputs.items()
        }

    @functools.cached_property
    def operations(self) -> dict[str, str]:
        """The types of the operations in the graph, each with the path of one of them."""
        graph = self.concrete.graph.as_graph_def()
        functions = {f.signature.name: f.node_def for f in graph.library.function}
        found: dict[str, str] = {}
        pending = [("", graph.node)]
        while pending:
            prefix, nodes = pending.pop(0)
            for node in nodes:
                path = prefix + node.name
                found.setdefault(node.op, path)
                for value in node.attr.values():
                    for called in (value.func, *value.list.func):
                        if called.name in functions:
                            pending.append((f"{path}/", functions.pop(called.name)))
        return found

    @property
    def assigning(self) -> list[str]:
        """Names of operations that change variables."""
        return [
            name
            for kind, name in self.operations.items()
            if re.fullmatch(r"Assign\w*VariableOp|ResourceScatter\w+", kind)
        ]

    def checked(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The `given` inputs as arrays of the dtypes that the model takes.

        Raises:
          TypeError: `given` is not a mapping.
          ValueError: an input is missing, not known, of another shape, or not of its dtype.
        """
        return given_inputs(self.specs, given)

    def example(self, given: Mapping[str, Any] | None = None) -> Example:
        """The `given` inputs, or random ones that look like real ones, and the outputs on them.

        Raises:
          TypeError: `given` is not a mapping.
          ValueError: `given` does not fit, or the model fails on the inputs.
        """
        if given is not None:
            inputs = self.checked(given)
            return Example(inputs, self.run(inputs))
        inputs = random_inputs(self.specs, self.vocabulary_size or 2)
        try:
            return Example(inputs, self.run(inputs))
        except ValueError as error:  # maybe some of the floats are ids
            inputs = random_inputs(self.specs, self.vocabulary_size or 2, whole=True)
            try:
                return Example(inputs, self.run(inputs))
            except ValueError:
                raise error from error.__cause__

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's outputs on `inputs`, computed eagerly.

        Variables that the model changes, the states of recurrent layers for example, are given
        their values back.

        Raises:
          ValueError: the model fails on these values.
        """
        changing = self.concrete.variables if self.assigning else ()
        before = [(variable, variable.numpy()) for variable in changing]
        try:
            outputs = self.function(*(tf.constant(inputs[s.name], s.dtype) for s in self.specs))
            return {name: output.numpy() for name, output in outputs.items()}
        except Exception as error:  # the model's own code can raise anything
            raise ValueError(
                f"{self.name!r} fails on the inputs that its export is compared on: "
                f"{self._described}. Pass inputs=... with an array for each of them that the model "
                f"takes, or verify=False. The model raised {_summary(error)}"
            ) from error
        finally:
            for variable, value in before:
                variable.assign(value)


def _summary(error: Exception) -> str:
    """The type of an error and the line that says most of it."""
    text = re.sub(r"Exception encountered when calling layer .*\n\s*", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    told = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    return told[-1] if told else f"{type(error).__name__}: {lines[0]}"
