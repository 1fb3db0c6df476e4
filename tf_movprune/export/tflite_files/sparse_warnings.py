"""Warnings of sparse storage that stores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import counted
from tf_movprune.export.stored_matrix import StoredMatrix
from tf_movprune.export.tflite_files.sparse_storage import NATIVE_BLOCKS

_BLOCK_SIZES = {4: "BLOCKS_FLOAT32", 16: "BLOCKS_INT8"}


def warn_if_dense(
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
