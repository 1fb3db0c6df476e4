"""Arguments of the wrong type, refused where they are given."""

from __future__ import annotations

import numbers
from typing import Any


def check_integer(name: str, value: Any, example: int) -> int:
    """An integer of Python's or NumPy's, as Python's.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer such as {example}, got {value!r}.")
    return int(value)


def check_number(name: str, value: Any, example: float) -> float:
    """A real number of Python's or NumPy's, as Python's.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number such as {example}, got {value!r}.")
    return float(value)


def check_fraction(name: str, value: Any) -> float:
    """A number in [0, 1), as Python's.

    Raises:
      TypeError: it is no number.
      ValueError: it is out of range.
    """
    value = check_number(name, value, example=0.5)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}.")
    return value


def check_at_least_zero(name: str, value: Any, example: float) -> float:
    """A number of at least 0, as Python's.

    Raises:
      TypeError: it is no number.
      ValueError: it is out of range.
    """
    value = check_number(name, value, example)
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}.")
    return value
