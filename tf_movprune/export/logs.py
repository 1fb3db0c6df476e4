"""Logging as the user has set it up, while TensorFlow writes models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def unchanged_logging() -> Iterator[None]:
    """Restores the handlers of the root logger, and the level of absl's, at the end of a context.

    TensorFlow adds a handler that writes to standard error, and sets the level, as it saves models.
    A later `logging.basicConfig` of the user would have no effect.
    """
    root, theirs = logging.getLogger(), logging.getLogger("absl")
    handlers, level = list(root.handlers), theirs.level
    try:
        yield
    finally:
        for handler in list(root.handlers):
            if handler not in handlers:
                root.removeHandler(handler)
        theirs.setLevel(level)


@contextlib.contextmanager
def without_lines(name: str) -> Iterator[None]:
    """Silences a logger during a context. Errors of this package say what matters in its lines."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
