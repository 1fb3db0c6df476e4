"""Counts of entries in short rows, which XLA compiles to fast programs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

ROW = 64


def count_true(mask: tf.Tensor) -> tf.Tensor:
    """Number of true entries: int64 scalar."""
    return count_true_of_each([mask])[0]


def count_true_of_each(masks: Sequence[tf.Tensor]) -> tf.Tensor:
    """Number of true entries of each mask: int64 vector.

    Masks of one shape are counted together and in short rows, which XLA's CPU compiler makes
    several times as fast.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, mask in enumerate(masks):
        by_shape.setdefault(tuple(mask.shape), []).append(i)
    counts: dict[int, tf.Tensor] = {}
    for members in by_shape.values():
        flat = tf.stack([tf.reshape(masks[i], [-1]) for i in members])
        rows = tf.reduce_sum(tf.cast(in_rows(flat, ROW, False), tf.int32), axis=-1)
        counts.update(zip(members, tf.unstack(tf.reduce_sum(tf.cast(rows, tf.int64), axis=-1))))
    return tf.stack([counts[i] for i in range(len(masks))])


def is_zero(values: tf.Tensor) -> tf.Tensor:
    """Marks the float32 zeros of either sign, and nothing else.

    The bits decide: TensorFlow compares numbers below 1e-38 as if they were zero.
    """
    return tf.equal(tf.bitwise.left_shift(tf.bitcast(values, tf.int32), 1), 0)


def in_rows(values: tf.Tensor, limit: int, padding: int | np.int32) -> tf.Tensor:
    """Splits the last axis of a tensor into rows of at most `limit`: [..., rows, row]."""
    *others, size = values.shape
    length = _row_length(size, limit)
    if size % length:
        paddings = [[0, 0]] * len(others) + [[0, -size % length]]
        values = tf.pad(values, paddings, constant_values=padding)
    return tf.reshape(values, [*others, -1, length])


def row_count(size: int, limit: int) -> int:
    return math.ceil(size / _row_length(size, limit))


def _row_length(size: int, limit: int) -> int:
    """The greatest divisor of `size` up to a limit, or the limit if all divisors are small."""
    divisors = (n for n in range(limit, limit // 4, -1) if size % n == 0)
    return next(divisors, limit)
