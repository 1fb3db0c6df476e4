"""Arrays from their bytes in a compressed file, which may hold anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tf_movprune.export.coding import libraries
from tf_movprune.export.compressed_table import Entry

_CHUNK = 1 << 16  # bytes of positions that are decoded at a time


def decode(entry: Entry, payload: bytes) -> np.ndarray:
    """The weight that an entry describes.

    Memory is bounded by the entry: the size of what a stream decompresses to is compared with its
    shape first.

    Raises:
      ValueError: the bytes are not those of such a weight.
    """
    ends = list(itertools.accumulate(entry.sizes, initial=0))
    view = memoryview(payload)
    positions, scales, values = (view[a:b] for a, b in itertools.pairwise(ends))
    dtype = np.dtype(entry.stored)
    if entry.sizes[0]:
        flat = _scattered(entry, positions, values, dtype)
    else:
        flat = _elements(entry, values, dtype, entry.elements)
    array = flat.reshape(entry.shape)
    if entry.axis is not None:
        along = [1] * len(entry.shape)
        along[entry.axis] = -1
        array = array * _scales(entry, scales, entry.shape[entry.axis]).reshape(along)
    return np.require(array, entry.dtype, ["W"])


def decode_positions(coded: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the positions that `encode_positions` was given, in chunks."""
    at = 0
    for start in range(0, coded.size, _CHUNK):
        chunk = coded[start : start + _CHUNK]
        ends = chunk < 255
        reached = np.cumsum(chunk.astype(np.int64) + ends) + at
        at = int(reached[-1])
        yield reached[ends] - 1


def _scattered(
    entry: Entry, positions: memoryview, values: memoryview, dtype: np.dtype
) -> np.ndarray:
    """The flat array with values at positions, and zeros elsewhere."""
    coded = _decompressed(entry, positions, entry.elements, is_exact=False)
    if coded.size and coded[-1] == 255:
        raise ValueError(f"Expected positions of {entry.name!r} that end with one, got zeros.")
    count = int(np.count_nonzero(coded < 255))
    elements = _elements(entry, values, dtype, count)
    flat = np.zeros(entry.elements, dtype)
    done = 0
    for places in decode_positions(coded):
        if places.size and places[-1] >= flat.size:
            raise ValueError(
                f"Expected positions of {entry.name!r} below {flat.size}, got {places[-1]}."
            )
        flat[places] = elements[done : done + places.size]
        done += places.size
    return flat


def _elements(entry: Entry, values: memoryview, dtype: np.dtype, count: int) -> np.ndarray:
    """Values as they are stored."""
    data = _decompressed(entry, values, count * dtype.itemsize)
    if entry.stored == "bool" and np.any(data > 1):
        raise ValueError(f"Expected 0 and 1 in {entry.name!r} of bool, got {data.max()}.")
    elements = _from_planes(data, dtype)
    is_rounded = entry.stored != entry.dtype
    if is_rounded and entry.stored == "int8" and np.any(elements == -128):
        raise ValueError(f"Expected values of {entry.name!r} in -127 ... 127, got -128.")
    if is_rounded and entry.stored == "float16" and not np.isfinite(elements).all():
        raise ValueError(f"Expected finite values of {entry.name!r}, got NaN or infinity.")
    return elements


def _scales(entry: Entry, stream: memoryview, count: int) -> np.ndarray:
    """Scales of int8."""
    scales = _from_planes(_decompressed(entry, stream, 4 * count), np.dtype(np.float32))
    bits = scales.view(np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        is_right = np.isfinite(scales * np.float32(127)).all() and not np.any(
            bits & np.uint32(0x8000FFFF)
        )
    if not is_right:
        raise ValueError(
            f"Expected scales of {entry.name!r} that are finite, not negative and have 8 "
            "significant bits, got others."
        )
    return scales


def _decompressed(
    entry: Entry, frame: memoryview, size: int, *, is_exact: bool = True
) -> np.ndarray:
    """The `size` bytes, or if not exact the `size` bytes at most, in one whole frame."""
    zstandard, _ = libraries()
    try:
        found = zstandard.frame_content_size(frame)
        if not (found == size or (not is_exact and 0 <= found < size)):
            raise ValueError(
                f"Expected a stream of {entry.name!r} that decompresses to "
                f"{size}{'' if is_exact else ' or less'} bytes, got {found} (-1: not stated)."
            )
        if found:
            data = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        else:  # `decompress` would look no further
            decompressor = zstandard.ZstdDecompressor().decompressobj()
            data = decompressor.decompress(frame)
            if not decompressor.eof or decompressor.unused_data:
                raise ValueError(f"Expected an empty stream of {entry.name!r}, got more.")
    except zstandard.ZstdError as error:
        raise ValueError(
            f"Expected one whole Zstandard frame in {entry.name!r}: {error}."
        ) from error
    return np.frombuffer(data, np.uint8)


def _from_planes(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(data.reshape(dtype.itemsize, -1).T).view(dtype).reshape(-1)
