"""The characters of a text that its tokens stand for, for tokenizers that do not tell."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\S+")
_CONTINUES = "##"
_BEGINS = "▁Ġ"  # marks of a space before a word, in SentencePiece and byte-level BPE


def words_of(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of a text, between spaces."""
    return [match.span() for match in _WORD.finditer(text)]


def offsets_in_word(length: int, pieces: Sequence[str]) -> np.ndarray:
    """Start and end of each token in its word.

    If the tokens together have as many characters as the word, they are taken one after the other.
    Otherwise, as with unknown tokens, each stands for the whole word.

    Args:
      length: characters of the word.
      pieces: the tokens as strings, with the marks of WordPiece, SentencePiece or BPE.

    Returns:
      int32 array [tokens, 2].
    """
    lengths = [len(piece.removeprefix(_CONTINUES).lstrip(_BEGINS)) for piece in pieces]
    if sum(lengths) != length:
        return np.tile(np.array([[0, length]], np.int32), [len(pieces), 1])
    ends = np.cumsum(lengths, dtype=np.int32)
    return np.stack([ends - np.array(lengths, np.int32), ends], axis=-1)
