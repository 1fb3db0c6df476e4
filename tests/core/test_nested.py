"""Names of nested arguments and outputs."""

import collections

import pytest

from tf_movprune.core.nested import named_leaves, valid_names

Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("structure", "name", "leaves"),
    [
        (7, "x", [("x", 7)]),
        ([7, 8], "x", [("x_0", 7), ("x_1", 8)]),
        ({"b": 7, "a": (8, {"c": 9})}, "", [("b", 7), ("a_0", 8), ("a_1_c", 9)]),
        (Pair(7, [8]), "x", [("x_first", 7), ("x_second_0", 8)]),
        ({0: 7}, "", [("0", 7)]),
        ([], "x", []),
    ],
)
def test_names_of_leaves(structure, name, leaves):
    assert list(named_leaves(structure, name)) == leaves


def test_sorted_keys():
    assert [name for name, _ in named_leaves({"b": 1, "a": {"d": 2, "c": 3}}, "", sorted)] == [
        *("a_c", "a_d", "b"),
    ]


def test_names_are_valid_and_different():
    assert valid_names(["w", "w", "a b", "_x", "w_1", "v.1-2", "é"]) == [
        *("w", "w_1", "a_b", "x", "w_1_1", "v.1-2", "x_1"),
    ]
