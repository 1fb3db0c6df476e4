"""ONNX files without empty heads and neurons, checked against their models."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_movprune.core.arguments import check_boolean, check_choice
from tf_movprune.core.inference import Inference
from tf_movprune.export.checks import (
    check_convertible,
    check_path,
    check_verification,
    warn_of_constants,
)
from tf_movprune.export.export_report import ExportReport, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.logs import unchanged_logging
from tf_movprune.export.onnx_files.conversion import (
    check_libraries,
    check_names,
    check_size,
    convert_to_onnx,
    run_onnx,
)
from tf_movprune.export.onnx_files.quantization import quantize, stored_matrices
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.shrinking import shrunk
from tf_movprune.export.turns import one_at_a_time

# The difference that passes, over the larger of 1 and the largest output, as in TFLite files.
_TOLERANCES = {None: 1e-4, "int8": 0.5}


@one_at_a_time
def export_onnx(
    model: Any,
    path: str | pathlib.Path,
    *,
    sequence_length: int | None = None,
    batch_size: int | None = None,
    quantization: str | None = None,
    shrink: bool = True,
    verify: bool = True,
    atol: float | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes an ONNX file, runs it in ONNX Runtime and compares its outputs with the model's.

    The file takes the model's inputs and gives its outputs by name. It is of opset 17. Zeros stay
    zeros. Models of mixed precision are exported and compared in float32.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
        The model is left as it is.
      path: file to write. An existing one is replaced once the new one is verified.
      sequence_length: size of the open axes except the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      quantization: None keeps float32; `"int8"` stores matrices and tables of embeddings as int8,
        with one scale for each column of a matrix, by ONNX Runtime's own quantizer, and quantizes
        activations while it runs. Convolutions stay float32, which is faster.
      shrink: whether to leave out empty heads and neurons; see `compact`.
      verify: whether to run the file and compare.
      atol: largest difference that passes. The default, over the larger of 1 and the largest
        output, is 1e-4 in float32, and 0.5 in int8, which finds gross errors only.
      inputs: arrays by input name to compare on; random ones by default. For a subclassed model,
        which is called as it was first called, they can be arrays by the names of arguments of its
        `call` instead: the file then takes these arguments, in these shapes apart from the first
        axis, and the others get their defaults.

    Returns:
      An `ExportReport`.

    Raises:
      ImportError: tf2onnx or onnxruntime is missing.
      OSError: the file cannot be written. What was there stays.
      RuntimeError: the file does not run, or its outputs differ. What was there stays.
      TypeError: `model` is not a Keras model, or an argument is of a wrong type.
      ValueError: the model is still pruned; its inputs are not known, not dense tensors, or
        strings; it cannot take inputs of these sizes, has no open axis for `sequence_length`, or
        `inputs` does not fit it; it has operations that ONNX lacks, outputs with names of inputs,
        or more weights than one file holds; or `quantization` or the suffix of `path` is not one of
        ONNX files.

    Warns if arguments of the `call` of a subclassed model get their defaults.
    """
    check_choice("quantization", quantization, tuple(_TOLERANCES))
    path = check_path(path, ".onnx")
    check_verification(verify, atol)
    check_boolean("shrink", shrink)
    check_place(path)
    shell = shell_of(model)
    shell.check_stripped(model)
    check_libraries()
    with unchanged_logging(), shell.computing_in_float32(model):

        def trace(model: Any) -> Inference:
            return shell.inference_of(model, sequence_length, batch_size, inputs)

        inference = trace(model)
        check_convertible(inference, "ONNX", "ONNX Runtime")
        check_names(inference)
        if inputs is not None:
            inference.checked(inputs)
        example = inference.example(inputs) if verify else None
        warn_of_constants(inference)
        with shrunk(shell, model, trace, inference, shrink) as (traced, removed):
            check_size(traced)
            converted = convert_to_onnx(traced)
        if quantization == "int8":
            converted = quantize(converted)
        with replacing(path) as temporary:
            temporary.write_bytes(converted.SerializeToString())
            rtol = _TOLERANCES[quantization]
            report = report_on(path, temporary, inference, traced, example, run_onnx, rtol, atol)
    return dataclasses.replace(
        report,
        quantization=quantization,
        removed=removed,
        matrices=tuple(stored_matrices(converted)),
    )
