"""Arrays kept on disk, under a key of all that they are made from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def fingerprint(texts: Iterable[str]) -> str:
    """A hash of texts and of their order."""
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def cached(
    cache_dir: str | os.PathLike[str] | None,
    name: str,
    key: Iterable[str],
    make: Callable[[], Arrays],
) -> tuple[Arrays, bool]:
    """Arrays from the cache, or made and put there.

    A file that is damaged is made again. If the cache cannot be written, as on a full disk, a
    warning says so and the arrays are returned all the same.

    Args:
      cache_dir: folder of the cache, made if it is not there; None for no cache.
      name: beginning of the file's name.
      key: everything that the arrays depend on.
      make: function that returns the arrays by name.

    Returns:
      The arrays, and whether they were in the cache.
    """
    if cache_dir is None:
        return make(), False
    path = pathlib.Path(cache_dir) / f"{name}-{fingerprint(key)[:32]}.npz"
    arrays = _read(path)
    if arrays is not None:
        return arrays, True
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"The features are not cached: {path.parent} cannot be written ({error}). They will "
            "be made again in the next run.",
            stacklevel=2,
        )
    return arrays, False


def _read(path: pathlib.Path) -> Arrays | None:
    """The arrays of a file; None if it is not there, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        digest = arrays.pop("digest")
    except Exception:  # a damaged file fails in any of NumPy's and zipfile's ways
        return None
    return arrays if digest.tobytes() == _digest(arrays) else None


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {**arrays, "digest": np.frombuffer(_digest(arrays), np.uint8)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _digest(arrays: Arrays) -> bytes:
    """A hash of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()
