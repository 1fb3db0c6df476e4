"""The calls that run at the moment, from the innermost one outwards."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any


def callers() -> Iterator[tuple[str, str]]:
    """Names of the modules and functions that led here."""
    for frame, _ in traceback.walk_stack(None):
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name


def objects_running(*methods: str) -> Iterator[tuple[str, Any]]:
    """The methods of these names that led here, each with its object.

    The object is the first argument, whatever its name is. The function of a class's method may
    have another name than the method.
    """
    for frame, _ in traceback.walk_stack(None):
        code = frame.f_code
        if not code.co_argcount:
            continue
        found = frame.f_locals.get(code.co_varnames[0])
        for method in methods:
            names = method, getattr(getattr(type(found), method, None), "__name__", method)
            # AutoGraph puts "tf__" before the name of the code that it makes of a method.
            if code.co_name.removeprefix("tf__") in names:
                yield method, found
