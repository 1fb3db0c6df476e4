"""Checks of arguments: TypeError for a wrong type, ValueError for a value out of range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def check_integer(name: str, value: Any, *, example: int, minimum: int | None = None) -> int:
    """Returns a Python or NumPy integer as a Python integer.

    Raises:
      TypeError: `value` is not an integer.
      ValueError: `value` is less than `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer such as {example}, got {value!r}.")
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    example: float,
    minimum: float | None = None,
    above: float | None = None,
) -> float:
    """Returns a finite real number of Python or NumPy as a Python float.

    Raises:
      TypeError: `value` is not a real number.
      ValueError: `value` is not finite, less than `minimum`, or not greater than `above`.
    """
    number = _as_number(name, value, example)
    if above is not None and not number > above:
        raise ValueError(f"{name} must be greater than {above:g}, got {value}.")
    if minimum is not None and not number >= minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, got {value}.")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}.")
    return number


def check_fraction(name: str, value: Any) -> float:
    """Returns a number in [0, 1) as a Python float.

    Raises:
      TypeError: `value` is not a real number.
      ValueError: `value` is out of range.
    """
    number = _as_number(name, value, 0.5)
    if not 0 <= number < 1:
        reason = ": it is the fraction of zeros" if name.endswith("sparsity") else ""
        raise ValueError(f"{name} must be in [0, 1), got {value}{reason}.")
    return number


def _as_number(name: str, value: Any, example: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number such as {example}, got {value!r}.")
    return float(value)


def check_boolean(name: str, value: Any) -> None:
    """Raises TypeError if `value` is not True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """Raises ValueError if `value` is not one of `choices`, which are strings and None."""
    if not (value is None or isinstance(value, str)) or value not in choices:
        listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise ValueError(f"{name} must be {listed}, got {value!r}.")


def check_update_freq(value: Any) -> int | None:
    """Returns the number of steps from one record of a training to the next; None for epochs.

    Raises:
      TypeError: `value` is neither a string nor an integer.
      ValueError: it is another string than "epoch", or less than 1.
    """
    if not isinstance(value, str):
        return check_integer("update_freq", value, example=100, minimum=1)
    if value != "epoch":
        raise ValueError(f'update_freq must be "epoch" or a number of steps, got {value!r}.')
    return None
