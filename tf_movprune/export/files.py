"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


def check_place(path: pathlib.Path, *, for_folder: bool = False) -> None:
    """Raises OSError, before work is done, if no file or folder can be written to `path`."""
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
    """Yields the place of a file or folder beside `path` to write, which then replaces `path`.

    On any error it is removed, and `path` stays as it was. If `path` is a symbolic link, its target
    is replaced.
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
    """Replaces a folder, for which there is no system call if it is not empty."""
    old = new.with_suffix(".old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
