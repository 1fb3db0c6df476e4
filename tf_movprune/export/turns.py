"""Exports that take turns: while they work, they change the model and logging of the process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_turn = threading.RLock()


def one_at_a_time(export: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Makes a function wait until no other such function works in another thread.

    Two that overlap would not put back what was there, and one would export what the other made of
    the model.
    """

    @functools.wraps(export)
    def in_turn(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with _turn:
            return export(*args, **kwargs)

    return in_turn
