"""TFLite files, without what is empty, checked against the models that they come from."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.saved_model import ExportReport, largest_difference, report_on
from tf_movprune.export.sparse_storage import NATIVE_BLOCKS, SPARSE_STORAGES, store_sparsely
from tf_movprune.keras2.checks import check_stripped
from tf_movprune.keras2.compact import compacted
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.inference import Signature, computing_in_float32, signature_of

# How a report calls them, and the difference that passes, over the largest output. Of int8 it only
# finds what is broken: what is good enough depends on the task.
_QUANTIZATIONS = {
    "none": ("float32", 1e-4),
    "float16": ("float16", 1e-2),
    "dynamic": ("dynamic-range int8", 0.5),
}
_IMPOSSIBLE = {
    ("dynamic", "csr"): "LiteRT cannot load rows of int8. Use quantization='none' or 'float16', or "
    "sparse_storage='blocks'",
    ("float16", "blocks"): "LiteRT has no kernel for blocks of float16. Use quantization='none' or "
    "'dynamic', or sparse_storage='auto'",
}
# Of the matrices that may be stored in blocks.
_IN_BLOCKS = {
    ("none", "blocks"): np.dtype("float32"),
    ("none", "auto"): np.dtype("float32"),
    ("dynamic", "blocks"): np.dtype("int8"),
}


def export_tflite(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    sequence_length: int | None = 128,
    batch_size: int | None = 1,
    quantization: str = "dynamic",
    shrink: bool = True,
    sparse_storage: str = "none",
    verify: bool = True,
    atol: float | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a TFLite file, runs it in LiteRT and compares its outputs with the model's.

    docs/export.md has what each option buys. Zeros stay zeros in every format. Models of mixed
    precision compute in float32 for this, and are compared so.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
        It is left as it is.
      path: file to write. What is there before is replaced, once the new file is verified.
      sequence_length: size of the open axes but the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      quantization: `"dynamic"` stores matrices of 1,024 entries and more as int8 and quantizes
        activations while it runs, four times smaller, and on x86 with VNNI four times faster;
        `"float16"` halves the file, at the same speed; `"none"` keeps float32.
      shrink: whether to leave out empty heads and neurons; see `compact`. Beside matrices that are
        stored in blocks, only whole blocks of them.
      sparse_storage: `"none"`; `"blocks"` that LiteRT multiplies as they are, of `BLOCKS_FLOAT32`
        or `BLOCKS_INT8`, where at least 90 % (int8: 95 %) of them are zero; `"csr"`, rows that it
        unpacks when it loads the file; or `"auto"`, blocks or rows where they are smaller and not
        slower on any CPU, and so never in int8.
      verify: whether to run the file and compare, in `ai_edge_litert` where it is installed and
        else in TensorFlow's own interpreter, with its default delegate.
      atol: largest difference that passes. Unless given, over the larger of 1 and the largest
        output: 1e-4 in float32, 0.01 in float16, and 0.5 in int8, which only finds what is broken.
      inputs: arrays by input name to compare on; random ones unless given.

    Returns:
      An `ExportReport`.

    Raises:
      OSError: the file cannot be written. Nothing is left of it.
      RuntimeError: the converted model's outputs differ. Nothing is left of it.
      TypeError: not a Keras model, a size is no integer, or `inputs` are no mapping.
      ValueError: the model is still pruned, its inputs are not known, it cannot take inputs of
        these sizes, `inputs` are not what it takes; `quantization` or `sparse_storage` is not
        known, or LiteRT cannot run the one with the other.

    Warns where blocks or rows were asked for, and no matrix is sparse enough.
    """
    _check_choice("quantization", quantization, tuple(_QUANTIZATIONS))
    _check_choice("sparse_storage", sparse_storage, SPARSE_STORAGES)
    if (quantization, sparse_storage) in _IMPOSSIBLE:
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with quantization {quantization!r}: "
            f"{_IMPOSSIBLE[quantization, sparse_storage]}."
        )
    check_stripped(model)
    path = pathlib.Path(path)
    name, rtol = _QUANTIZATIONS[quantization]
    with computing_in_float32(model):
        signature = signature_of(model, sequence_length, batch_size)
        examples = signature.example_inputs(inputs)
        check_place(path)
        with contextlib.ExitStack() as stack:
            removed: dict[str, tuple[int, int]] = {}
            smaller = model
            if shrink:
                dtype = _IN_BLOCKS.get((quantization, sparse_storage))
                width, min_sparsity = NATIVE_BLOCKS[dtype][:2] if dtype else (1, 0.0)
                smaller, removed = stack.enter_context(compacted(model, width, min_sparsity))
            traced = signature_of(smaller, sequence_length, batch_size)
            data = _convert(traced, quantization)
        expected = signature.run(examples) if verify else {}
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
            difference = largest_difference(path, expected, outputs, rtol, atol)
        report = report_on(path, temporary, traced, difference)
    return dataclasses.replace(report, quantization=name, removed=removed, matrices=tuple(matrices))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def _convert(signature: Signature, quantization: str) -> bytes:
    # Not the model itself: Keras would trace all of it, and models that it cannot trace get a file
    # without a signature.
    module = tf.Module()
    module.function, module.weights = signature.concrete, signature.model.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature.concrete], module)
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _run(
    path: pathlib.Path, signature: Signature, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    interpreter = _interpreter(path)
    by_name = {spec.name: spec for spec in signature.specs}
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
