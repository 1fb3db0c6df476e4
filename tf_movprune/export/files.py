"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


def check_place(path: pathlib.Path, *, for_folder: bool = False) -> None:
    """Raises OSError where no file, or no folder, can be written to `path`, before work is done."""
    path = path.resolve()
    if not path.parent.exists():
        raise FileNotFoundError(f"No folder {str(path.parent)!r} for {path.name!r}. Make it first.")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"{str(path.parent)!r} is a file. Pass a path in a folder.")
    if path.is_dir() and not for_folder:
        raise IsADirectoryError(f"{str(path)!r} is a folder. Pass the path of a file in it.")
    if path.exists() and not path.is_dir() and for_folder:
        raise NotADirectoryError(f"{str(path)!r} is a file. Pass the path of a folder.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"No permission to write into {str(path.parent)!r}.")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file or folder beside `path` to write, which then takes its place.

    On any error it is removed, and what was at `path` before stays as it was. Of a symbolic link,
    what it points to is replaced.
    """
    path = path.resolve()
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
