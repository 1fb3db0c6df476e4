"""Options of TFLite files: which there are, and which go together."""

from __future__ import annotations

from typing import Any

from tf_movprune.core.arguments import check_choice
from tf_movprune.export.runtime_version import PER_CHANNEL, check_runtime_version, is_older
from tf_movprune.export.sparse_storage import SPARSE_STORAGES

# The difference that passes, over the largest output. For int8 it finds gross errors only: how
# much is good enough depends on the task.
TOLERANCES = {None: 1e-4, "float16": 1e-2, "int8": 0.5}
_IMPOSSIBLE: dict[tuple[str | None, str | None], str] = {
    ("int8", "csr"): "LiteRT cannot load rows of int8. Use quantization=None or 'float16', or "
    "sparse_storage='blocks'",
    ("float16", "blocks"): "LiteRT has no kernel for blocks of float16. Use quantization=None or "
    "'int8', or sparse_storage='auto'",
}


def check_options(quantization: Any, sparse_storage: Any, runtime: Any) -> None:
    """Raises TypeError or ValueError if options are unknown or do not go together."""
    check_choice("quantization", quantization, tuple(TOLERANCES))
    check_choice("sparse_storage", sparse_storage, SPARSE_STORAGES)
    check_runtime_version(runtime)
    if (quantization, sparse_storage) in _IMPOSSIBLE:
        raise ValueError(
            f"sparse_storage {sparse_storage!r} does not go with quantization {quantization!r}: "
            f"{_IMPOSSIBLE[quantization, sparse_storage]}."
        )


def is_per_channel(runtime: str | None) -> bool:
    """Returns whether int8 matrices may have a scale for each output, which are closer."""
    return runtime is None or not is_older(runtime, PER_CHANNEL)
