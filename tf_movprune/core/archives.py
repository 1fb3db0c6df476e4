"""Files in zip archives that anybody may have written."""

from __future__ import annotations

import pathlib
import struct
import zipfile
import zlib

_MOST_BYTES = 2**26  # of a configuration; a few bytes of an archive can say any number
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack without a bound
_ERRORS = (
    *(OSError, LookupError, EOFError, RuntimeError, ValueError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError),
)
"""Errors that modules of Python raise for damaged archives."""


def read_member(path: pathlib.Path, name: str) -> bytes:
    """Reads a small file in a zip archive.

    Raises:
      ValueError: it is no archive, is damaged, or has no such file, or one of more than 64 MB,
        whatever the archive says of its size, or one that is packed otherwise than by deflate.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).compress_type not in _PACKINGS:
                raise ValueError(f"{name} in it is neither stored nor deflated")
            with archive.open(name) as file:
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise ValueError(f"{name} in it has more than {_MOST_BYTES:,} bytes")
            return data
    except _ERRORS as error:
        raise ValueError(f"{path} is no archive with {name}, or damaged: {error}.") from error
