"""Coding of arrays in few bytes: positions as gaps, values as planes, both entropy-coded."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from tf_movprune.core.named_weights import NamedWeight

QUANTIZATIONS = ("int8", "float16", None)
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "bool", "uint8", "int8"),
    *("uint16", "int16", "uint32", "int32", "uint64", "int64"),
)


class EncodedWeight(NamedTuple):
    """A row of the file's table, and the bytes that it describes."""

    row: dict[str, Any]
    payload: bytes
    bound: float
    remaining: int


def stored_as(
    weight: NamedWeight, quantization: str | None
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """A weight's values in their format, the scales of int8, and the axis of the scales."""
    array = weight.array
    if str(array.dtype) not in DTYPES:
        raise TypeError(f"{weight.name!r} has dtype {array.dtype}; expected one of {DTYPES}.")
    if array.dtype != np.float32 or array.ndim < 2 or quantization is None:
        return array, None, 0
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16) if quantization == "float16" else array
    if not np.isfinite(rounded).all():
        raise ValueError(
            f"{weight.name!r} has values that are not finite or too large for {quantization}. Pass "
            "quantization=None."
        )
    if quantization == "float16":
        return rounded, None, 0
    axis = 0 if weight.part == "embeddings" else array.ndim - 1
    scales = scales_of(array, axis)
    steps = np.divide(array, scales, out=np.zeros_like(array), where=scales > 0)
    return np.rint(steps).astype(np.int8), scales.reshape(-1), axis


def scales_of(array: np.ndarray, axis: int) -> np.ndarray:
    """Steps of int8 that span each channel, in a shape that broadcasts.

    Steps are rounded up to the 8 significant bits of bfloat16: half of each scale's bytes are
    zeros, which cost nothing, and products with int8 are exact.
    """
    others = tuple(i for i in range(array.ndim) if i != axis)
    scales = np.max(np.abs(array), axis=others, keepdims=True, initial=0) / np.float32(127)
    bits = scales.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)


def encode(weight: NamedWeight, quantization: str | None) -> EncodedWeight:
    """The smaller of the dense and the sparse form of a weight.

    Raises:
      TypeError: the format does not have the weight's dtype.
      ValueError: `quantization` cannot hold the weight.
    """
    stored, scales, axis = stored_as(weight, quantization)
    flat = stored.reshape(-1)
    positions = np.flatnonzero(flat != 0)
    streams = [b"", b"" if scales is None else _compressed(_planes(scales))]
    forms = []
    if positions.size < flat.size:
        gaps = _compressed(encode_positions(positions))
        forms.append([gaps, streams[1], _compressed(_planes(flat[positions]))])
    # Entropy coding of a dense form spends at least one bit on each element.
    if not forms or flat.size / 8 < sum(map(len, forms[0])):
        forms.append([*streams, _compressed(_planes(flat))])
    form = min(forms, key=lambda streams: sum(map(len, streams)))
    row: dict[str, Any] = {
        "name": weight.name,
        "shape": list(stored.shape),
        "dtype": str(weight.array.dtype),
        "stored": str(stored.dtype),
        "sizes": [len(stream) for stream in form],
    }
    if scales is not None:
        row["axis"] = axis
    bound = entropy_bytes(positions.size, flat.size) + positions.size * stored.itemsize
    return EncodedWeight(row, b"".join(form), bound, positions.size)


def entropy_bytes(count: int, size: int) -> float:
    """Average bytes for the positions of `count` among `size`: size·H(count / size) / 8."""
    if count in (0, size):
        return 0.0
    p = count / size
    return size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8


def encode_positions(positions: np.ndarray) -> np.ndarray:
    """Gaps between positions as bytes, made for a Huffman coder.

    Each byte below 255 stands for that many zeros and a non-zero, 255 for 255 zeros. Gaps between
    positions that are equally likely have no memory, so neither have these bytes: coding each on
    its own loses little.

    Args:
      positions: int64 vector, ascending.

    Returns:
      uint8 vector.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    escapes = gaps // 255
    coded = np.full(int(escapes.sum()) + gaps.size, 255, np.uint8)
    coded[np.cumsum(escapes + 1) - 1] = gaps % 255
    return coded


def decode_positions(coded: np.ndarray) -> np.ndarray:
    """The positions that `encode_positions` was given."""
    ends = coded < 255
    return np.cumsum(coded.astype(np.int64) + ends)[ends] - 1


def _planes(array: np.ndarray) -> np.ndarray:
    """The lowest byte of each element, then the next of each, and so on: exponents lie together."""
    data = np.ascontiguousarray(array).view(np.uint8)
    return np.ascontiguousarray(data.reshape(-1, array.itemsize).T)


def _from_planes(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(data.reshape(dtype.itemsize, -1).T).view(dtype).reshape(-1)


def _compressed(data: np.ndarray) -> bytes:
    """The smaller of two frames: one with few matches, for noise, and one that looks for them."""
    zstandard, _ = libraries()
    settings = zstandard.ZstdCompressionParameters
    noise = settings.from_level(1, hash_log=6, min_match=7)
    frames = [
        zstandard.ZstdCompressor(compression_params=parameters).compress(data.reshape(-1))
        for parameters in (noise, settings.from_level(9))
    ]
    return min(frames, key=len)


def libraries() -> tuple[Any, Any]:
    try:
        import safetensors.numpy
        import zstandard
    except ImportError as error:
        raise ImportError(
            f"Compressed files need {error.name}: pip install tf_movprune[compress]"
        ) from error
    return zstandard, safetensors


def decode(row: dict[str, Any], payload: bytes) -> np.ndarray:
    zstandard, _ = libraries()
    dtype, shape = np.dtype(row["stored"]), row["shape"]
    ends = np.cumsum([0, *row["sizes"]])
    streams = [
        np.frombuffer(zstandard.ZstdDecompressor().decompress(payload[a:b]), np.uint8)
        if b > a
        else np.zeros(0, np.uint8)
        for a, b in itertools.pairwise(ends)
    ]
    elements = _from_planes(streams[2], dtype)
    if row["sizes"][0]:
        flat = np.zeros(int(np.prod(shape, dtype=np.int64)), dtype)
        flat[decode_positions(streams[0])] = elements
        elements = flat
    array = elements.reshape(shape)
    if "axis" in row:
        along = [1] * len(shape)
        along[row["axis"]] = -1
        array = array * _from_planes(streams[1], np.dtype(np.float32)).reshape(along)
    return array.astype(row["dtype"])
