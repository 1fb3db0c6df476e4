"""Files of `torch.save`, read without torch: of PyTorch 1.6 and later, and those before."""

from __future__ import annotations

import functools
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.pytorch.pickles import Storage, View, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C  # first object of files before PyTorch 1.6

_WRONG_SIZE = "storage {!r} is missing, cut off, or not of the size that its tensors say."
_ERRORS = (
    *(ValueError, LookupError, EOFError, OSError, RuntimeError),
    *(zipfile.BadZipFile, NotImplementedError, OverflowError, struct.error),
)
"""Errors that modules of Python raise for damaged files."""

_PIECE = 2**20  # bytes to read at once

Loader = Callable[[Storage], np.ndarray]


def read_bin(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Reads which tensors a file of `torch.save` holds; their numbers are read when asked for.

    Args:
      path: file with a mapping from names to tensors.

    Returns:
      The tensors by name.

    Raises:
      ValueError: it is no such file, or one that is cut off, or it holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        pickled, load = _read_archive(path) if is_archive else _read_legacy(path)
        return _tensors(path, pickled, load)
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as a file of torch.save: {error}")


def _tensors(path: str | os.PathLike[str], pickled: Any, load: Loader) -> dict[str, StoredTensor]:
    if not isinstance(pickled, dict):
        raise ValueError(f"expected a mapping from names to tensors, got {_kind(pickled)}.")
    found = {}
    for name, value in pickled.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise ValueError(
                f"expected a tensor for each name, got {_kind(value)} for {name!r}. Save the "
                "model's state_dict() alone."
            )
        _check_view(name, value)
        read = functools.partial(_read_view, path, value, load)
        found[name] = StoredTensor(value.shape, value.storage.dtype, read)
    return found


def _kind(value: Any) -> str:
    return "a tensor" if isinstance(value, View) else f"a value of type {type(value).__name__}"


def _check_view(name: str, view: View) -> None:
    size = math.prod(view.shape)
    last = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.strides))
    if size and (size > view.storage.size or last >= view.storage.size):
        raise ValueError(
            f"{name!r} of shape {view.shape} needs more numbers than the {view.storage.size:,} "
            "that are stored for it."
        )


def _read_view(path: str | os.PathLike[str], view: View, load: Loader) -> np.ndarray:
    if not math.prod(view.shape):
        return np.zeros(view.shape, view.storage.dtype)
    try:
        numbers = load(view.storage)[view.offset :]
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    strides = [step * numbers.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(numbers, view.shape, strides, writeable=False)


def _storages(pickled: Any) -> list[Storage]:
    views = pickled.values() if isinstance(pickled, dict) else ()
    return [view.storage for view in views if isinstance(view, View)]


def _bytes(storage: Storage) -> int:
    return storage.size * storage.dtype.itemsize


def _read_archive(path: str | os.PathLike[str]) -> tuple[Any, Loader]:
    """Reads a zip archive: a pickle, and a file of numbers for each storage."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        names = [entry.filename for entry in archive.infolist()]
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without one data.pkl.")
        root = pickles[0].split("/")[0]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("its entries are compressed, which torch.save never does.")
        size = os.path.getsize(path)
        if any(not x.compress_size == x.file_size <= size for x in entries.values()):
            raise ValueError("an entry is not of the size that it says.")
        if f"{root}/byteorder" in entries and archive.read(f"{root}/byteorder") != b"little":
            raise ValueError("its numbers are big-endian. Save it on a little-endian machine.")
        pickled = read_pickle(io.BytesIO(archive.read(pickles[0])))

        for storage in _storages(pickled):
            entry = entries.get(f"{root}/data/{storage.key}")
            if entry is None or entry.file_size != _bytes(storage):
                raise ValueError(_WRONG_SIZE.format(storage.key))

    @functools.lru_cache(maxsize=1)  # tensors that share a storage follow each other
    def load(storage: Storage) -> np.ndarray:
        numbers = np.empty(storage.size, storage.dtype)
        left: Any = numbers.view(np.uint8)
        with zipfile.ZipFile(path) as archive, archive.open(f"{root}/data/{storage.key}") as file:
            while piece := file.read(_PIECE):
                left[: len(piece)] = np.frombuffer(piece, np.uint8)
                left = left[len(piece) :]
        if left.size:
            raise ValueError(_WRONG_SIZE.format(storage.key))
        return numbers

    return pickled, load


def _read_legacy(path: str | os.PathLike[str]) -> tuple[Any, Loader]:
    """Reads a file before PyTorch 1.6: some pickles, and the numbers of the storages in a row."""
    places: dict[str, int] = {}
    with open(path, "rb") as file:
        if read_pickle(file) != _MAGIC:
            raise ValueError("it does not begin as these do.")
        read_pickle(file)  # version of the format
        system = read_pickle(file)
        if not isinstance(system, dict) or not system.get("little_endian", True):
            raise ValueError("its numbers are big-endian. Save it on a little-endian machine.")
        pickled = read_pickle(file)
        storages = {storage.key: storage for storage in _storages(pickled)}
        if any(storages[storage.key] != storage for storage in _storages(pickled)):
            raise ValueError("two of its tensors say different things of one storage.")
        keys = read_pickle(file)
        is_list = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if not is_list or any(key not in storages for key in keys):
            raise ValueError("it lists storages that no tensor has.")
        for key in keys:
            if int.from_bytes(file.read(8), "little") != storages[key].size:
                raise ValueError(_WRONG_SIZE.format(key))
            places[key] = file.tell()
            file.seek(_bytes(storages[key]), os.SEEK_CUR)
        if file.tell() > os.path.getsize(path) or set(places) != set(storages):
            raise ValueError("it is cut off.")

    @functools.lru_cache(maxsize=1)
    def load(storage: Storage) -> np.ndarray:
        numbers = np.fromfile(path, storage.dtype, storage.size, offset=places[storage.key])
        if numbers.size != storage.size:
            raise ValueError(_WRONG_SIZE.format(storage.key))
        return numbers

    return pickled, load
