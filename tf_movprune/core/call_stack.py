"""The calls that run at the moment, from the innermost one outwards."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any


def callers() -> Iterator[tuple[str, str]]:
    """Names of the modules and functions that led here."""
    for frame, _ in traceback.walk_stack(None):
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name


def objects_running(method: str) -> Iterator[Any]:
    """The objects whose method of that name led here, whatever it calls its first argument."""
    names = method, f"tf__{method}"  # AutoGraph's name for the code that it makes of a method
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code.co_name in names and frame.f_code.co_argcount:
            yield frame.f_locals.get(frame.f_code.co_varnames[0])
