"""The oldest release of TensorFlow Lite known to run a TFLite file, as its metadata says it.

The converter writes it, from its table of operators and versions. What is added to a file later is
added here. Every release of LiteRT, `ai-edge-litert` 1.0 and later, counts as 2.17 or newer.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.tflite_files.flatbuffer import builtin, builtin_of, text

_ENTRY = "min_runtime_version"
_ENTRY_BYTES = 16
# Operators that the converter's table lacks, and skips.
_UNLISTED = {
    code
    for name, code in vars(schema.BuiltinOperator).items()
    if name in ("CUSTOM", "DELEGATE") or name.startswith("STABLEHLO_")
}


def check_runtime_version(runtime: Any) -> None:
    """Raises TypeError or ValueError if `runtime` is neither None nor like "2.14" or "2.14.0"."""
    if runtime is None:
        return
    if not isinstance(runtime, str):
        raise TypeError(f"runtime must be a string such as '2.14', got {runtime!r}.")
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", runtime):
        raise ValueError(
            f"runtime must be the number of a release of TensorFlow Lite, such as '2.14' or "
            f"'2.14.0', got {runtime!r}."
        )


def check_runs_in(model: Any, runtime: str | None, name: str) -> None:
    """Raises ValueError if a file needs a release that is newer than `runtime`.

    Args:
      model: the file.
      runtime: the oldest release that has to run it; None for any.
      name: name of the Keras model, for messages.
    """
    found = min_runtime(model)
    if runtime is None or (found is not None and not is_older(runtime, found)):
        return
    needed = "an unknown release" if found is None else f"{found} or later"
    raise ValueError(
        f"runtime is {runtime!r}, but the file of {name!r} needs TensorFlow Lite {needed}. Another "
        "quantization or sparse_storage may need less; otherwise pass a later runtime."
    )


def is_older(runtime: str, other: str) -> bool:
    """Returns whether a release comes before another one."""
    return _parts(runtime) < _parts(other)


def _parts(runtime: str) -> tuple[int, int, int]:
    major, minor, patch, *_ = (*map(int, runtime.split(".")), 0)
    return major, minor, patch


def min_runtime(model: Any) -> str | None:
    """The oldest release known to run a file; None if some operator is not known."""
    entry = _entry(model)
    if entry is None or any(builtin(code) in _UNLISTED for code in model.operatorCodes):
        return None
    found = bytes(np.asarray(entry.data, np.uint8)).rstrip(b"\0").decode()
    return found or None


def require_runtime(model: Any, runtime: str) -> None:
    """Says in a file's metadata that it needs a release, if it does not need a newer one."""
    entry, found = _entry(model), min_runtime(model)
    if entry is not None and found is not None and is_older(found, runtime):
        entry.data = np.frombuffer(runtime.encode().ljust(_ENTRY_BYTES, b"\0"), np.uint8)


def forget_runtime_of_divisions(model: Any) -> None:
    """Erases the release of a file that divides in int8.

    LiteRT has done so since 1.4, in the version of the operator that it had before, which the
    converter's table therefore does not tell: older ones load the file, and fail when it runs.
    """
    divides = any(
        builtin_of(model, operator) == schema.BuiltinOperator.DIV
        and graph.tensors[operator.outputs[0]].type == schema.TensorType.INT8
        for graph in model.subgraphs
        for operator in graph.operators
    )
    entry = _entry(model)
    if divides and entry is not None:
        entry.data = np.zeros(_ENTRY_BYTES, np.uint8)


def _entry(model: Any) -> Any:
    """The buffer of the metadata's entry, if there is one."""
    for entry in model.metadata or ():
        if text(entry.name) == _ENTRY:
            buffer = model.buffers[entry.buffer]
            return None if buffer.data is None else buffer
    return None
