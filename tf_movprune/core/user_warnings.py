"""Warnings that name the line of the user's code, at any depth of Keras and this library."""

from __future__ import annotations

import inspect
import warnings
from types import FrameType

_LIBRARIES = frozenset(
    ("tf_movprune", "keras", "tf_keras", "keras_hub", "tensorflow", "transformers", "contextlib")
)


def warn(message: str) -> None:
    """Issues a UserWarning for the innermost line outside of these libraries."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_of_library(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_of_library(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return name.split(".")[0] in _LIBRARIES
