"""Errors of loading models that anybody may have written: anything in them can fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str], fault: str) -> Iterator[None]:
    """A scope in which errors of loading become a ValueError that names the file or folder.

    A ValueError that names it already, and ImportError, stay what they are.

    Args:
      path: the file or folder.
      fault: what is wrong with it, in words that follow its name.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        said = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path} {fault}: {said}") from error
