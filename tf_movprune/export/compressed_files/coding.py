"""Arrays in few bytes: dense, or positions as gaps and the values there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_movprune.core.named_weights import NamedWeight
from tf_movprune.export.compressed_files.streams import encode_stream
from tf_movprune.export.compressed_files.table import DTYPES, Entry

QUANTIZATIONS = ("int8", "float16", None)

_MOST_DENSITY = 15 / 16  # up to which positions are tried: they have to gain what they take


class EncodedWeight(NamedTuple):
    """An entry of the file's table, and the bytes that it describes."""

    entry: Entry
    payload: bytes
    bound: float
    remaining: int


def stored_as(
    weight: NamedWeight, quantization: str | None
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """A weight's values in their format, the scales of int8, and the axis of the scales."""
    array = weight.array
    if str(array.dtype) not in DTYPES:
        raise TypeError(
            f"{weight.name!r} has dtype {array.dtype}; expected one of {tuple(DTYPES)}. "
            "Export a model without this weight."
        )
    if quantization is None or weight.is_exact or array.dtype != np.float32 or array.ndim < 2:
        return array, None, 0
    axis = 0 if weight.part == "embeddings" else array.ndim - 1
    with np.errstate(over="ignore", invalid="ignore"):
        scales = scales_of(array, axis)
        rounded = array.astype(np.float16) if quantization == "float16" else scales * 127
    if not (np.isfinite(array).all() and np.isfinite(rounded).all()):
        raise ValueError(
            f"{weight.name!r} has values that are not finite or too large for {quantization}. Pass "
            "quantization=None."
        )
    if quantization == "float16":
        return rounded, None, 0
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


def encode_all(weights: Sequence[NamedWeight], quantization: str | None) -> list[EncodedWeight]:
    """The weights of a model in their smallest forms, and those that repeat others without bytes.

    Raises:
      TypeError: the format does not have the dtype of a weight.
      ValueError: `quantization` cannot hold a weight.
    """
    encoded: list[EncodedWeight] = []
    first: dict[tuple[Entry, bytes], int] = {}
    for weight in weights:
        found = encode(weight, quantization)
        same = first.setdefault((found.entry._replace(name=""), found.payload), len(encoded))
        if same < len(encoded):
            entry = found.entry._replace(sizes=(0, 0, 0), gaps=None, same=same)
            found = found._replace(entry=entry, payload=b"")
        encoded.append(found)
    return encoded


def encode(weight: NamedWeight, quantization: str | None) -> EncodedWeight:
    """The smaller of the dense and the sparse form of a weight.

    Raises:
      TypeError: the format does not have the weight's dtype.
      ValueError: `quantization` cannot hold the weight.
    """
    stored, scales, axis = stored_as(weight, quantization)
    flat = stored.reshape(-1)
    positions = np.flatnonzero(flat != 0)
    coded_scales = b"" if scales is None else encode_stream(scales)
    gaps, forms = encode_positions(positions), []
    if positions.size <= _MOST_DENSITY * flat.size:
        forms.append((encode_stream(gaps), coded_scales, encode_stream(flat[positions])))
    forms.append((b"", coded_scales, encode_stream(flat)))
    form = min(forms, key=lambda streams: sum(map(len, streams)))
    entry = Entry(
        name=weight.name,
        shape=stored.shape,
        dtype=str(weight.array.dtype),
        stored=str(stored.dtype),
        sizes=(len(form[0]), len(form[1]), len(form[2])),
        axis=None if scales is None else axis,
        gaps=gaps.size if form[0] else None,
    )
    bound = entropy_bytes(positions.size, flat.size) + positions.size * stored.itemsize
    return EncodedWeight(entry, b"".join(form), bound, positions.size)


def entropy_bytes(count: int, size: int) -> float:
    """Average bytes for the positions of `count` among `size`: size·H(count / size) / 8."""
    if count in (0, size):
        return 0.0
    p = count / size
    return size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8


def encode_positions(positions: np.ndarray) -> np.ndarray:
    """Gaps between positions as bytes, made for a coder of single bytes.

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
