"""Bytes coded by their frequencies alone, within about a percent of their entropy.

Asymmetric numeral systems (Duda 2013, https://arxiv.org/abs/1311.2540) with a static table, and
many states that take turns, which NumPy steps at once. docs/compressed_format.md has the format.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVELS = 64
"""The highest level of a frequency."""

_BITS = 14
_TOTAL = 1 << _BITS  # sum of the frequencies of a table
_LOWEST = 1 << 16  # of a state between two symbols; a lower one takes in a word of 16 bits
_SYMBOLS_PER_STATE = 1024

_WEIGHTS = np.array([0, *((4 + i % 4) << (i // 4) for i in range(LEVELS))])
"""Relative frequencies of levels: 0, 4, 5, 6, 7, 8, 10, 12, ..."""


class Code(NamedTuple):
    """A coded vector: levels of the frequencies of all 256 bytes, last states, words."""

    levels: np.ndarray
    states: np.ndarray
    words: np.ndarray


def states_of(size: int) -> int:
    """The number of states that code a vector of `size` bytes."""
    return -(-size // _SYMBOLS_PER_STATE)


def entropy_bytes(symbols: np.ndarray) -> float:
    """Bytes that a code of single bytes takes at least, without its table."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / symbols.size)).sum() / 8)


def encode(symbols: np.ndarray) -> Code:
    """The code of a uint8 vector, which is not empty."""
    levels = _levels(np.bincount(symbols, minlength=256))
    frequencies, starts = (table.astype(np.uint64) for table in _table(levels))
    count = states_of(symbols.size)
    states = np.full(count, _LOWEST, np.uint64)
    words = []
    for start in reversed(range(0, symbols.size, count)):
        chunk = symbols[start : start + count]
        now, frequency = states[: chunk.size], frequencies[chunk]
        is_full = now >= frequency << np.uint64(32 - _BITS)
        words.append(now[is_full].astype(np.uint16))
        now[is_full] >>= np.uint64(16)
        quotient = now // frequency
        now += quotient * (np.uint64(_TOTAL) - frequency) + starts[chunk]
    return Code(levels, states.astype(np.uint32), np.concatenate(words[::-1]))


def decode(code: Code, size: int) -> np.ndarray:
    """The vector of `size` bytes that `encode` was given.

    Raises:
      ValueError: it has no such code.
    """
    levels, states, words = code
    if not levels.any() or levels.max() > LEVELS:
        raise ValueError(f"Expected levels up to {LEVELS}, and not only 0, got others.")
    if np.any(states < _LOWEST):
        raise ValueError(f"Expected states of at least {_LOWEST}, got {states.min()}.")
    frequencies, starts = _table(levels)
    of_slot = np.repeat(np.arange(256, dtype=np.uint8), frequencies)
    frequency_of_slot = frequencies[of_slot].astype(np.uint32)
    place_of_slot = (np.arange(_TOTAL) - starts[of_slot]).astype(np.uint32)
    symbols, read, states = np.empty(size, np.uint8), 0, states.copy()
    for start in range(0, size, max(states.size, 1)):
        chunk = symbols[start : start + states.size]
        now = states[: chunk.size]
        slots = now & np.uint32(_TOTAL - 1)
        np.take(of_slot, slots, out=chunk)
        now >>= np.uint32(_BITS)
        now *= frequency_of_slot[slots]
        now += place_of_slot[slots]
        low = np.flatnonzero(now < _LOWEST)
        taken = words[read : read + low.size]
        if taken.size < low.size:
            raise ValueError(f"Expected more than {words.size} words, got no more.")
        now[low] = (now[low] << np.uint32(16)) | taken
        read += low.size
    if read < words.size or np.any(states != _LOWEST):
        raise ValueError("Expected a code that ends where it began, got another.")
    return symbols


def _levels(counts: np.ndarray) -> np.ndarray:
    """The level of each byte: the one whose weight is nearest to its count, scaled to the highest.

    Bytes that do not occur have level 0, all others at least 1.
    """
    middles = (_WEIGHTS[1:-1] + _WEIGHTS[2:]) / 2
    scaled = counts / counts.max() * _WEIGHTS[-1]
    return np.where(counts > 0, 1 + np.searchsorted(middles, scaled), 0).astype(np.uint8)


def _table(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frequency of each byte, of a sum of 2**14, and the sum of those before it."""
    weights = _WEIGHTS[levels]
    used = weights > 0
    frequencies = used + weights * (_TOTAL - np.count_nonzero(used)) // weights.sum()
    frequencies[np.argmax(weights)] += _TOTAL - frequencies.sum()
    return frequencies, np.cumsum(frequencies) - frequencies
