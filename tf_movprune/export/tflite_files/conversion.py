"""Conversion of a model's inference to TFLite, and the runtime that runs the file."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.core.inference import Inference
from tf_movprune.core.user_warnings import warn
from tf_movprune.export.checks import WITHOUT_STRINGS
from tf_movprune.export.tflite_files import flatbuffer

_WHILE = schema.BuiltinOperator.WHILE


def convert(
    inference: Inference,
    quantization: str | None,
    per_channel: bool = True,
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
    float_io: bool = True,
) -> bytes:
    """Converts an inference to a TFLite file.

    Args:
      inference: a model's inference.
      quantization: `"int8"`, `"float16"` or None.
      per_channel: whether matrices of int8 have a scale for each output, and not one.
      calibration: batches by input name. If there are some, activations are int8 too, with the
        ranges that they have on these batches.
      float_io: whether inputs and outputs stay floats then.

    Raises:
      ValueError: the converter does not take the model; says which operations, and the remedy.
    """
    if calibration is not None:
        _check_loops(inference)
    # The function stands in for the model: Keras would trace all of the model, and models that it
    # cannot trace get a file without a signature.
    module = tf.Module()
    module.function, module.weights = inference.concrete, list(inference.variables)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([inference.concrete], module)
        if quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if calibration is not None:
            converter.representative_dataset = lambda: iter(calibration)
        if not float_io:
            converter.inference_input_type = converter.inference_output_type = tf.int8
        if not per_channel:  # if TensorFlow drops this, the file needs a newer runtime and says so
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: SLF001
        with _without_diagnostics(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
            return converter.convert()  # which runs `calibration` in it
    except Exception as error:  # ConverterError and, from inside of it, many others
        raise ValueError(_refusal(inference, str(error))) from error


def _check_loops(inference: Inference) -> None:
    """Raises ValueError if the converter would end the process in quantizing a recurrent layer.

    In TensorFlow 2.21 it does so with loops over lists of tensors that stay loops in the file.
    Those of Keras 2's LSTM become one operation.
    """
    lists = {kind: path for kind, path in inference.operations.items() if "TensorList" in kind}
    if not lists:
        return
    model = flatbuffer.read(convert(inference, None))
    if any(flatbuffer.builtin(code) == _WHILE for code in model.operatorCodes):
        raise ValueError(
            f"{inference.name!r} loops over steps ({next(iter(lists.values()))}), and TensorFlow's "
            "converter would crash on calibration. Make recurrent layers with unroll=True, or "
            "leave calibration out: weights of the file are int8 without it."
        )


_redirection = threading.Lock()  # two that overlap would not put back what was there


@contextlib.contextmanager
def _without_diagnostics() -> Iterator[None]:
    """Drops MLIR's lines from the process's standard error if the context raises, and one always.

    They say at length what our error says, and come from C++, past `sys.stderr`. All other lines,
    and all of a context that does not raise, are written when it ends.
    """
    with _redirection, tempfile.TemporaryFile() as written:
        try:
            stderr = os.dup(2)
        except OSError:  # a process without one
            yield
            return
        has_raised = True
        os.dup2(written.fileno(), 2)
        try:
            yield
            has_raised = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not (_NOTICE.match(line) or (has_raised and _DIAGNOSTIC.match(line))):
                    os.write(2, line)


_NOTICE = re.compile(rb"fully_quantize: ")  # of calibration, whatever it finds
_DIAGNOSTIC = re.compile(rb"loc\(|<unknown>:0: |(error|note|warning): ")


def _refusal(inference: Inference, message: str) -> str:
    operations = inference.operations
    found = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", message))
    named = [f"{kind} ({operations[kind]})" if kind in operations else kind for kind in found]
    is_open = any(None in shape for shape in inference.input_shapes.values())
    if any(kind.startswith("TensorList") for kind in found) and is_open:
        remedy = (
            "Recurrent layers and other loops need fixed sizes: pass batch_size=1, and a "
            "sequence_length if there are open axes."
        )
    elif any(re.match("Lookup|.*String", kind) for kind in found) or "Placeholder" in found:
        remedy = f"It works on strings or looks up a table. {WITHOUT_STRINGS.format('LiteRT')}"
    elif "f64>" in message:
        remedy = "LiteRT has hardly any operations on float64: cast to float32."
    else:
        remedy = (
            "LiteRT runs its own operations only: write the layer in others, or use "
            "export_saved_model, which keeps all."
        )
    missing = f"it has no operation {', '.join(named)}" if named else message.strip().split("\n")[0]
    return f"{inference.name!r} cannot be converted to TFLite: {missing}. {remedy}"


def check_runtime() -> None:
    """Raises ImportError if there is no interpreter, and warns if only TensorFlow has one."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        name = "ai-edge-litert is not installed (pip install ai-edge-litert)"
        if not hasattr(tf.lite, "Interpreter"):
            raise ImportError(
                f"{name}, in which the file is run and compared with the model. Install it, or "
                "pass verify=False."
            ) from error
        warn(
            f"{name}: the file is compared in TensorFlow's own interpreter, which later releases "
            "will not have."
        )


def run_file(
    path: pathlib.Path, written: pathlib.Path, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The outputs of the TFLite file `written`, which is going to be `path`.

    Inputs that it takes as int8 are given so, and outputs of int8 are made floats.

    Raises:
      RuntimeError: the file does not run.
    """
    try:
        run = _interpreter(written).get_signature_runner()
        taken, given = run.get_input_details(), run.get_output_details()
        found = run(**{name: _quantized(array, taken[name]) for name, array in inputs.items()})
        return {name: _dequantized(array, given[name]) for name, array in found.items()}
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise RuntimeError(
            f"{path} was not written: LiteRT would not run it: {first}. Another "
            "batch_size or sequence_length may help; verify=False writes it without running it."
        ) from error


def _quantized(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if details["dtype"] != np.int8 or not scale or array.dtype.kind != "f":
        return array
    return np.clip(np.rint(array / scale) + zero_point, -128, 127).astype(np.int8)


def _dequantized(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if array.dtype != np.int8 or not scale:
        return array
    return (array.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _interpreter(path: pathlib.Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, as `check_runtime` says
            return tf.lite.Interpreter(model_path=str(path))
    return Interpreter(model_path=str(path))
