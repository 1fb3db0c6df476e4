"""The protocol of tokenizers that tasks use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """Token ids of texts, and the characters that they stand for.

    Attributes:
      fingerprint: a text that changes whenever the ids could.
      padding_id: the id that fills the rest of a row.
      max_length: positions of the model; None if it has no limit.
    """

    padding_id: int
    max_length: int | None

    @property
    def fingerprint(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32, without special tokens."""

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids of each text, and the characters of each token, int32 [tokens, 2]."""

    def special_tokens(self, pair: bool) -> int:
        """The number of special tokens that `joined` adds to one text, or to two."""

    def joined(
        self, first: np.ndarray, second: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids with special tokens, and the segment of each, both int32."""
