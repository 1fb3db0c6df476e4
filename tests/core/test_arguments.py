"""Checks of arguments: one error for a wrong type, another for a value out of range."""

import numpy as np
import pytest

from tf_movprune.core import arguments


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_become_those_of_python(value):
    assert type(arguments.check_integer("n", value, example=1)) is int


@pytest.mark.parametrize("value", [3.0, True, "3", None, np.float32(3), [3]])
def test_other_types_than_integers(value):
    with pytest.raises(TypeError, match=r"^n must be an integer such as 7, got "):
        arguments.check_integer("n", value, example=7)


def test_integers_below_their_minimum():
    assert arguments.check_integer("n", 2, example=7, minimum=2) == 2
    with pytest.raises(ValueError, match=r"^n must be at least 2, got 1\.$"):
        arguments.check_integer("n", 1, example=7, minimum=2)


@pytest.mark.parametrize("value", [3, 0.5, np.float32(0.5), np.int32(3)])
def test_numbers_become_those_of_python(value):
    assert type(arguments.check_number("x", value, example=1.0)) is float


@pytest.mark.parametrize("check", [arguments.check_number, arguments.check_fraction])
@pytest.mark.parametrize("value", [True, "0.9", None, 1j, [0.5]])
def test_other_types_than_numbers(check, value):
    example = {"example": 0.5} if check is arguments.check_number else {}
    with pytest.raises(TypeError, match=r"^x must be a number such as 0\.5, got "):
        check("x", value, **example)


@pytest.mark.parametrize(
    "value, bounds, message",
    [
        (0, {"above": 0}, r"x must be greater than 0, got 0\."),
        (float("nan"), {"above": 0}, r"x must be greater than 0, got nan\."),
        (-1e-9, {"minimum": 0}, r"x must be at least 0, got -1e-09\."),
        (float("nan"), {"minimum": 0}, r"x must be at least 0, got nan\."),
        (float("inf"), {"minimum": 0}, r"x must be finite, got inf\."),
        (float("nan"), {}, r"x must be finite, got nan\."),
    ],
)
def test_numbers_out_of_range(value, bounds, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        arguments.check_number("x", value, example=1.0, **bounds)


@pytest.mark.parametrize("value", [0, 0.0, 0.999, np.float32(0.25)])
def test_fractions(value):
    assert arguments.check_fraction("x", value) == float(value)


@pytest.mark.parametrize("value", [1, 1.0, -1e-9, float("nan"), float("inf")])
def test_fractions_out_of_range(value):
    with pytest.raises(ValueError, match=r"^x must be in \[0, 1\), got "):
        arguments.check_fraction("x", value)
    with pytest.raises(ValueError, match="it is the fraction of zeros"):
        arguments.check_fraction("final_sparsity", value)


def test_choices():
    choices = (None, "a", "b")
    for value in (*choices, np.str_("a")):
        arguments.check_choice("x", value, choices)
    for value in ("c", 0, True, ["a"], np.zeros(2)):
        with pytest.raises(ValueError, match=r"^x must be None, 'a' or 'b', got "):
            arguments.check_choice("x", value, choices)


def test_booleans():
    arguments.check_boolean("x", True)
    for value in (1, "yes", None, np.True_):
        with pytest.raises(TypeError, match=r"^x must be True or False, got "):
            arguments.check_boolean("x", value)
