"""A model of any Keras version as a function from named tensors to named tensors."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.example_inputs import given_inputs, random_inputs
from tf_movprune.core.nested import named_leaves, valid_names


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
    def endpoint(self) -> tuple[Callable[..., dict[str, tf.Tensor]], list[Any]]:
        """The function of a SavedModel, and its signature: several inputs are one dict by name."""
        if len(self.specs) == 1:
            return self.function, list(self.specs)
        names = [spec.name for spec in self.specs]

        @tf.autograph.experimental.do_not_convert
        def function(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return self.function(*(inputs[name] for name in names))

        return function, [dict(zip(names, self.specs))]

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


def check_sizes(sequence_length: Any, batch_size: Any) -> None:
    """Raises TypeError or ValueError if a size is neither None nor a positive integer."""
    for name, size in (("sequence_length", sequence_length), ("batch_size", batch_size)):
        if size is not None:
            check_integer(name, size, example=128, minimum=1)


def within_positions(sequence_length: int, positions: int | None, name: str) -> int:
    """A sequence length for a model; one that nobody asked for is cut to its positions.

    The model itself would fail later, when it runs, and not on every device.

    Args:
      sequence_length: the length.
      positions: the number of tokens for which the model has positions; None for no limit.
      name: name of the model, for messages.

    Raises:
      ValueError: the length was asked for, and the model has fewer positions.
    """
    if positions is None or sequence_length <= positions:
        return sequence_length
    if isinstance(sequence_length, IfOpen):
        return IfOpen(positions)
    raise ValueError(
        f"sequence_length must be at most {positions}, for which {name!r} has positions, got "
        f"{sequence_length}. Pass a shorter one."
    )


def has_open_axis(specs: Sequence[tf.TensorSpec]) -> bool:
    """Returns whether an axis other than the first is open."""
    return any(None in spec.shape[1:] for spec in specs if spec.shape.rank)


def fixed_specs(
    model_name: str,
    specs: Sequence[tf.TensorSpec],
    sequence_length: int | None,
    batch_size: int | None,
) -> list[tf.TensorSpec]:
    """Specs whose open axes have sizes: the first `batch_size`, and others `sequence_length`.

    Raises:
      ValueError: there is no axis that could have the `sequence_length`.
    """
    is_asked_for = sequence_length is not None and not isinstance(sequence_length, IfOpen)
    has_it = any(sequence_length in spec.shape[1:] for spec in specs if spec.shape.rank)
    if is_asked_for and not (has_open_axis(specs) or has_it):
        shapes = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in specs)
        raise ValueError(
            f"sequence_length is {sequence_length}, but the inputs of {model_name!r} have no open "
            f"axis but the first: {shapes}. Leave sequence_length out, or make the model for "
            "inputs of that length, in a subclassed one by inputs=... of it."
        )

    def fixed(spec: tf.TensorSpec) -> tf.TensorSpec:
        sizes = [size if size is not None else sequence_length for size in spec.shape]
        if sizes:
            sizes[0] = spec.shape[0] if spec.shape[0] is not None else batch_size
        return tf.TensorSpec(sizes, spec.dtype, name=spec.name)

    return [fixed(spec) for spec in specs]


@tf.autograph.experimental.do_not_convert
def named_outputs(outputs: Any, names: Sequence[str] | None) -> dict[str, tf.Tensor]:
    """Outputs by name: their keys, those of a graph's outputs, or `output_0`, `output_1`, ..."""
    if isinstance(outputs, Mapping) or hasattr(outputs, "_fields"):
        leaves = list(named_leaves(outputs))
    elif isinstance(outputs, list | tuple):
        leaves = list(named_leaves(outputs, "output"))
    else:
        leaves = [("output_0", outputs)]
    if names and len(names) == len(leaves) and not isinstance(outputs, Mapping):
        leaves = [(name, value) for name, (_, value) in zip(names, leaves)]
    unique = valid_names([name for name, _ in leaves])
    kept = (tf.RaggedTensor, tf.SparseTensor)  # which `Inference` refuses by name
    return {
        name: value if isinstance(value, kept) else tf.convert_to_tensor(value)
        for name, (_, value) in zip(unique, leaves)
        if value is not None
    }


def _summary(error: Exception) -> str:
    """The type of an error and the line that says most of it."""
    text = re.sub(r"Exception encountered when calling layer .*\n\s*", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    told = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    return told[-1] if told else f"{type(error).__name__}: {lines[0]}"
