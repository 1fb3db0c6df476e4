"""Integer keys in the order of float32 scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

LOWEST = np.int32(-(2**31))  # the key of NaN, which ranks below all numbers
RESERVED = np.int32(2**31 - 2)  # above the key of +inf
NONE = np.int32(2**31 - 1)  # above the keys of all scores: those bits are a NaN
_SIGN = np.int32(2**31 - 1)  # all bits but the sign
_INFINITY = np.int32(0x7F800000)  # the bits of +inf


@dataclasses.dataclass(frozen=True)
class RankedScores:
    """float32 scores of rank 1 and static size, seen as integer keys in their order.

    Args:
      values: the scores.
      first: bool tensor of the same shape that marks scores to rank above all others.
    """

    values: tf.Tensor
    first: tf.Tensor | None = None

    @property
    def size(self) -> int:
        return self.values.shape.num_elements()

    def keys(self, zero: tf.Tensor | int = 0) -> tf.Tensor:
        """int32 keys; -0 equals +0, and NaN comes below -inf.

        In a loop, `zero` is a 0 that the compiler does not know. Otherwise it would compute the
        unchanging keys before the loop and write them to memory, which costs more than computing
        them in each pass.
        """
        keys = keys_of_bits(tf.bitwise.bitwise_xor(tf.bitcast(self.values, tf.int32), zero))
        return keys if self.first is None else tf.where(self.first, RESERVED, keys)


def keys_of_bits(bits: tf.Tensor) -> tf.Tensor:
    magnitude = tf.bitwise.bitwise_and(bits, _SIGN)
    keys = tf.where(bits < 0, -magnitude, magnitude)
    return tf.where(magnitude > _INFINITY, LOWEST, keys)


def scores_of_keys(keys: tf.Tensor) -> tf.Tensor:
    """float32 scores of int32 keys: -inf for the key of NaN, +inf for keys above that of +inf."""
    bits = tf.where(keys < 0, tf.bitwise.bitwise_or(-keys, LOWEST), keys)
    scores = tf.where(keys == LOWEST, -np.inf, tf.bitcast(bits, tf.float32))
    return tf.where(keys > _INFINITY, np.inf, scores)
