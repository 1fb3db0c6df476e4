"""A tf_keras model as a function from named tensors to named tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.inference import IfOpen, Inference
from tf_movprune.core.nested import named_leaves, valid_names
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
    for name, size in (("sequence_length", sequence_length), ("batch_size", batch_size)):
        if size is not None:
            check_integer(name, size, example=128, minimum=1)
    call = call_arguments(model, inputs if isinstance(inputs, Mapping) else None)
    has_open_axis = any(None in spec.shape[1:] for spec in call.specs if spec.shape.rank)
    if sequence_length is not None:
        if has_open_axis and hugging_face.takes_its_signature(model):
            hugging_face.check_sequence_length(model, sequence_length)
        elif not has_open_axis and not isinstance(sequence_length, IfOpen):
            _check_fixed(model, call.specs, sequence_length)

    def fixed(spec: tf.TensorSpec) -> tf.TensorSpec:
        sizes = [size if size is not None else sequence_length for size in spec.shape]
        if sizes:
            sizes[0] = spec.shape[0] if spec.shape[0] is not None else batch_size
        return tf.TensorSpec(sizes, spec.dtype, name=spec.name)

    output_names = model.output_names if compat.runs_its_graph(model) else None

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        args, kwargs = call.filled(tensors)
        return _named(model(*args, training=False, **kwargs), output_names)

    return Inference(
        model.name,
        [fixed(spec) for spec in call.specs],
        function,
        model.variables,
        hugging_face.vocabulary_size(model),
        call.constants,
    )


def _check_fixed(model: keras.Model, specs: Sequence[tf.TensorSpec], size: int) -> None:
    """Raises ValueError if no input has an axis of a size, other than the first, by itself."""
    if not any(size in spec.shape[1:] for spec in specs if spec.shape.rank):
        shapes = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in specs)
        raise ValueError(
            f"sequence_length is {size}, but the inputs of {model.name!r} have no open axis but "
            f"the first: {shapes}. Leave sequence_length out, or make the model for inputs of that "
            "length, in a subclassed one by inputs=... of it."
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


@tf.autograph.experimental.do_not_convert
def _named(outputs: Any, names: list[str] | None) -> dict[str, tf.Tensor]:
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
