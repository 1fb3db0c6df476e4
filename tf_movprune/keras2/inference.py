"""Models as functions from named tensors to named tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.keras2.checks import check_stripped
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.targets import is_hugging_face
from tf_movprune.keras2.tree import is_graph_network, unchanged, walk


@dataclasses.dataclass(frozen=True)
class Signature:
    """A model's inference with fixed names, dtypes and, where wanted, sizes."""

    model: keras.Model
    specs: list[tf.TensorSpec]
    function: Callable[..., dict[str, tf.Tensor]]

    @functools.cached_property
    def concrete(self) -> Any:
        """The traced function.

        Raises:
          ValueError: the model does not take inputs of these sizes.
        """
        try:
            return tf.function(self.function, input_signature=self.specs).get_concrete_function()
        except ValueError as error:
            shapes = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in self.specs)
            raise ValueError(
                f"{self.model.name!r} cannot be called on inputs of these shapes: {shapes}. Pass "
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
        """`given` inputs in the dtypes of the signature, or such that look like real ones.

        Raises:
          TypeError: `given` is not a mapping.
          ValueError: an input is missing, or of another shape.
        """
        if given is None:
            return _random_inputs(self.model, self.specs)
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


def signature_of(
    model: keras.Model, sequence_length: int | None, batch_size: int | None
) -> Signature:
    """The inference of a stripped model.

    Args:
      sequence_length: size of the open axes but the first, or None.
      batch_size: size of the first axis, or None.

    Raises:
      TypeError: not a Keras model, or a size is not an integer.
      ValueError: the model is pruned, its inputs are not known, or a size is out of its range.
    """
    check_stripped(model)
    for name, size in (("sequence_length", sequence_length), ("batch_size", batch_size)):
        if size is not None and check_integer(name, size, example=128) < 1:
            raise ValueError(f"{name} must be at least 1, or None for any size, got {size}.")
    if is_hugging_face(model) and sequence_length is not None:
        _check_positions(model, sequence_length)

    def fixed(spec: Any, name: str) -> tf.TensorSpec:
        sizes = [size if size is not None else sequence_length for size in spec.shape]
        if sizes:
            sizes[0] = spec.shape[0] if spec.shape[0] is not None else batch_size
        return tf.TensorSpec(sizes, spec.dtype, name=name)

    structure = _input_structure(model)
    specs = [fixed(spec, _input_name(spec, i)) for i, spec in enumerate(tf.nest.flatten(structure))]
    output_names = model.output_names if is_graph_network(model) else None

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = tf.nest.pack_sequence_as(structure, tensors)
        return _named(model(inputs, training=False), output_names)

    return Signature(model, specs, function)


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Of mixed precision, in which the variables are float32, makes all float32 for a while."""
    half = [
        layer
        for layer in (model, *(layer for _, layer in walk(model)))
        if layer.variable_dtype == "float32" and layer.compute_dtype != "float32"
    ]
    if not half:
        yield
        return
    with unchanged(model):
        for layer in half:
            layer._set_dtype_policy("float32")
            for name, value in vars(layer).items():  # constants, as `Normalization` has them
                if isinstance(value, tf.Tensor) and value.dtype in (tf.float16, tf.bfloat16):
                    vars(layer)[name] = tf.cast(value, tf.float32)
        yield


def _check_positions(model: keras.Model, sequence_length: int) -> None:
    """Beyond its table of positions a model fails when it runs, and not everywhere."""
    for module in model.submodules:
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, tf.Variable):
            count = table.shape[0]
            offset = getattr(module, "padding_idx", -1) + 1  # RoBERTa's positions begin there
            if sequence_length > count - offset:
                raise ValueError(
                    f"sequence_length must be at most {count - offset} for this "
                    f"{type(model).__name__}, whose max_position_embeddings is {count}, got "
                    f"{sequence_length}. Pass a shorter sequence_length; export_tflite takes 128 "
                    "where none is given."
                )


def _input_structure(model: keras.Model) -> Any:
    """TensorSpecs in the structure in which the model takes its inputs."""
    if is_hugging_face(model):
        return dict(model.input_signature)
    if is_graph_network(model) and model.inputs:

        def spec(tensor):
            return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.node.layer.name)

        return tf.nest.map_structure(spec, model.input)
    saved = model.save_spec(dynamic_batch=True)
    if saved is None:
        raise ValueError(
            f"The inputs of {model.name!r} are not known. Call the model once on example inputs "
            "before exporting."
        )
    args, _ = saved
    if model.compute_dtype != "float32":
        return args[0]

    def as_computed(spec: tf.TensorSpec) -> tf.TensorSpec:  # Keras saw it when it was cast to half
        is_half = spec.dtype in (tf.float16, tf.bfloat16)
        return tf.TensorSpec(spec.shape, tf.float32 if is_half else spec.dtype, spec.name)

    return tf.nest.map_structure(as_computed, args[0])


def _input_name(spec: Any, index: int) -> str:
    return (spec.name or f"input_{index}").split(":")[0].replace("/", "_")


def _named(outputs: Any, names: list[str] | None) -> dict[str, tf.Tensor]:
    if isinstance(outputs, Mapping):
        return {name: value for name, value in outputs.items() if tf.is_tensor(value)}
    flat = tf.nest.flatten(outputs)
    return dict(zip(names or [f"output_{i}" for i in range(len(flat))], flat))


def _random_inputs(model: keras.Model, specs: list[tf.TensorSpec]) -> dict[str, np.ndarray]:
    """Inputs that look like real ones: token ids within the vocabulary, and some padding."""
    random = np.random.RandomState(0)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", 2)
    inputs: dict[str, np.ndarray] = {}
    for spec in specs:
        open_sizes = [2, *[16] * (spec.shape.rank - 1)]
        shape = [size or other for size, other in zip(spec.shape, open_sizes)]
        if not spec.dtype.is_integer:
            inputs[spec.name] = random.standard_normal(shape)
        elif "mask" in spec.name:
            inputs[spec.name] = np.arange(shape[-1]) < max(1, shape[-1] // 2) + np.zeros(shape)
        else:
            high = 1 if "type" in spec.name else vocabulary
            inputs[spec.name] = random.randint(0, high, shape)
    return {spec.name: inputs[spec.name].astype(spec.dtype.as_numpy_dtype) for spec in specs}
