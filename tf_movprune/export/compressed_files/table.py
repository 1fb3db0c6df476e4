"""The table of a compressed file: an entry for each weight, checked before its bytes are read.

docs/compressed_format.md has the format.
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any, NamedTuple

from tf_movprune.export.compressed_files.streams import most_bytes

DTYPES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "bool": 1, "uint8": 1, "int8": 1},
    **{"uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8},
}
"""Bytes of a value of each dtype."""

_ROUNDED = ("float16", "int8")
"""Types in which matrices of float32 are stored with a loss."""

_MAX_RANK = 32
_MAX_BYTES = 2**62


class Entry(NamedTuple):
    """The description of a weight in a file.

    Attributes:
      name: name of the weight.
      shape, dtype: those of the weight in the model.
      stored: dtype of the values in the file.
      sizes: bytes of the streams of positions, scales and values; 0 for a stream that is absent.
      axis: axis along which there are scales; None without them.
      gaps: bytes that the positions decompress to; None without them.
      same: number of the entry whose streams are those of this one, which has none; or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    sizes: tuple[int, int, int]
    axis: int | None = None
    gaps: int | None = None
    same: int | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None}


def entry_of(value: Any) -> Entry:
    """The entry that a JSON value describes.

    Raises:
      ValueError: it describes none that could be written.
    """
    keys = ["name", "shape", "dtype", "stored", "sizes"]
    if isinstance(value, dict):
        keys += [key for key in ("axis", "gaps", "same") if key in value]
    check_keys(value, keys)
    name, shape, dtype, stored, sizes = (value[key] for key in keys[:5])
    axis, gaps, same = (value.get(key) for key in ("axis", "gaps", "same"))
    _check(isinstance(name, str) and name != "", "a name", name)
    _check(is_list_of_sizes(shape) and len(shape) <= _MAX_RANK, f"a shape for {name!r}", shape)
    _check(
        math.prod(max(size, 1) for size in shape) * 8 <= _MAX_BYTES,
        f"a shape for {name!r} that arrays can have",
        shape,
    )
    _check(
        isinstance(dtype, str) and dtype in DTYPES, f"one of {tuple(DTYPES)} for {name!r}", dtype
    )
    is_rounded = dtype == "float32" and len(shape) > 1 and stored in _ROUNDED
    _check(stored == dtype or is_rounded, f"a type that {name!r} of {dtype} is stored in", stored)
    if is_rounded and stored == "int8":
        _check(is_size(axis) and axis < len(shape), f"an axis of the scales of {name!r}", axis)
    else:
        _check("axis" not in value, f"no scales for {name!r}, which is not rounded to int8", axis)
    _check(is_list_of_sizes(sizes) and len(sizes) == 3, f"three sizes for {name!r}", sizes)
    entry = Entry(name, tuple(shape), dtype, stored, tuple(sizes), axis, gaps, same)
    if "same" in value:
        _check(is_size(same), f"the number of an entry like {name!r}", same)
        _check(not any(sizes) and "gaps" not in value, f"no streams of {name!r}", sizes)
        return entry
    positions, scales, values = sizes
    if positions:
        _check(is_size(gaps) and gaps <= entry.elements, f"a number of gaps of {name!r}", gaps)
    else:
        _check("gaps" not in value, f"no gaps of {name!r}, which has no positions", gaps)
    scale_bytes = 0 if axis is None else 4 * shape[axis]
    _check(
        (positions == 0 or positions <= most_bytes(gaps))
        and (scales > 0) == (axis is not None)
        and scales <= most_bytes(scale_bytes)
        and 0 < values <= most_bytes(entry.elements * DTYPES[stored]),
        f"sizes of streams that {name!r} of {stored}{list(shape)} can have",
        sizes,
    )
    return entry


def is_size(value: Any) -> bool:
    """Returns whether a JSON value is an integer of at least 0."""
    return type(value) is int and value >= 0


def is_list_of_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_size, value))


def check_keys(value: Any, keys: list[str]) -> None:
    """Raises ValueError unless a JSON value is an object with these keys and no others."""
    _check(
        isinstance(value, dict) and set(value) == set(keys), f"an object with keys {keys}", value
    )


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is not JSON, nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("Expected JSON of few levels, got too many.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _check(len(found) == len(pairs), "each key once", [key for key, _ in pairs])
    return found


def _check(is_right: bool, expected: str, received: Any) -> None:
    if not is_right:
        raise ValueError(f"Expected {expected}, got {reprlib.repr(received)}.")
