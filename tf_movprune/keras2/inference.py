"""A tf_keras model as a function from named tensors to named tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.inference import (
    Inference,
    check_sizes,
    fixed_specs,
    has_open_axis,
    named_outputs,
    within_positions,
)
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.call_arguments import call_arguments
from tf_movprune.keras2.compat import ExportArchive, keras
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.replacement import unchanged
from tf_movprune.keras2.saving import check_stripped


def inference_of(
    model: keras.Model,
    sequence_length: int | None,
    batch_size: int | None,
    inputs: Mapping[str, Any] | None = None,
) -> Inference:
    """The inference of a stripped model.

    Args:
      sequence_length: size of the open axes except the first, or None.
      batch_size: size of the first axis, or None.
      inputs: arrays by input name; or by the names of arguments of the `call` of a subclassed
        model, which then are its inputs.

    Raises:
      TypeError: `model` is not a Keras model, or a size is not an integer.
      ValueError: the model is pruned, its inputs are not known or no dense tensors, a size is out
        of its range, or there is no axis that could have the `sequence_length`.
    """
    check_stripped(model)
    check_sizes(sequence_length, batch_size)
    call = call_arguments(model, inputs if isinstance(inputs, Mapping) else None)
    if (
        sequence_length is not None
        and has_open_axis(call.specs)
        and hugging_face.takes_its_signature(model)
    ):
        positions = hugging_face.positions(model)
        sequence_length = within_positions(sequence_length, positions, model.name)
    specs = fixed_specs(model.name, call.specs, sequence_length, batch_size)
    output_names = model.output_names if compat.runs_its_graph(model) else None

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        args, kwargs = call.filled(tensors)
        return named_outputs(model(*args, training=False, **kwargs), output_names)

    return Inference(
        model.name,
        specs,
        function,
        model.variables,
        hugging_face.vocabulary_size(model),
        call.constants,
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


def write_saved_model(model: keras.Model, inference: Inference, path: str) -> None:
    """Writes a SavedModel whose `serving_default` is the inference of a model."""
    archive = ExportArchive()
    archive.track(model)
    function, signature = inference.endpoint
    archive.add_endpoint("serve", function, input_signature=signature)
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
