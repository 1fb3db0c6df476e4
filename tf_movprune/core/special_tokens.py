"""Special tokens around one or two sequences of token ids, as a tokenizer places them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Ids = np.ndarray


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The ids before, between and after sequences, and the segments that they are given.

    Args:
      start: ids before the first sequence.
      between: ids between the two.
      end: ids at the end.
      second_segment: segment of the second sequence and of the ids at its end.
      split: how many of the ids `between` are of the first segment.
    """

    start: tuple[int, ...]
    between: tuple[int, ...]
    end: tuple[int, ...]
    second_segment: int = 0
    split: int = 1

    @classmethod
    def of_function(
        cls,
        join: Callable[[list[int], list[int]], Sequence[int]],
        segments: Callable[[list[int], list[int]], Sequence[int]],
    ) -> SpecialTokens:
        """The special tokens of a tokenizer, found by what it makes of two ids.

        Args:
          join: function from two lists of ids to one with special tokens.
          segments: function from the same lists to the segments of that.
        """
        marks = [-1], [-2]
        joined, kinds = list(join(*marks)), list(segments(*marks))
        first, second = joined.index(-1), joined.index(-2)
        between = kinds[first + 1 : second]
        return cls(
            tuple(joined[:first]),
            tuple(joined[first + 1 : second]),
            tuple(joined[second + 1 :]),
            second_segment=kinds[second],
            split=between.count(kinds[first]) if kinds[second] != kinds[first] else len(between),
        )

    def count(self, pair: bool) -> int:
        """The number of special tokens around one sequence, or around two."""
        return len(self.start) + len(self.end) + (len(self.between) if pair else 0)

    def joined(self, first: Ids, second: Ids | None = None) -> tuple[Ids, Ids]:
        """One or two sequences with their special tokens, and the segment of each token.

        Args:
          first: int32 ids.
          second: int32 ids of the second sequence, if there is one.

        Returns:
          int32 ids and int32 segments of the same length.
        """
        if second is None:
            ids = np.concatenate([self.start, first, self.end]).astype(np.int32)
            return ids, np.zeros(len(ids), np.int32)
        ids = np.concatenate([self.start, first, self.between, second, self.end]).astype(np.int32)
        segments = np.full(len(ids), self.second_segment, np.int32)
        segments[: len(self.start) + len(first) + self.split] = 0
        return ids, segments


class JoinsTokens:
    """The part of a tokenizer that places special tokens; a shell sets `_special`."""

    _special: SpecialTokens

    def special_tokens(self, pair: bool) -> int:
        """The number of special tokens around one text, or around two."""
        return self._special.count(pair)

    def joined(self, first: Ids, second: Ids | None = None) -> tuple[Ids, Ids]:
        """Ids with special tokens, and their segments; see `SpecialTokens.joined`."""
        return self._special.joined(first, second)
