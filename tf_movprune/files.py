"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file or folder beside `path` to write, which then takes its place.

    On any error it is removed, and what was at `path` before stays as it was. Of a symbolic link,
    what it points to is replaced.

    Raises:
      FileNotFoundError: the folder for it does not exist.
    """
    path = path.resolve()
    if not path.parent.exists():
        raise FileNotFoundError(f"No folder {str(path.parent)!r} for {path.name!r}. Make it first.")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if path.is_dir() and temporary.is_dir():
            _replace_folder(path, temporary)
        else:
            os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _replace_folder(path: pathlib.Path, new: pathlib.Path) -> None:
    """No system call does it where the folder is not empty."""
    old = new.with_suffix(".old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
