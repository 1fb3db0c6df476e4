"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from tf_movprune.core.user_warnings import warn

_AT_FDCWD = -100  # paths are relative to the working directory
_RENAME_EXCHANGE = 2
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


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

    It is flushed to disk before it takes its place. On any error it is removed, and `path` stays as
    it was. If `path` is a symbolic link, its target is replaced.

    A reader always finds the old or the new file or folder. For folders that takes a system call
    that exchanges two names, which Linux has on most file systems. Elsewhere a folder is missing
    for the moment between two renamings.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        _flush_all(temporary)
        if not (path.is_dir() and temporary.is_dir()):
            os.replace(temporary, path)
        elif not _exchange(temporary, path):
            _replace_folder(path, temporary, old)
        with contextlib.suppress(OSError):  # a crash now leaves the old or the new one, whole
            _flush(path.parent)
    finally:
        _remove(temporary)
        if path.exists():
            _remove(old)


def _exchange(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Exchanges two names at once; returns False if the system or the file system cannot."""
    rename = getattr(_libc(), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _libc() -> ctypes.CDLL | None:
    """The C library; None if Python cannot call it."""
    if os.name != "posix":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


def _replace_folder(path: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    """Replaces a folder in two steps, or in none."""
    try:
        os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


def _flush_all(path: pathlib.Path) -> None:
    """Flushes a file, or all of a folder, and the name itself to disk."""
    if path.is_dir():
        for folder, _, files in os.walk(path, topdown=False):
            for file in files:
                _flush(pathlib.Path(folder, file))
            _flush(pathlib.Path(folder))
    else:
        _flush(path)
    _flush(path.parent)


def _flush(path: pathlib.Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens folders
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NOT_OFFERED):
            raise
    finally:
        os.close(descriptor)


def _remove(path: pathlib.Path) -> None:
    """Removes a file or folder, if there is one; warns if that fails."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        warn(f"Could not remove {str(path)!r}: {error}. Delete it.")
