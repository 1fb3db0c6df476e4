"""TFLite files without empty heads and neurons, checked against their models."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_choice
from tf_movprune.core.inference import Inference
from tf_movprune.export.export_report import ExportReport, largest_difference, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.sparse_storage import NATIVE_BLOCKS, SPARSE_STORAGES, store_sparsely

# The difference that passes, over the largest output. For int8 it finds gross errors only: how
# much is good enough depends on the task.
_TOLERANCES = {None: 1e-4, "float16": 1e-2, "int8": 0.5}
_IMPOSSIBLE: dict[tuple[str | None, str | None], str] = {
    ("int8", "csr"): "LiteRT cannot load rows of int8. Use quantization=None or 'float16', or "
    "sparse_storage='blocks'",
    ("float16", "blocks"): "LiteRT has no kernel for blocks of float16. Use quantization=None or "
    "'int8', or sparse_storage='auto'",
}
# The types of the matrices that may be stored in blocks.
_IN_BLOCKS: dict[tuple[str | None, str | None], np.dtype] = {
    (None, "blocks"): np.dtype("float32"),
    (None, "auto"): np.dtype("float32"),
    ("int8", "blocks"): np.dtype("int8"),
}


def export_tflite(
    model: Any,
    path: str | pathlib.Path,
    *,
    sequence_length: int | None = 128,
    batch_size: int | None = 1,
    quantization: str | None = "int8",
    shrink: bool = True,
    sparse_storage: str | None = None,
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
      sequence_length: size of the open axes except the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      quantization: `"int8"` stores matrices of 1,024 entries and more as int8 and quantizes
        activations while it runs, four times smaller, and on x86 with VNNI four times faster;
        `"float16"` halves the file, at the same speed; None keeps float32.
      shrink: whether to leave out empty heads and neurons; see `compact`. Matrices that are stored
        in blocks lose whole blocks only.
      sparse_storage: None for dense storage; `"blocks"` for blocks that LiteRT multiplies natively,
        `BLOCKS_FLOAT32` or `BLOCKS_INT8`, if at least 90 % (int8: 95 %) of them are zero; `"csr"`
        for rows that LiteRT unpacks when it loads the file; or `"auto"` for blocks or rows if they
        are smaller and not slower on any CPU, and so never in int8.
      verify: whether to run the file and compare, in `ai_edge_litert` if it is installed and
        otherwise in TensorFlow's own interpreter, with its default delegate.
      atol: largest difference that passes. The default, over the larger of 1 and the largest
        output, is 1e-4 in float32, 0.01 in float16, and 0.5 in int8, which finds gross errors only.
      inputs: arrays by input name to compare on; random ones by default.

    Returns:
      An `ExportReport`.

    Raises:
      OSError: the file cannot be written. Nothing is left of it.
      RuntimeError: the converted model's outputs differ. Nothing is left of it.
      TypeError: `model` is not a Keras model, a size is not an integer, or `inputs` is not a
        mapping.
      ValueError: the model is still pruned, its inputs are not known, it cannot take inputs of
        these sizes, or `inputs` does not fit it; `quantization` or `sparse_storage` is not known,
        or LiteRT cannot run the two together.

    Warns if `sparse_storage` is `"blocks"` or `"csr"` and no matrix is sparse enough.
    """
    check_choice("quantization", quantization, tuple(_TOLERANCES))
    check_choice("sparse_storage", sparse_storage, SPARSE_STORAGES)
    if (quantization, sparse_storage) in _IMPOSSIBLE:
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with quantization {quantization!r}: "
            f"{_IMPOSSIBLE[quantization, sparse_storage]}."
        )
    shell = shell_of(model)
    shell.check_stripped(model)
    path = pathlib.Path(path)
    with shell.computing_in_float32(model):
        inference = shell.inference_of(model, sequence_length, batch_size)
        examples = inference.example_inputs(inputs)
        check_place(path)
        with contextlib.ExitStack() as stack:
            removed: dict[str, tuple[int, int]] = {}
            smaller = model
            if shrink:
                dtype = _IN_BLOCKS.get((quantization, sparse_storage))
                width, min_sparsity = NATIVE_BLOCKS[dtype][:2] if dtype else (1, 0.0)
                smaller, removed = stack.enter_context(shell.compacted(model, width, min_sparsity))
            traced = shell.inference_of(smaller, sequence_length, batch_size)
            data = _convert(traced, quantization)
        expected = inference.run(examples) if verify else {}
    data, matrices = store_sparsely(data, sparse_storage)
    is_dense = all(matrix.storage == "dense" for matrix in matrices)
    if sparse_storage in ("blocks", "csr") and is_dense:
        any_removed = any(gone for gone, _ in removed.values())
        warnings.warn(
            f"sparse_storage={sparse_storage!r} found no matrix that is sparse enough"
            f"{' without its empty heads and neurons' if any_removed else ''}: all are stored "
            "dense. Prune further, by BLOCKS_FLOAT32 or BLOCKS_INT8 where the file is to be faster"
            f"{'; or try shrink=False' if any_removed else ''}.",
            stacklevel=2,
        )
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        difference = None
        if verify:
            outputs = _run(temporary, traced, examples)
            difference = largest_difference(
                path, expected, outputs, _TOLERANCES[quantization], atol
            )
        report = report_on(path, temporary, traced, difference)
    return dataclasses.replace(
        report, quantization=quantization, removed=removed, matrices=tuple(matrices)
    )


def _convert(inference: Inference, quantization: str | None) -> bytes:
    # The function stands in for the model: Keras would trace all of the model, and models that it
    # cannot trace get a file without a signature.
    module = tf.Module()
    module.function, module.weights = inference.concrete, list(inference.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([inference.concrete], module)
    if quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _run(
    path: pathlib.Path, inference: Inference, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    interpreter = _interpreter(path)
    by_name = {spec.name: spec for spec in inference.specs}
    for detail in interpreter.get_input_details():
        name = detail["name"].removeprefix("serving_default_").split(":")[0]
        if name in by_name and not by_name[name].shape.is_fully_defined():
            interpreter.resize_tensor_input(detail["index"], inputs[name].shape)
    return interpreter.get_signature_runner()(**inputs)


def _interpreter(path: pathlib.Path) -> Any:
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError:
        litert = tf.lite
    return litert.Interpreter(model_path=str(path))
