"""TFLite files without empty heads and neurons, checked against their models."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_boolean, check_choice
from tf_movprune.core.inference import IfOpen
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import counted
from tf_movprune.export import tflite_file
from tf_movprune.export.checks import check_path, check_verification, warn_of_constants
from tf_movprune.export.conversion import check_convertible, check_runtime, convert, run_file
from tf_movprune.export.export_report import ExportReport, largest_difference, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.logs import unchanged_logging
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.sparse_storage import (
    NATIVE_BLOCKS,
    SPARSE_STORAGES,
    StoredMatrix,
    store_sparsely,
)
from tf_movprune.export.tensor_names import name_as_signature

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
_LENGTH = IfOpen(128)
_BLOCK_SIZES = {4: "BLOCKS_FLOAT32", 16: "BLOCKS_INT8"}


def export_tflite(
    model: Any,
    path: str | pathlib.Path,
    *,
    sequence_length: int | None = _LENGTH,
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
      sequence_length: size of the open axes except the first. Unless it is given, it is 128, or the
        number of positions of a model that has fewer; None leaves them open.
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
        otherwise in TensorFlow's own interpreter, with a warning; with the default delegate.
      atol: largest difference that passes. The default, over the larger of 1 and the largest
        output, is 1e-4 in float32, 0.01 in float16, and 0.5 in int8, which finds gross errors only.
      inputs: arrays by input name to compare on; random ones by default. For a subclassed model,
        which is called as it was first called, they can be arrays by the names of arguments of its
        `call` instead: the file then takes these arguments, in these shapes apart from the first
        axis, and the others get their defaults.

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
        the first two together.

    Warns if `sparse_storage` is `"blocks"` or `"csr"` and no matrix is sparse enough, and if
    arguments of the `call` of a subclassed model get their defaults.
    """
    check_choice("quantization", quantization, tuple(_TOLERANCES))
    check_choice("sparse_storage", sparse_storage, SPARSE_STORAGES)
    if (quantization, sparse_storage) in _IMPOSSIBLE:
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with quantization {quantization!r}: "
            f"{_IMPOSSIBLE[quantization, sparse_storage]}."
        )
    path = check_path(path, ".tflite")
    check_verification(verify, atol)
    check_boolean("shrink", shrink)
    check_place(path)
    if verify:
        check_runtime()
    shell = shell_of(model)
    shell.check_stripped(model)
    with unchanged_logging(), shell.computing_in_float32(model):
        inference = shell.inference_of(model, sequence_length, batch_size, inputs)
        check_convertible(inference)
        if inputs is not None:
            inference.checked(inputs)
        example = inference.example(inputs) if verify else None
        warn_of_constants(inference)
        with contextlib.ExitStack() as stack:
            removed: dict[str, tuple[int, int]] = {}
            traced = inference
            if shrink:
                dtype = _IN_BLOCKS.get((quantization, sparse_storage))
                width, min_sparsity = NATIVE_BLOCKS[dtype][:2] if dtype else (1, 0.0)
                smaller, removed = stack.enter_context(shell.compacted(model, width, min_sparsity))
                if any(gone for gone, _ in removed.values()):
                    traced = shell.inference_of(smaller, sequence_length, batch_size, inputs)
            data = convert(traced, quantization)
        file = tflite_file.read(data)
        name_as_signature(file)
        matrices = store_sparsely(file, sparse_storage)
        if sparse_storage in ("blocks", "csr"):
            _warn_if_dense(matrices, quantization, sparse_storage, removed)
        with replacing(path) as temporary:
            temporary.write_bytes(tflite_file.written(file))
            difference = None
            if example is not None:
                outputs = run_file(path, temporary, example.inputs)
                tolerance = _TOLERANCES[quantization]
                difference = largest_difference(path, inference, example, outputs, tolerance, atol)
            report = report_on(path, temporary, traced, difference)
    return dataclasses.replace(
        report, quantization=quantization, removed=removed, matrices=tuple(matrices)
    )


def _warn_if_dense(
    matrices: Sequence[StoredMatrix],
    quantization: str | None,
    sparse_storage: str,
    removed: Mapping[str, tuple[int, int]],
) -> None:
    """Warns, with what was needed and what was found, if nothing is stored sparsely."""
    if any(matrix.storage != "dense" for matrix in matrices):
        return
    gone = [counted(count, f"empty {kind[:-1]}") for kind, (count, _) in removed.items() if count]
    left_out = f" after leaving out {' and '.join(gone)}" if gone else ""
    if sparse_storage == "csr":
        needed = "Rows must take fewer bytes than the dense matrix: 20 to 50 % zeros or more"
        remedy = "Prune further"
    else:
        width, min_sparsity, _ = NATIVE_BLOCKS[np.dtype(quantization or "float32")]
        needed = f"At least {min_sparsity:.0%} of the blocks of {width} inputs must be zero"
        remedy = f"Prune further, by {_BLOCK_SIZES[width]}"
        if quantization == "int8":
            remedy += "; or pass quantization=None for blocks of 4"
    sparsest = sorted(matrices, key=lambda matrix: -_found(matrix, sparse_storage)[0])[:3]
    found = [f"{m.name!r} has {_found(m, sparse_storage)[1]}" for m in sparsest]
    warn(
        f"sparse_storage={sparse_storage!r} found no matrix that is sparse enough{left_out}: all "
        f"are stored dense. {needed}. {', '.join(found) or 'There is no matrix'}. "
        f"{remedy}{'; or try shrink=False' if gone else ''}."
    )


def _found(matrix: StoredMatrix, sparse_storage: str) -> tuple[float, str]:
    """The sparsity that decides on the storage of a matrix, as a number and in words."""
    if sparse_storage == "csr":
        return matrix.sparsity, f"{matrix.sparsity:.0%} zeros"
    if matrix.block_sparsity is None:
        return -1.0, f"{matrix.shape[1]:,} inputs of {matrix.dtype}, for which there are no blocks"
    return matrix.block_sparsity, f"{matrix.block_sparsity:.0%} zero blocks"
