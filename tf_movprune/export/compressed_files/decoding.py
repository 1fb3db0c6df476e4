"""Arrays from their bytes in a compressed file, which may hold anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tf_movprune.export.compressed_files.streams import decode_stream
from tf_movprune.export.compressed_files.table import Entry

_CHUNK = 1 << 16  # bytes of positions that are decoded at a time


def decode(entry: Entry, payload: bytes) -> np.ndarray:
    """The weight that an entry describes.

    Memory is bounded by the entry: no stream is decompressed beyond what its shape allows.

    Raises:
      ImportError: the weight is bfloat16, and no library that has such arrays is there.
      ValueError: the bytes are not those of such a weight.
    """
    ends = list(itertools.accumulate(entry.sizes, initial=0))
    view = memoryview(payload)
    positions, scales, values = (view[a:b] for a, b in itertools.pairwise(ends))
    dtype = _dtype_of(entry.stored)
    try:
        if entry.gaps is not None:
            flat = _scattered(entry, positions, values, dtype)
        else:
            flat = _elements(entry, values, dtype, entry.elements)
        array = flat.reshape(entry.shape)
        if entry.axis is not None:
            along = [1] * len(entry.shape)
            along[entry.axis] = -1
            array = array * _scales(scales, entry.shape[entry.axis]).reshape(along)
    except ValueError as error:
        raise ValueError(f"{entry.name!r}: {error}") from error
    return np.require(array, _dtype_of(entry.dtype), ["W"])


def decode_positions(coded: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the positions that `encode_positions` was given, in chunks."""
    at = 0
    for start in range(0, coded.size, _CHUNK):
        chunk = coded[start : start + _CHUNK]
        ends = chunk < 255
        reached = np.cumsum(chunk.astype(np.int64) + ends) + at
        at = int(reached[-1])
        yield reached[ends] - 1


def _dtype_of(name: str) -> np.dtype:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("Weights of bfloat16 need ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(ml_dtypes.bfloat16)


def _scattered(
    entry: Entry, positions: memoryview, values: memoryview, dtype: np.dtype
) -> np.ndarray:
    """The flat array with values at positions, and zeros elsewhere."""
    coded = decode_stream(positions, np.dtype(np.uint8), entry.gaps or 0)
    if coded.size and coded[-1] == 255:
        raise ValueError("Expected positions that end with one, got zeros.")
    count = int(np.count_nonzero(coded < 255))
    elements = _elements(entry, values, dtype, count)
    flat = np.zeros(entry.elements, dtype)
    done = 0
    for places in decode_positions(coded):
        if places.size and places[-1] >= flat.size:
            raise ValueError(f"Expected positions below {flat.size}, got {places[-1]}.")
        flat[places] = elements[done : done + places.size]
        done += places.size
    return flat


def _elements(entry: Entry, values: memoryview, dtype: np.dtype, count: int) -> np.ndarray:
    """Values as they are stored."""
    if entry.stored == "bool":
        data = decode_stream(values, np.dtype(np.uint8), count)
        if np.any(data > 1):
            raise ValueError(f"Expected 0 and 1, got {data.max()}.")
        return data.view(bool)
    elements = decode_stream(values, dtype, count)
    is_rounded = entry.stored != entry.dtype
    if is_rounded and entry.stored == "int8" and np.any(elements == -128):
        raise ValueError("Expected values in -127 ... 127, got -128.")
    if is_rounded and entry.stored == "float16" and not np.isfinite(elements).all():
        raise ValueError("Expected finite values, got NaN or infinity.")
    return elements


def _scales(stream: memoryview, count: int) -> np.ndarray:
    """Scales of int8."""
    scales = decode_stream(stream, np.dtype(np.float32), count)
    bits = scales.view(np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        is_right = np.isfinite(scales * np.float32(127)).all() and not np.any(
            bits & np.uint32(0x8000FFFF)
        )
    if not is_right:
        raise ValueError(
            "Expected scales that are finite, not negative and have 8 significant bits, got others."
        )
    return scales
