"""Files in zip archives that anybody may have written."""

from __future__ import annotations

import pathlib
import struct
import zipfile
import zlib

_MOST_BYTES = 2**26  # of a configuration; a few bytes of an archive can say any number
_ERRORS = (
    *(OSError, LookupError, EOFError, RuntimeError, ValueError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError),
)
"""Errors that modules of Python raise for damaged archives."""


def read_member(path: pathlib.Path, name: str) -> bytes:
    """Reads a small file in a zip archive.

    Raises:
      ValueError: it is no archive, is damaged, or has no such file, or one of more than 64 MB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(name).file_size
            if size > _MOST_BYTES:
                raise ValueError(f"{name} in it has {size:,} bytes")
            return archive.read(name)
    except _ERRORS as error:
        raise ValueError(f"{path} is no archive with {name}, or damaged: {error}.") from error
