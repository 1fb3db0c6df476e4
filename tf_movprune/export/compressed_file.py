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
import tensorflow as tf

from tf_movprune.export.coding import EncodedWeight, libraries
from tf_movprune.export.compressed_table import (
    Entry,
    check_keys,
    entry_of,
    is_list_of_sizes,
    parse_json,
)
from tf_movprune.export.decoding import decode

FORMAT = "tf_movprune.compressed"
VERSION = 1
MAX_HEADER = 1 << 22
"""Bytes of a header at most: enough for 10,000 weights, and few in memory when parsed."""

_NO_CHECKSUM = "0" * 64


def write_container(encoded: Sequence[EncodedWeight], description: dict[str, Any] | None) -> bytes:
    """The bytes of a file.

    Args:
      encoded: its weights.
      description: description of the model, or None.

    Raises:
      ValueError: the names of the weights and the description take too many bytes.
    """
    _, safetensors = libraries()
    table = {
        "checksum": _NO_CHECKSUM,
        "format": FORMAT,
        "version": VERSION,
        "model": description,
        "tensors": [weight.entry.as_json() for weight in encoded],
    }
    data = safetensors.numpy.save(
        {str(i): np.frombuffer(weight.payload, np.uint8) for i, weight in enumerate(encoded)},
        {FORMAT: json.dumps(table, separators=(",", ":"))},
    )
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise ValueError(
            f"The names of {len(encoded):,} weights and the configuration take {length:,} bytes, "
            f"and a compressed file has {MAX_HEADER:,} for them. Export the model in parts."
        )
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

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Shapes and dtypes of the weights by name, in the model's order."""
        return {entry.name: entry.spec for entry, _ in self.entries}

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Decodes the weights one after the other, in the model's order.

        Raises:
          ValueError: the bytes of a weight are not what its entry says.
        """
        for entry, start in self.entries:
            with _explaining(self.path):
                self.file.seek(start)
                array = decode(entry, self.file.read(sum(entry.sizes)))
            yield entry.name, array


@contextlib.contextmanager
def open_container(path: pathlib.Path) -> Iterator[Container]:
    """Opens a file and checks all of it but what its weights decode to.

    Raises:
      ValueError: the file is damaged, of another format or of another version.
    """
    libraries()
    with path.open("rb") as file:
        header, table, checksum = _read_header(path, file)
        version = table.get("version")
        if type(version) is int and version != VERSION:
            raise ValueError(
                f"{path} is of version {version} of the format, and this is a reader of version "
                f"{VERSION}. Install the tf_movprune that wrote it, or a later one."
            )
        with _explaining(path):
            check_keys(table, ["checksum", "format", "version", "model", "tensors"])
            _check_description(table)
            entries = _entries(table["tensors"])
            start, end = file.tell(), file.seek(0, os.SEEK_END)
            places = [start + place for place in _places(header, entries, end - start)]
            found = _checksum_of(file, start, checksum)
            if found != checksum:
                raise ValueError(f"Expected the checksum {checksum[:12]}..., got {found[:12]}...")
        yield Container(path, table["model"], list(zip(entries, places)), file)


def _read_header(path: pathlib.Path, file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The header, its table and the checksum in it, after which the bytes of weights follow."""
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise ValueError(f"Expected a header of at most {MAX_HEADER} bytes, got {length}.")
        data = file.read(length)
        if len(data) < length:
            raise ValueError(f"Expected a header of {length} bytes, got {len(data)}.")
        header = parse_json(data.decode())
        table = parse_json(header["__metadata__"][FORMAT])
        checksum = table["checksum"]
        if not re.fullmatch("[0-9a-f]{64}", checksum) or checksum.encode() not in data:
            raise ValueError(f"Expected 64 hexadecimal digits, got {reprlib.repr(checksum)}.")
        return header, table, checksum
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no checksum of export_compressed: it is another file, or damaged. Write "
            "or copy it again."
        ) from error


def _checksum_of(file: BinaryIO, start: int, checksum: str) -> str:
    """The checksum of a file whose header ends at `start` and has one."""
    file.seek(0)
    header = file.read(start)
    found = hashlib.sha256(header.replace(checksum.encode(), _NO_CHECKSUM.encode(), 1))
    while data := file.read(1 << 20):
        found.update(data)
    return found.hexdigest()


def _check_description(table: dict[str, Any]) -> None:
    if table["format"] != FORMAT or type(table["version"]) is not int:
        raise ValueError(f"Expected the format {FORMAT!r} and a version, got others.")
    if (description := table["model"]) is None:
        return
    check_keys(description, ["class", "config"])
    if not isinstance(description["class"], str) or not isinstance(description["config"], dict):
        raise ValueError("Expected a class and its configuration, got others.")


def _entries(tensors: Any) -> list[Entry]:
    if not isinstance(tensors, list) or not tensors:
        raise ValueError(f"Expected a list of weights, got {reprlib.repr(tensors)}.")
    entries = [entry_of(value) for value in tensors]
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise ValueError(f"Expected each name once, got {reprlib.repr(entry.name)} twice.")
        names.add(entry.name)
    return entries


def _places(header: dict[str, Any], entries: list[Entry], size: int) -> list[int]:
    """The places of the weights' bytes among the `size` bytes after the header.

    Raises:
      ValueError: they do not follow each other from the first byte to the last.
    """
    check_keys(header, ["__metadata__", *map(str, range(len(entries)))])
    check_keys(header["__metadata__"], [FORMAT])
    places = []
    for i, entry in enumerate(entries):
        row, length = header[str(i)], sum(entry.sizes)
        check_keys(row, ["dtype", "shape", "data_offsets"])
        offsets = row["data_offsets"]
        if not (
            row["dtype"] == "U8"
            and row["shape"] == [length]
            and is_list_of_sizes(offsets)
            and len(offsets) == 2
            and offsets[1] - offsets[0] == length
        ):
            raise ValueError(f"Expected {length} bytes of {entry.name!r}, got {reprlib.repr(row)}.")
        places.append(offsets[0])
    ranges = sorted((place, place + sum(e.sizes)) for e, place in zip(entries, places))
    ends = [(0, 0), *ranges, (size, size)]
    if any(before[1] != after[0] for before, after in itertools.pairwise(ends)):
        raise ValueError(
            f"Expected weights whose bytes follow each other and end at byte {size}, got gaps, "
            "overlaps, or bytes of none."
        )
    return places


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
