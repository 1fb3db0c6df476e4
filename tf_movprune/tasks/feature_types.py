"""Features: what a model is given for examples, before they are put in batches."""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_movprune.tasks.rows import Rows


@dataclasses.dataclass(frozen=True)
class Features:
    """Token ids with special tokens, one row for each input of a model.

    Attributes:
      ids: int32 rows.
      segments: int32 rows of the same lengths.
      targets: arrays with a value for each row: {"labels": int32}, {"labels": float32} for
        scores, {"start": int32, "end": int32} for questions; empty if they are secret.
      padding_id: the id that fills the rest of a row in a batch.
      examples: number of the examples that they are made of.
      max_length: length that rows were cut to.
      cut: number of examples that lost tokens.
      from_cache: whether they were read from the cache.
    """

    ids: Rows
    segments: Rows
    targets: dict[str, np.ndarray]
    padding_id: int
    examples: int
    max_length: int
    cut: int = 0
    from_cache: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """int64 number of tokens of each row."""
        return self.ids.lengths

    @property
    def description(self) -> str:
        """The counts, to be shown."""
        longest = int(self.lengths.max(initial=0))
        return (
            f"{self.examples:,} examples, {len(self):,} features of at most {longest} tokens"
            + (f", {self.cut:,} cut to {self.max_length}" if self.cut else "")
            + (" (from the cache)" if self.from_cache else "")
        )


@dataclasses.dataclass(frozen=True)
class Windows(Features):
    """Windows over the contexts of questions, of which a long one has several.

    Attributes:
      question: int32, the index of each window's question.
      first_token: int32, the index in the context's tokens of the first in each window.
      position: int32, the column of that token.
      tokens: int32, the number of the context's tokens in each window.
      offsets: int32 rows [tokens, 2] of each context: the characters of each token.
    """

    question: np.ndarray = dataclasses.field(kw_only=True)
    first_token: np.ndarray = dataclasses.field(kw_only=True)
    position: np.ndarray = dataclasses.field(kw_only=True)
    tokens: np.ndarray = dataclasses.field(kw_only=True)
    offsets: Rows = dataclasses.field(kw_only=True)
