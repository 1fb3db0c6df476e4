"""Errors of loading models that anybody may have written: anything in them can fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str], fault: str) -> Iterator[None]:
    """A scope in which errors of loading become a ValueError that names the file or folder.

    A ValueError that names it already stays what it is, as do missing packages and rights. What
    needs more memory than there is says so: it may be a large model, or a file that lies.

    Args:
      path: the file or folder.
      fault: what is wrong with it, in words that follow its name.
    """
    try:
        yield
    except (ImportError, PermissionError):
        raise
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(f"{path} asks for more memory than there is: {error}") from error
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        said = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path} {fault}: {said}") from error
