"""The characters of a word that its tokens stand for."""

import pytest

from tf_movprune.core.token_offsets import offsets_in_word, words_of


def test_words_are_between_spaces():
    assert words_of(" a  bc\nd") == [(1, 2), (4, 6), (7, 8)]
    assert words_of("") == words_of(" \t") == []


@pytest.mark.parametrize(
    "word, pieces, offsets",
    [
        ("(1990)", ["(", "1990", ")"], [[0, 1], [1, 5], [5, 6]]),
        ("unaffable", ["una", "##ffa", "##ble"], [[0, 3], [3, 6], [6, 9]]),
        ("##", ["#", "#"], [[0, 1], [1, 2]]),
        ("unaffable", ["▁una", "ff", "able"], [[0, 3], [3, 5], [5, 9]]),
        ("unaffable", ["Ġun", "aff", "able"], [[0, 2], [2, 5], [5, 9]]),
        ("☃x", ["[UNK]"], [[0, 2]]),
        ("naïve", ["na", "Ã¯", "ve"], [[0, 5], [0, 5], [0, 5]]),  # bytes of one character
        ("", [], []),
    ],
)
def test_tokens_of_a_word(word, pieces, offsets):
    assert offsets_in_word(len(word), pieces).tolist() == offsets
