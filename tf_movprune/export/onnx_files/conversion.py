"""Conversion of a model's inference to ONNX, and the runtime that runs the file."""

from __future__ import annotations

import pathlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.inference import Inference
from tf_movprune.export.logs import without_lines
from tf_movprune.export.onnx_files.operations import HANDLERS

_OPSET = 17  # of ONNX 1.12, which every ONNX Runtime since 1.12 reads
_MAX_BYTES = 2**31 - 1  # of a message of Protocol Buffers, which an ONNX file is


def check_libraries() -> None:
    """Raises ImportError if a package that ONNX files take is missing."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            f"ONNX files need {error.name}: pip install tf2onnx onnxruntime"
        ) from error


def check_names(inference: Inference) -> None:
    """Raises ValueError if an output has the name of an input, which tf2onnx would mix up."""
    both = sorted(inference.input_shapes.keys() & inference.output_shapes.keys())
    if both:
        raise ValueError(
            f"The outputs {both} of {inference.name!r} have names of inputs, and in an ONNX file "
            "each tensor has a name of its own. Give them others, or use export_saved_model or "
            "export_tflite."
        )


def check_size(inference: Inference) -> None:
    """Raises ValueError if the weights of an inference do not fit into one ONNX file."""
    size = sum(v.shape.num_elements() * v.dtype.size for v in inference.variables)
    if size > _MAX_BYTES:
        raise ValueError(
            f"The weights of {inference.name!r} take {size / 1e9:.1f} GB, and one ONNX file holds "
            "2.1 GB at most. Use export_saved_model, or prune heads and neurons and compact the "
            "model."
        )


def convert_to_onnx(inference: Inference) -> Any:
    """Converts an inference to an ONNX model, a message of Protocol Buffers.

    Raises:
      ValueError: tf2onnx does not take the model; says which operations, and the remedy.
    """
    import tf2onnx

    # tf2onnx asks a tf.function for its concrete function only, and this one is traced already.
    function = types.SimpleNamespace(get_concrete_function=lambda *_: inference.concrete)
    try:
        with without_lines("tf2onnx"):
            model, _ = tf2onnx.convert.from_function(
                function,
                input_signature=list(inference.specs),
                opset=_OPSET,
                custom_op_handlers=dict(HANDLERS),
            )
    except Exception as error:  # of many kinds
        raise ValueError(
            f"{inference.name!r} cannot be converted to ONNX: {_first_line(error)}. Use "
            "export_saved_model or export_tflite."
        ) from error
    _check_operations(inference, model)
    _hold_constants(model, inference.concrete)
    return model


def _hold_constants(model: Any, concrete: Any) -> None:
    """Makes constants of the tensors that a function captured, which tf2onnx makes inputs of."""
    from onnx.numpy_helper import from_array

    captured = {
        inner.name: outer for outer, inner in concrete.graph.captures if inner.dtype != tf.resource
    }
    used = {name for graph in _graphs(model.graph) for node in graph.node for name in node.input}
    for value in list(model.graph.input):
        if value.name in captured:
            model.graph.input.remove(value)
            if value.name in used:
                constant = from_array(captured[value.name].numpy(), value.name)
                model.graph.initializer.append(constant)


def _check_operations(inference: Inference, model: Any) -> None:
    """Raises ValueError if tf2onnx left operations in a model that ONNX has not."""
    import onnx

    missing = {
        node.op_type: node.name
        for graph in _graphs(model.graph)
        for node in graph.node
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type)
    }
    if missing:
        operations = inference.operations
        named = ", ".join(f"{k} ({operations.get(k, name)})" for k, name in missing.items())
        raise ValueError(
            f"{inference.name!r} cannot be converted to ONNX: it has no operation {named}. Write "
            "the layer in others, or use export_saved_model or export_tflite."
        )


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those in it of branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def run_onnx(
    path: pathlib.Path, written: pathlib.Path, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The outputs of the ONNX file `written`, which is going to be `path`.

    Raises:
      RuntimeError: the file does not run.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs))))
    except Exception as error:  # of classes that ONNX Runtime does not name
        raise RuntimeError(
            f"{path} was not written: ONNX Runtime would not run it: {_first_line(error)}. Fixed "
            "sizes may help: pass sequence_length and batch_size; verify=False writes it without "
            "running it."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
