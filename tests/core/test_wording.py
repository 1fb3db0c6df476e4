"""Words for numbers and lists."""

import pytest

from tf_movprune.core.wording import counted, listed, numbered_as_one, with_article


@pytest.mark.parametrize(
    "count, expected", [(0, "0 matrices"), (1, "1 matrix"), (2, "2 matrices"), (1200, "1,200 matr")]
)
def test_counted(count, expected):
    assert counted(count, "matrix", "matrices").startswith(expected)


def test_plurals_end_in_s():
    assert [counted(n, "layer") for n in (1, 3)] == ["1 layer", "3 layers"]


@pytest.mark.parametrize(
    "size, expected",
    [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2, and 1 more"), (15, "0, 1, 2, and 12 more")],
)
def test_listed(size, expected):
    assert listed(map(str, range(size)), most=3) == expected


def test_listed_with_a_separator():
    assert listed("abcd", most=3, separator="; ") == "a; b; c; and 1 more"


def test_articles():
    names = ("Dense", "EinsumDense", "LSTM", "GRU", "SeparableConv1D")
    assert [with_article(name).split()[0] for name in names] == ["a", "an", "an", "a", "a"]


def test_paths_that_differ_in_numbers():
    paths = [f"block_{i}.{name}" for i in range(12) for name in ("query", "dense_1")]
    assert numbered_as_one([*paths, "pooler", "head_2", "conv2d"]) == [
        "block_*.query",
        "block_*.dense_*",
        "pooler",
        "head_2",
        "conv2d",
    ]
