"""A Keras 3 model as a function from named tensors to named tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.inference import (
    Inference,
    check_sizes,
    fixed_specs,
    has_open_axis,
    named_outputs,
    within_positions,
)
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.call_arguments import call_arguments
from tf_movprune.keras3.saving import check_stripped


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
    if sequence_length is not None and has_open_axis(call.specs):
        positions = keras_hub.positions(model)
        sequence_length = within_positions(sequence_length, positions, model.name)
    specs = fixed_specs(model.name, call.specs, sequence_length, batch_size)
    output_names = compat.output_names(model) if compat.runs_its_graph(model) else None
    if output_names is not None and len(output_names) == 1 and keras_hub.is_causal_lm(model):
        output_names = ["logits"]  # of its graph it is that of the embedding of tokens, reversed

    @tf.autograph.experimental.do_not_convert
    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        args, kwargs = call.filled(tensors)
        return named_outputs(model(*args, training=False, **kwargs), output_names)

    return Inference(
        model.name,
        specs,
        function,
        [compat.tensorflow_variable(variable) for variable in model.variables],
        keras_hub.vocabulary_size(model),
        call.constants,
    )


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Lets a model of mixed precision, whose variables are float32, compute in float32."""
    half = [
        layer
        for layer in compat.all_layers(model)
        if layer.variable_dtype == "float32" and layer.compute_dtype != "float32"
    ]
    before = [(layer, dict(vars(layer))) for layer in half]
    try:
        for layer in half:
            compat.compute_in_float32(layer)
            for name, value in vars(layer).items():  # constants, as in `Normalization`
                if isinstance(value, tf.Tensor) and value.dtype in (tf.float16, tf.bfloat16):
                    vars(layer)[name] = tf.cast(value, tf.float32)
        yield
    finally:
        for layer, attributes in before:
            vars(layer).update(attributes)


def write_saved_model(model: keras.Model, inference: Inference, path: str) -> None:
    """Writes a SavedModel whose `serving_default` is the inference of a model."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    compat.store_variables_once(archive)
    function, signature = inference.endpoint
    archive.add_endpoint("serve", function, input_signature=signature)
    archive.write_out(path, verbose=False)
