"""The oldest release of TensorFlow Lite known to run a TFLite file, as its metadata says it.

The converter writes it, from its table of operators and versions. What is added to a file later is
added here. Every release of LiteRT, `ai-edge-litert` 1.0 and later, counts as 2.17 or newer.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.tflite_files.flatbuffer import builtin, builtin_of, text

_CODES = schema.BuiltinOperator
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


def forget_uncertain_runtime(model: Any) -> None:
    """Erases the release of a file with operators that older ones lack, or run wrongly.

    They have no newer version for it, which is all that the converter's table looks at. Each of
    these was run in TensorFlow Lite 2.14, which loads some of them and fails later.
    """
    entry = _entry(model)
    if entry is not None and any(
        _is_uncertain(builtin_of(model, operator), operator, graph.tensors)
        for graph in model.subgraphs
        for operator in graph.operators
    ):
        entry.data = np.zeros(_ENTRY_BYTES, np.uint8)


def _is_uncertain(code: int, operator: Any, tensors: Any) -> bool:
    def tensor(index: int) -> Any:
        return tensors[operator.inputs[index]]

    int8, float32 = schema.TensorType.INT8, schema.TensorType.FLOAT32
    if code == _CODES.DIV:  # of int8, since LiteRT 1.4
        return tensors[operator.outputs[0]].type == int8
    if code == _CODES.REVERSE_V2:  # along several axes
        return math.prod(tensor(1).shape) > 1
    if code == _CODES.TRANSPOSE_CONV:  # of floats with kernels of int8
        return tensor(1).type == int8 and tensor(2).type == float32
    if code == _CODES.STRIDED_SLICE:
        return len(tensor(0).shape) > 5
    return False


def _entry(model: Any) -> Any:
    """The buffer of the metadata's entry, if there is one."""
    for entry in model.metadata or ():
        if text(entry.name) == _ENTRY:
            buffer = model.buffers[entry.buffer]
            return None if buffer.data is None else buffer
    return None
