"""The container of a compressed file: a table of its weights, their bytes and a checksum.

docs/compressed_format.md has the format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from tf_movprune.export.compressed_files.decoding import decode
from tf_movprune.export.compressed_files.streams import (
    decode_stream,
    encode_stream,
    most_bytes,
    zstandard_library,
)
from tf_movprune.export.compressed_files.table import (
    Entry,
    check_keys,
    entry_of,
    is_list_of_sizes,
    is_size,
    parse_json,
)

FORMAT = "tf_movprune.compressed"
VERSION = 2
MAX_TABLE = 1 << 22
"""Bytes of a table at most: enough for 10,000 weights, and few in memory when parsed."""

_NO_CHECKSUM = "0" * 64
_KEYS_OF_STREAMS = ("shape", "dtype", "stored", "axis")  # that say what streams mean


def container_of(
    weights: Sequence[tuple[Entry, bytes]], description: dict[str, Any] | None
) -> bytes:
    """The bytes of a file.

    Args:
      weights: its weights, each with its streams.
      description: description of the model, or None.

    Raises:
      ValueError: the names of the weights and the description take too many bytes.
    """
    tensors = [entry.as_json() for entry, _ in weights]
    table = json.dumps({"model": description, "tensors": tensors}, separators=(",", ":")).encode()
    if len(table) > MAX_TABLE:
        raise ValueError(
            f"The names of {len(weights):,} weights and the configuration take {len(table):,} "
            f"bytes, and a compressed file has {MAX_TABLE:,} for them. Export the model in parts."
        )
    coded = encode_stream(np.frombuffer(table, np.uint8))
    payload = b"".join(streams for _, streams in weights)
    about = {"checksum": _NO_CHECKSUM, "format": FORMAT, "version": VERSION, "table": len(table)}
    ends = len(coded), len(coded) + len(payload)
    header = {
        "__metadata__": {FORMAT: json.dumps(about, separators=(",", ":"))},
        "table": {"dtype": "U8", "shape": [ends[0]], "data_offsets": [0, ends[0]]},
        "weights": {"dtype": "U8", "shape": [len(payload)], "data_offsets": list(ends)},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    data = len(text).to_bytes(8, "little") + text + coded + payload
    return data.replace(_NO_CHECKSUM.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


@dataclasses.dataclass(frozen=True)
class Container:
    """An open file whose checksum and table are right; what its weights decode to is not known.

    Attributes:
      path: path of the file, for messages.
      description: description of the model, or None.
      entries: its weights, each with the place of its bytes in `file`.
    """

    path: pathlib.Path
    description: dict[str, Any] | None
    entries: list[tuple[Entry, int]]
    file: BinaryIO

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Decodes the weights one after the other, in the model's order.

        Raises:
          ValueError: the bytes of a weight are not what its entry says.
        """
        for entry, start in self.entries:
            yield entry.name, self.array(entry, start)

    def array(self, entry: Entry, start: int) -> np.ndarray:
        """Decodes the weight whose bytes are at a place in the file."""
        size = sum(entry.sizes)
        with _explaining(self.path):
            return decode(entry, _read_at(self.file, start, size))


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Bytes at a place; processes that share the file, and so its position, do not disturb it."""
    if not hasattr(os, "pread"):
        file.seek(start)
        return file.read(size)
    data = bytearray()
    while part := os.pread(file.fileno(), size - len(data), start + len(data)):
        data += part  # the system reads 2 GiB at most
    return bytes(data)


@contextlib.contextmanager
def open_container(path: pathlib.Path) -> Iterator[Container]:
    """Opens a file and checks all of it but what its weights decode to.

    Raises:
      ValueError: the file is damaged, of another format or of another version.
    """
    zstandard_library()
    with path.open("rb") as file:
        header, about = _read_header(path, file)
        version = about.get("version")
        if type(version) is int and version != VERSION:
            remedy = (
                "Write it again with this tf_movprune, or load it with the one that wrote it."
                if version < VERSION
                else "Install the tf_movprune that wrote it, or a later one."
            )
            raise ValueError(
                f"{path} is of version {version} of the format, and this is a reader of version "
                f"{VERSION}. {remedy}"
            )
        with _explaining(path):
            check_keys(about, ["checksum", "format", "version", "table"])
            if about["format"] != FORMAT or type(version) is not int:
                raise ValueError(f"Expected the format {FORMAT!r} and a version, got others.")
            start, end = file.tell(), file.seek(0, os.SEEK_END)
            length = _table_length(header, about, end - start)
            found = _checksum_of(file, start, about["checksum"])
            if found != about["checksum"]:
                raise ValueError(
                    f"Expected the checksum {about['checksum'][:12]}..., got {found[:12]}..."
                )
            file.seek(start)
            table = _table(file.read(length), about["table"])
            entries = _entries(table["tensors"])
            places = list(
                itertools.accumulate((sum(e.sizes) for e in entries), initial=start + length)
            )
            if places.pop() != end:
                raise ValueError(
                    f"Expected weights that end at byte {end}, where the file ends, got others."
                )
        yield Container(path, table["model"], _with_streams(entries, places), file)


def _read_header(path: pathlib.Path, file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header, and what it says about the file; the table and bytes of weights follow it.

    It has a checksum, if nothing else that is right.
    """
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_TABLE:
            raise ValueError(f"Expected a header of at most {MAX_TABLE} bytes, got {length}.")
        data = file.read(length)
        if len(data) < length:
            raise ValueError(f"Expected a header of {length} bytes, got {len(data)}.")
        header = parse_json(data.decode())
        about = parse_json(header["__metadata__"][FORMAT])
        checksum = about["checksum"]
        if not re.fullmatch("[0-9a-f]{64}", checksum) or checksum.encode() not in data:
            raise ValueError(f"Expected 64 hexadecimal digits, got {reprlib.repr(checksum)}.")
        return header, about
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no checksum of export_compressed: it is another file, or damaged. Write "
            "or copy it again."
        ) from error


def _table_length(header: dict[str, Any], about: dict[str, Any], size: int) -> int:
    """Bytes of the table, the first of two vectors in the `size` bytes after the header.

    Raises:
      ValueError: the header describes other vectors, or a table that is too large.
    """
    check_keys(header, ["__metadata__", "table", "weights"])
    check_keys(header["__metadata__"], [FORMAT])
    row = header["table"]
    check_keys(row, ["dtype", "shape", "data_offsets"])
    shape = row["shape"]
    if not (is_list_of_sizes(shape) and len(shape) == 1 and shape[0] <= size):
        raise ValueError(f"Expected a table in the file, got {reprlib.repr(row)}.")
    length: int = shape[0]
    for name, start, end in (("table", 0, length), ("weights", length, size)):
        expected = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        if header[name] != expected:
            raise ValueError(f"Expected {name} as {expected}, got {reprlib.repr(header[name])}.")
    if not is_size(about["table"]) or about["table"] > MAX_TABLE:
        raise ValueError(
            f"Expected a table of at most {MAX_TABLE} bytes, got {reprlib.repr(about['table'])}."
        )
    if length > most_bytes(about["table"]):
        raise ValueError(f"Expected a table of {about['table']} bytes, got {length} for it.")
    return length


def _table(coded: bytes, size: int) -> dict[str, Any]:
    data = decode_stream(memoryview(coded), np.dtype(np.uint8), size)
    table = parse_json(data.tobytes().decode())
    check_keys(table, ["model", "tensors"])
    if (description := table["model"]) is not None:
        check_keys(description, ["class", "config"])
        if not isinstance(description["class"], str) or not isinstance(description["config"], dict):
            raise ValueError("Expected a class and its configuration, got others.")
    return table


def _checksum_of(file: BinaryIO, start: int, checksum: str) -> str:
    """The checksum of a file whose header ends at `start` and has one."""
    file.seek(0)
    header = file.read(start)
    found = hashlib.sha256(header.replace(checksum.encode(), _NO_CHECKSUM.encode(), 1))
    while data := file.read(1 << 20):
        found.update(data)
    return found.hexdigest()


def _entries(tensors: Any) -> list[Entry]:
    if not isinstance(tensors, list) or not tensors:
        raise ValueError(f"Expected a list of weights, got {reprlib.repr(tensors)}.")
    entries = [entry_of(value) for value in tensors]
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise ValueError(f"Expected each name once, got {reprlib.repr(entry.name)} twice.")
        names.add(entry.name)
        if entry.same is not None and not (
            entry.same < len(names) and _is_like(entry, entries[entry.same])
        ):
            raise ValueError(f"Expected {entry.name!r} like an earlier weight, got {entry}.")
    return entries


def _is_like(entry: Entry, other: Entry) -> bool:
    """Returns whether an entry can have the streams of another, which has streams."""
    if other.same is not None:
        return False
    return all(getattr(entry, key) == getattr(other, key) for key in _KEYS_OF_STREAMS)


def _with_streams(entries: list[Entry], places: list[int]) -> list[tuple[Entry, int]]:
    """The entries, each with streams and their place in the file, which some share."""
    found = []
    for i, entry in enumerate(entries):
        first = i if entry.same is None else entry.same
        found.append((entries[first]._replace(name=entry.name), places[first]))
    return found


@contextlib.contextmanager
def _explaining(path: pathlib.Path) -> Iterator[None]:
    """Names the file in errors of what is in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or was not written by export_compressed. {error} Write or copy it "
            "again."
        ) from error
    except MemoryError as error:
        raise ValueError(
            f"{path} has weights that this machine has no memory for. Load it on a larger one, if "
            "you trust it."
        ) from error
