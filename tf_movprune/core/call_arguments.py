"""The arguments with which an export calls a model: which are inputs, and under which names."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.nested import named_leaves, valid_names

_IMPLIED = ("training", "mask")  # arguments that Keras fills in
_REMEDY = (
    "Pass inputs=... with an array for each argument of its call that the file is to take, by the "
    "name of the argument; the others get their defaults."
)


@dataclasses.dataclass(frozen=True)
class CallArguments:
    """The arguments of a model's call, with a spec in place of each tensor.

    Attributes:
      arguments: the arguments, in the order of `call`.
      names: names of the tensors, in the order of `tf.nest.flatten(arguments)`.
      parameters: names of the arguments.
      signature: signature of `call`; None if it has one argument.
      constants: arguments that get their defaults, with these.
    """

    arguments: list[Any]
    names: list[str]
    parameters: tuple[str, ...] = ()
    signature: inspect.Signature | None = None
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """The specs of the tensors, with their names."""
        return [leaf for leaf in tf.nest.flatten(self.arguments) if leaf is not None]

    def map(self, function: Callable[[Any, str], tf.TensorSpec]) -> CallArguments:
        """These arguments with other specs, which `function` makes of a spec and its name."""
        names = iter(self.names)
        leaves = [
            leaf if leaf is None else function(leaf, next(names))
            for leaf in tf.nest.flatten(self.arguments)
        ]
        arguments = tf.nest.pack_sequence_as(self.arguments, leaves)
        return dataclasses.replace(self, arguments=arguments)

    @tf.autograph.experimental.do_not_convert
    def filled(self, tensors: Iterable[tf.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments that hold the tensors."""
        left = iter(tensors)
        leaves = [leaf if leaf is None else next(left) for leaf in tf.nest.flatten(self.arguments)]
        values = tf.nest.pack_sequence_as(self.arguments, leaves)
        if self.signature is None:
            return tuple(values), {}
        bound = inspect.BoundArguments(self.signature, dict(zip(self.parameters, values)))
        return bound.args, bound.kwargs


def names_arguments(inputs: Mapping[str, Any], signature: inspect.Signature) -> bool:
    """Returns whether the keys are the names of arguments with which `call` can be called."""
    if next(iter(signature.parameters), None) not in inputs:
        return False
    try:
        signature.bind(**inputs)
    except TypeError:
        return False
    return True


def arguments_from(
    model_name: str, inputs: Mapping[str, Any], signature: inspect.Signature, floatx: str
) -> CallArguments:
    """The arguments of a call on arrays by the names of arguments, with an open first axis."""
    values = {name: specs_of(value, floatx) for name, value in inputs.items()}
    call = bound_arguments(model_name, signature.bind_partial(**values))
    return opened(dense(model_name, call, inputs))


def in_float32(call: CallArguments) -> CallArguments:
    """The call of a model that computes in float32, in which Keras may have seen other floats.

    It casts the first argument before it looks; of the others it sees doubles where NumPy made them
    and the model's operations would cast them.
    """
    return call.map(
        lambda spec, name: tf.TensorSpec(
            spec.shape, tf.float32 if spec.dtype.is_floating else spec.dtype, name
        )
    )


def specs_of(value: Any, floatx: str) -> Any:
    """Specs of a nested argument; lists of numbers are arrays, and Python's floats `floatx`."""
    if isinstance(value, Mapping):
        return {key: specs_of(item, floatx) for key, item in value.items()}
    if isinstance(value, list | tuple) and any(
        hasattr(leaf, "shape") for leaf in tf.nest.flatten(value)
    ):
        return [specs_of(item, floatx) for item in value]
    if value is None or isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        return None if value is None else tf.type_spec_from_value(value)
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return tf.TensorSpec(array.shape, tf.string)
    if array.dtype == np.float64 and not tf.is_tensor(value):
        return tf.TensorSpec(array.shape, floatx)
    return tf.TensorSpec(array.shape, array.dtype)


def bound_arguments(
    model_name: str, bound: inspect.BoundArguments, *, is_recorded: bool = False
) -> CallArguments:
    """The arguments of a call, without those that say what it is for.

    Raises:
      ValueError: an argument was no tensor when the call was recorded, or is missing.
    """
    arguments, parameters = dict(bound.arguments), bound.signature.parameters
    arguments.pop("training", None)
    for name, value in list(arguments.items()):
        if parameters[name].kind == inspect.Parameter.VAR_KEYWORD:
            value.pop("training", None)
        if is_recorded and any(leaf is None for leaf in tf.nest.flatten(value)):
            if name != "mask":
                raise ValueError(
                    f"{model_name!r} was first called with an argument {name!r} that is no tensor, "
                    f"or holds such a value, and an export cannot know it. {_REMEDY}"
                )
            del arguments[name]
    constants = {}
    for name, parameter in parameters.items():
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name in arguments or name in _IMPLIED or is_variadic:
            continue
        if parameter.default is parameter.empty:
            raise ValueError(
                f"{model_name!r} cannot be called without the argument {name!r}, for which no "
                f"tensor was recorded when it was first called. {_REMEDY}"
            )
        constants[name] = parameter.default
    names = []
    for name, value in arguments.items():
        prefix = "" if parameters[name].kind == inspect.Parameter.VAR_KEYWORD else name
        for path, leaf in named_leaves(value, prefix, sorted):
            if leaf is not None:
                names.append(getattr(leaf, "name", None) or path)
    return CallArguments(
        list(arguments.values()),
        names,
        tuple(arguments),
        bound.signature,
        constants if is_recorded else {},
    )


def dense(model_name: str, call: CallArguments, inputs: Mapping[str, Any] | None) -> CallArguments:
    """The call with valid names, and tensor specs of known rank.

    Raises:
      ValueError: an input is not a dense tensor, or of unknown rank.
    """
    named = dataclasses.replace(call, names=valid_names([n.split(":")[0] for n in call.names]))
    return named.map(lambda spec, name: _tensor_spec(model_name, name, spec, inputs))


def opened(call: CallArguments) -> CallArguments:
    """The call with an open first axis where it has the size of the batch, that of the first."""
    batch = next((spec.shape[0] for spec in call.specs if spec.shape.rank), None)

    def with_open_axis(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
        if not spec.shape.rank or spec.shape[0] != batch:
            return spec
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name)

    return call.map(with_open_axis)


def _tensor_spec(
    model_name: str, name: str, spec: Any, inputs: Mapping[str, Any] | None
) -> tf.TensorSpec:
    kind = type(spec).__name__.removesuffix("Spec")
    if kind not in ("Tensor", "Variable") or spec.dtype in (tf.variant, tf.resource):
        raise ValueError(
            f"The input {name!r} of {model_name!r} is a {kind} of {spec.dtype.name}, and the "
            "inputs of files are dense. Export a model that takes dense tensors and makes the "
            "others of them, for example by tf.RaggedTensor.from_tensor or tf.sparse.from_dense; "
            "or, if this one takes dense tensors too, pass inputs=... with an array for each "
            "argument of its call."
        )
    shape = spec.shape
    if shape.rank is None:
        if inputs is None or name not in inputs:
            raise ValueError(
                f"The number of axes of the input {name!r} of {model_name!r} is not known. Pass "
                f"inputs={{{name!r}: ...}} with an array that has them."
            )
        shape = [None, *np.shape(inputs[name])[1:]]
    return tf.TensorSpec(shape, spec.dtype, name)
