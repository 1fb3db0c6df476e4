"""A tf_keras model as a function from named tensors to named tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.inference import Inference
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import ExportArchive, is_graph_network, keras
from tf_movprune.keras2.layer_tree import LayerTree, unchanged
from tf_movprune.keras2.saving import check_stripped


def inference_of(
    model: keras.Model, sequence_length: int | None, batch_size: int | None
) -> Inference:
    """The inference of a stripped model.

    Args:
      sequence_length: size of the open axes except the first, or None.
      batch_size: size of the first axis, or None.

    Raises:
      TypeError: `model` is not a Keras model, or a size is not an integer.
      ValueError: the model is pruned, its inputs are not known, or a size is out of its range.
    """
    check_stripped(model)
    for name, size in (("sequence_length", sequence_length), ("batch_size", batch_size)):
        if size is not None:
            check_integer(name, size, example=128, minimum=1)
    if hugging_face.is_hugging_face(model) and sequence_length is not None:
        hugging_face.check_sequence_length(model, sequence_length)

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

    return Inference(
        model.name, specs, function, model.variables, hugging_face.vocabulary_size(model)
    )


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Lets a model of mixed precision, whose variables are float32, compute in float32."""
    half = [
        layer
        for layer in LayerTree(model).layers()
        if layer.variable_dtype == "float32" and layer.compute_dtype != "float32"
    ]
    if not half:
        yield
        return
    with unchanged(model):
        for layer in half:
            compat.set_precision(layer, "float32")
            for name, value in vars(layer).items():  # constants, as in `Normalization`
                if isinstance(value, tf.Tensor) and value.dtype in (tf.float16, tf.bfloat16):
                    vars(layer)[name] = tf.cast(value, tf.float32)
        yield


def _input_structure(model: keras.Model) -> Any:
    """TensorSpecs in the structure in which the model takes its inputs."""
    if hugging_face.is_hugging_face(model):
        return hugging_face.input_specs(model)
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


def write_saved_model(model: keras.Model, inference: Inference, path: str) -> None:
    """Writes a SavedModel whose `serving_default` is the inference of a model."""
    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", inference.function, input_signature=list(inference.specs))
    with _quietly():  # Keras prints a line for each variable
        archive.write_out(path)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    was_enabled = keras.utils.is_interactive_logging_enabled()
    keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if was_enabled:
            keras.utils.enable_interactive_logging()
