"""TFLite files without empty heads and neurons, checked against their models."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_boolean
from tf_movprune.core.inference import IfOpen, Inference
from tf_movprune.core.user_warnings import warn
from tf_movprune.export.checks import (
    check_convertible,
    check_path,
    check_verification,
    warn_of_constants,
)
from tf_movprune.export.export_report import ExportReport, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.logs import unchanged_logging
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.shrinking import shrunk
from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.calibration import calibration_batches, number_of_rows
from tf_movprune.export.tflite_files.conversion import check_runtime, convert, run_file
from tf_movprune.export.tflite_files.int4 import store_in_int4
from tf_movprune.export.tflite_files.options import (
    PER_CHANNEL_CALIBRATED,
    TOLERANCES,
    check_options,
    is_per_channel,
)
from tf_movprune.export.tflite_files.runtime_version import (
    check_runs_in,
    forget_uncertain_runtime,
    min_runtime,
    require_runtime,
)
from tf_movprune.export.tflite_files.sparse_storage import NATIVE_BLOCKS, store_sparsely
from tf_movprune.export.tflite_files.sparse_warnings import warn_if_dense
from tf_movprune.export.tflite_files.tensor_names import name_as_signature
from tf_movprune.export.turns import one_at_a_time

# The types of the matrices that may be stored in blocks.
_IN_BLOCKS: dict[tuple[str | None, str | None], np.dtype] = {
    (None, "blocks"): np.dtype("float32"),
    (None, "auto"): np.dtype("float32"),
    ("int8", "blocks"): np.dtype("int8"),
}
_LENGTH = IfOpen(128)


@one_at_a_time
def export_tflite(
    model: Any,
    path: str | pathlib.Path,
    *,
    sequence_length: int | None = _LENGTH,
    batch_size: int | None = 1,
    quantization: str | None = "int8",
    shrink: bool = True,
    sparse_storage: str | None = None,
    runtime: str | None = None,
    calibration: Any = None,
    float_io: bool = True,
    verify: bool = True,
    atol: float | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a TFLite file, runs it in LiteRT and compares its outputs with the model's.

    docs/export.md says what each option buys. Zeros stay zeros in every format. Models of mixed
    precision are exported and compared in float32.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
        The model is left as it is.
      path: file to write. An existing one is replaced once the new one is verified.
      sequence_length: size of the open axes except the first. Unless it is given, it is 128, or the
        number of positions of a model that has fewer; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      quantization: `"int8"` stores matrices of 1,024 entries and more as int8 and quantizes
        activations while it runs, four times smaller, and on x86 with VNNI four times faster;
        `"int4"` stores those of fully connected layers as int4, and the rest as int8;
        `"float16"` halves the file, at the same speed; None keeps float32.
      shrink: whether to leave out empty heads and neurons; see `compact`. Matrices that are stored
        in blocks lose whole blocks only.
      sparse_storage: None for dense storage; `"blocks"` for blocks that LiteRT multiplies natively,
        `BLOCKS_FLOAT32` or `BLOCKS_INT8`, if at least 90 % (int8: 95 %) of them are zero; `"csr"`
        for rows that LiteRT unpacks when it loads the file; or `"auto"` for blocks or rows if they
        are smaller and not slower on any CPU, and so never in int8.
      runtime: oldest release of TensorFlow Lite that has to run the file, such as `"2.14"`; None
        for any. Before 2.17, matrices of int8 get one scale instead of one for each output. Every
        release of LiteRT counts as 2.17 or newer, whatever its own number: leave this out for it.
      calibration: data on which to measure the ranges of activations, which int8 then stores as
        int8 too, for hardware that has nothing else: a mapping of arrays by input name, batches of
        such mappings or of `(x, y)`, or a `tf.data.Dataset`. The first 256 rows are read.
      float_io: whether inputs and outputs that are floats stay so with `calibration`. Otherwise
        they are int8, with a scale and a zero point that the interpreter tells.
      verify: whether to run the file and compare, in `ai_edge_litert` if it is installed and
        otherwise in TensorFlow's own interpreter, with a warning; with the default delegate.
      atol: largest difference that passes. The default, over the larger of 1 and the largest
        output, is 1e-4 in float32, 0.01 in float16, and 0.5 in int8 and int4, which finds gross
        errors only.
      inputs: arrays by input name to compare on; by default rows of `calibration`, or random ones.
        For a subclassed model, which is called as it was first called, they can be arrays by the
        names of arguments of its `call` instead: the file then takes these arguments, in these
        shapes apart from the first axis, and the others get their defaults.

    Returns:
      An `ExportReport`.

    Raises:
      ImportError: there is no interpreter to run the file in.
      OSError: the file cannot be written. Nothing is left of it.
      RuntimeError: the file does not run, or its outputs differ. Nothing is left of it.
      TypeError: `model` is not a Keras model, or an argument is of a wrong type.
      ValueError: the model is still pruned; its inputs are not known, not dense tensors, or
        strings; it cannot take inputs of these sizes, has no open axis for a `sequence_length` that
        was given, or `inputs` does not fit it; it has operations that TFLite lacks; `quantization`,
        `sparse_storage` or the suffix of `path` is not one of TFLite files, or LiteRT cannot run
        the first two together; the file would need a release that is newer than `runtime`;
        `calibration` has too few rows, or they do not fit the model.

    Warns if `sparse_storage` is `"blocks"` or `"csr"` and no matrix is sparse enough, if there is
    none to store in int4, and if arguments of the `call` of a subclassed model get their defaults.
    """
    check_options(quantization, sparse_storage, runtime, calibration is not None, float_io)
    path = check_path(path, ".tflite")
    check_verification(verify, atol)
    check_boolean("shrink", shrink)
    check_place(path)
    if verify:
        check_runtime()
    shell = shell_of(model)
    shell.check_stripped(model)
    with unchanged_logging(), shell.computing_in_float32(model):

        def trace(model: Any) -> Inference:
            return shell.inference_of(model, sequence_length, batch_size, inputs)

        inference = trace(model)
        check_convertible(inference, "TFLite", "LiteRT")
        if inputs is not None:
            inference.checked(inputs)
        batches = None
        if calibration is not None:
            batches = calibration_batches(inference.specs, calibration)
        shown = batches[0] if inputs is None and batches else inputs
        example = inference.example(shown) if verify else None
        warn_of_constants(inference)
        dtype = _IN_BLOCKS.get((quantization, sparse_storage))
        blocks = NATIVE_BLOCKS[dtype][:2] if dtype else (1, 0.0)
        per_channel = is_per_channel(runtime, batches is not None)
        with shrunk(shell, model, trace, inference, shrink, *blocks) as (traced, removed):
            data = convert(traced, quantization, per_channel, batches, float_io)
        file = flatbuffer.read(data)
        name_as_signature(file)
        if batches and per_channel:
            require_runtime(file, PER_CHANNEL_CALIBRATED)
        forget_uncertain_runtime(file)
        if quantization == "int4" and not store_in_int4(file):
            warn(
                "quantization='int4' found no matrix of a fully connected layer with 1,024 entries "
                "or more: all is stored as in int8."
            )
        matrices = store_sparsely(file, sparse_storage)
        check_runs_in(file, runtime, inference.name)
        if sparse_storage in ("blocks", "csr"):
            warn_if_dense(matrices, quantization, sparse_storage, removed)
        with replacing(path) as temporary:
            temporary.write_bytes(flatbuffer.written(file))
            rtol = TOLERANCES[quantization]
            report = report_on(path, temporary, inference, traced, example, run_file, rtol, atol)
    return dataclasses.replace(
        report,
        quantization=quantization,
        removed=removed,
        matrices=tuple(matrices),
        min_runtime=min_runtime(file),
        calibration_rows=None if batches is None else number_of_rows(batches),
    )
