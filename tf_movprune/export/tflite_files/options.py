"""Options of TFLite files: which there are, and which go together."""

from __future__ import annotations

from typing import Any

from tf_movprune.core.arguments import check_boolean, check_choice
from tf_movprune.export.tflite_files.runtime_version import check_runtime_version, is_older
from tf_movprune.export.tflite_files.sparse_storage import SPARSE_STORAGES

# The difference that passes, over the largest output. For int8 and int4 it finds gross errors only:
# how much is good enough depends on the task.
TOLERANCES = {None: 1e-4, "float16": 1e-2, "int8": 0.5, "int4": 0.5}
_IMPOSSIBLE: dict[tuple[str | None, str | None], str] = {
    ("int8", "csr"): "LiteRT cannot load rows of int8. Use quantization=None or 'float16', or "
    "sparse_storage='blocks'",
    ("float16", "blocks"): "LiteRT has no kernel for blocks of float16. Use quantization=None or "
    "'int8', or sparse_storage='auto'",
    ("int4", "csr"): "LiteRT cannot load rows of int4. Use quantization=None or 'float16'",
    ("int4", "blocks"): "LiteRT has no kernel for blocks of int4. Use quantization=None or 'int8'",
}
# The first releases known to multiply with int8 matrices that have a scale for each output: with
# activations that are floats, and that are int8.
_PER_CHANNEL, PER_CHANNEL_CALIBRATED = "2.17.0", "2.12.0"


def check_options(
    quantization: Any, sparse_storage: Any, runtime: Any, is_calibrated: bool, float_io: Any
) -> None:
    """Raises TypeError or ValueError if options are unknown or do not go together."""
    check_choice("quantization", quantization, tuple(TOLERANCES))
    check_choice("sparse_storage", sparse_storage, SPARSE_STORAGES)
    check_runtime_version(runtime)
    check_boolean("float_io", float_io)
    if is_calibrated and sparse_storage in ("blocks", "csr"):
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with calibration: LiteRT has no kernel "
            "for sparse matrices and activations of int8 that is as fast as the dense one. Leave "
            "one of them out."
        )
    if (quantization, sparse_storage) in _IMPOSSIBLE:
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with quantization {quantization!r}: "
            f"{_IMPOSSIBLE[quantization, sparse_storage]}."
        )
    if is_calibrated and quantization != "int8":
        raise ValueError(
            f"calibration is for activations of int8, and quantization is {quantization!r}. Pass "
            "quantization='int8', or leave calibration out."
        )
    if not float_io and not is_calibrated:
        raise ValueError(
            "float_io=False, for inputs and outputs of int8, needs the ranges of activations. Pass "
            "calibration, or leave float_io out."
        )
    if quantization == "int4" and not is_per_channel(runtime):
        raise ValueError(
            f"runtime is {runtime!r}, but int4 needs TensorFlow Lite {_PER_CHANNEL} or later. Use "
            "quantization='int8', or pass a later runtime."
        )


def is_per_channel(runtime: str | None, is_calibrated: bool = False) -> bool:
    """Returns whether int8 matrices may have a scale for each output, which is closer."""
    needed = PER_CHANNEL_CALIBRATED if is_calibrated else _PER_CHANNEL
    return runtime is None or not is_older(runtime, needed)
