"""The exact cut between the highest scores and the rest, without sorting more than a few.

Each pass over the scores counts how many reach four pivots. The first pivots come from a sorted
sample, the next from interpolation, and after three or four passes a bracket of a few scores is
left. A last pass reads those out, one to a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

_LOWEST = np.int32(-(2**31))  # the key of NaN, which ranks below all numbers
_RESERVED = np.int32(2**31 - 2)  # above the key of +inf
_NONE = np.int32(2**31 - 1)  # above the keys of all scores: those bits are a NaN
_SIGN = np.int32(2**31 - 1)  # all bits but the sign
_INFINITY = np.int32(0x7F800000)  # the bits of +inf

_SORTED = 2048  # scores of a group that are sorted: it takes a compiler less time
_ROW = 64  # scores of which at most one can be read out


@dataclasses.dataclass(frozen=True)
class Scores:
    """float32 scores of rank 1 and static size, seen as integer keys in their order.

    Args:
      values: the scores.
      first: bool tensor of the same shape, marks scores that rank above all others.
    """

    values: tf.Tensor
    first: tf.Tensor | None = None

    @property
    def size(self) -> int:
        return self.values.shape.num_elements()

    def keys(self, zero: tf.Tensor | int = 0) -> tf.Tensor:
        """int32 keys; -0 equals +0, and NaN comes below -inf.

        In a loop, `zero` is a 0 of which the compiler does not know. Keys that do not change are
        else computed before the loop and written to memory, which costs more than to compute them
        in each pass.
        """
        keys = _keys_of_bits(tf.bitwise.bitwise_xor(tf.bitcast(self.values, tf.int32), zero))
        return keys if self.first is None else tf.where(self.first, _RESERVED, keys)


def select(
    groups: Sequence[Sequence[Scores]], counts: tf.Tensor
) -> tuple[list[list[tf.Tensor]], tf.Tensor]:
    """Marks the `counts` highest scores of each group; ties go to the earlier ones.

    Args:
      groups: scores that are chosen from together.
      counts: int64 tensor, one number to each group, in [0, its size].

    Returns:
      masks: bool tensors like the scores of the `groups`.
      thresholds: float32 tensor, the lowest score of each group that is kept; +inf where none is,
        or only first ones are. Of no meaning where all are kept.
    """
    if max(_size(group) for group in groups) <= _SORTED:
        return _select_sorted(groups, counts)
    bracket, lowest = _find_cuts(groups, counts)
    cuts = tf.unstack(tf.cast(bracket.low, tf.int32))
    ends = tf.unstack(_ends_of_tied(groups, cuts, bracket, counts))
    masks = []
    for group, cut, end in zip(groups, cuts, ends):
        end = tf.cast(end, _index_type(group))
        pairs = zip((s.keys() for s in group), _indices(group))
        masks.append([(keys > cut) | ((keys == cut) & (i < end)) for keys, i in pairs])
    return masks, _scores_of(lowest)


def _select_sorted(
    groups: Sequence[Sequence[Scores]], counts: tf.Tensor
) -> tuple[list[list[tf.Tensor]], tf.Tensor]:
    """What `select` returns."""
    keys = _stack([[s.keys() for s in group] for group in groups], _LOWEST)
    order = tf.argsort(keys, axis=1, direction="DESCENDING", stable=True)
    chosen = tf.argsort(order, axis=1) < tf.cast(counts, tf.int32)[:, None]
    lowest = tf.reduce_min(tf.where(chosen, keys, _NONE), axis=1)
    masks = [
        tf.split(row[: _size(group)], [s.size for s in group])
        for row, group in zip(tf.unstack(chosen), groups)
    ]
    return masks, _scores_of(lowest)


class _Bracket(NamedTuple):
    """Two int64 keys to each group, and how many scores reach them: enough, and too few."""

    low: tf.Tensor
    high: tf.Tensor
    reach_low: tf.Tensor
    reach_high: tf.Tensor

    @property
    def inside(self) -> tf.Tensor:
        return self.reach_low - self.reach_high

    @property
    def is_open(self) -> tf.Tensor:
        return self.high - self.low > 1

    def narrow(self, pivots: tf.Tensor, reached: tf.Tensor, counts: tf.Tensor) -> _Bracket:
        """By pivots and how many scores reach them, [groups, pivots] int64."""
        low, high, reach_low, reach_high = (end[:, None] for end in self)
        is_inside = (low < pivots) & (pivots < high)
        is_low = is_inside & (reached >= counts[:, None])
        is_high = is_inside & (reached < counts[:, None])
        return _Bracket(
            tf.reduce_max(tf.where(is_low, pivots, low), axis=1),
            tf.reduce_min(tf.where(is_high, pivots, high), axis=1),
            tf.reduce_min(tf.where(is_low, reached, reach_low), axis=1),
            tf.reduce_max(tf.where(is_high, reached, reach_high), axis=1),
        )


def _find_cuts(groups: Sequence[Sequence[Scores]], counts: tf.Tensor) -> tuple[_Bracket, tf.Tensor]:
    """Brackets whose low ends are the cuts, and the lowest keys that reach those.

    Exactly `counts` reach the cut, unless more are tied there; then the bracket is closed.
    """
    sizes = tf.constant([_size(group) for group in groups], tf.int64)
    whole = _Bracket(
        tf.fill(sizes.shape, tf.constant(_LOWEST, tf.int64)),
        tf.fill(sizes.shape, tf.constant(_NONE, tf.int64)),
        sizes,
        tf.zeros_like(sizes),
    )
    # Nothing to search for where all or none are kept.
    is_none, is_all = counts == 0, counts == sizes
    whole = whole._replace(
        low=tf.where(is_none, whole.high, whole.low),
        high=tf.where(is_all, whole.low + 1, whole.high),
        reach_low=tf.where(is_none, whole.reach_high, whole.reach_low),
    )

    def narrow(bracket, turn, few, is_read, keys):
        pivots = tf.cond(
            turn == 0,
            lambda: _sampled_pivots(groups, counts),
            lambda: _interpolated_pivots(bracket, counts, sizes, turn),
        )
        reached = tf.cond(
            is_read,
            lambda: _reach_of_read(keys, bracket, pivots),
            lambda: _reach_of_all(groups, pivots, _hidden_zero(turn)),
        )
        return bracket.narrow(pivots, reached, counts), turn + 1, few, is_read, keys

    def read_out(bracket, turn, few, is_read, keys):
        keys = _read_out_all(groups, bracket, _hidden_zero(turn))
        found = tf.reduce_sum(tf.cast(keys > _LOWEST, tf.int32), axis=1)
        is_complete = ~bracket.is_open | (tf.cast(found, tf.int64) == bracket.inside)
        # Should two of the few share a row, once more, down to one.
        return bracket, turn + 1, tf.ones_like(few), tf.reduce_all(is_complete), keys

    def body(bracket, turn, few, is_read, keys):
        state = bracket, turn, few, is_read, keys
        is_few = tf.reduce_all(~bracket.is_open | (bracket.inside <= few))
        return tf.cond(is_few & ~is_read, lambda: read_out(*state), lambda: narrow(*state))

    few = tf.constant([int(math.sqrt(_size(g) / _ROW) / 2) + 1 for g in groups], tf.int64)
    longest = max(sum(_rows(s.size, _ROW) for s in group) for group in groups)
    nothing = tf.fill([len(groups), longest], _LOWEST)
    bracket, _, _, _, keys = tf.while_loop(
        lambda bracket, turn, few, is_read, keys: tf.reduce_any(
            bracket.is_open & (~is_read | (bracket.reach_low > counts))
        ),
        body,
        (whole, tf.constant(0), few, tf.constant(False), nothing),
    )
    cuts = tf.cast(bracket.low, tf.int32)
    lowest = tf.reduce_min(tf.where(keys >= cuts[:, None], keys, _NONE), axis=1)
    return bracket, tf.where(bracket.is_open, lowest, cuts)


def _sampled_pivots(groups: Sequence[Sequence[Scores]], counts: tf.Tensor) -> tf.Tensor:
    """Pivots around each cut, near and far, by a sample of each group: [groups, pivots] int64."""
    samples = [_sample(group) for group in groups]
    sizes = [sum(s.size for s in group) for group in samples]
    rows = tf.sort(_stack([[s.keys() for s in group] for group in samples], _LOWEST), axis=1)
    rows = tf.pad(rows, [[0, 0], [0, 1]], constant_values=_NONE - 1)

    size = tf.constant(sizes, tf.float64)
    share = tf.cast(counts, tf.float64) / [float(_size(group)) for group in groups]
    deviation = tf.sqrt(size * share * (1 - share))
    distances = tf.constant([4.0, 0.7, -0.7, -4.0], tf.float64)
    ranks = tf.round((size * share)[:, None] + deviation[:, None] * distances + tf.sign(distances))
    ranks = tf.clip_by_value(ranks, 0, size[:, None])
    # The key of a sample that so many of its keys reach.
    keys = tf.gather(rows, max(sizes) - tf.cast(ranks, tf.int32), batch_dims=1)
    return tf.cast(keys, tf.int64) + tf.constant([0, 0, 1, 1], tf.int64)


def _sample(group: Sequence[Scores]) -> list[Scores]:
    """As many scores as the root of a group's size, at a stride out of step with its columns.

    To sort more would cost more than the pass that they save.
    """
    size = _size(group)
    stride = math.isqrt(size)
    while math.gcd(stride, size) > 1:
        stride += 1
    return [
        Scores(s.values[::stride], None if s.first is None else s.first[::stride]) for s in group
    ]


def _interpolated_pivots(
    bracket: _Bracket, counts: tf.Tensor, sizes: tf.Tensor, turn: tf.Tensor
) -> tf.Tensor:
    """Pivots around each cut, near and far, as if scores were evenly spread in its bracket.

    In every fourth turn they divide the keys of the bracket evenly, whatever the scores.

    Returns:
      int64 tensor [groups, pivots], rising.
    """
    inside = tf.cast(tf.maximum(bracket.inside, 1), tf.float64)
    share = tf.cast(bracket.reach_low - counts, tf.float64) / inside
    noise, bend = tf.sqrt(inside), inside * inside / tf.cast(sizes, tf.float64)
    near, far = (0.2 * noise + 0.1 * bend) / inside, (noise + bend) / inside
    shares = share[:, None] + tf.stack([-far, -near, near, far], axis=1)

    low, high = (_scores_of(tf.cast(end, tf.int32)) for end in (bracket.low, bracket.high))
    is_finite = (tf.abs(low) < np.inf) & (tf.abs(high) < np.inf) & (turn % 4 < 3)
    low, high = tf.cast(low, tf.float64)[:, None], tf.cast(high, tf.float64)[:, None]
    by_score = tf.cast(low + shares * (high - low), tf.float32)
    by_score = tf.cast(_keys_of_bits(tf.bitcast(by_score, tf.int32)), tf.int64)

    even = tf.constant([[0.2, 0.4, 0.6, 0.8]], tf.float64)
    width = tf.cast(bracket.high - bracket.low, tf.float64)[:, None]
    by_key = bracket.low[:, None] + tf.cast(even * width, tf.int64)

    pivots = tf.where(is_finite[:, None], by_score, by_key)
    return tf.maximum(tf.minimum(pivots, bracket.high[:, None] - 1), bracket.low[:, None] + 1)


def _reach(keys: tf.Tensor, pivots: tf.Tensor) -> tf.Tensor:
    """How many keys reach each of the pivots, which are int32: int64 tensor like `pivots`."""
    rows = _in_rows(keys, 255, _LOWEST)  # which no pivot is as low as
    shifts = [8 * i for i in range(pivots.shape[0])]  # counts of four fit into an int32 together
    packed = tf.add_n(
        [
            tf.bitwise.left_shift(tf.cast(rows >= pivot, tf.int32), shift)
            for pivot, shift in zip(tf.unstack(pivots), shifts)
        ]
    )
    packed = tf.reduce_sum(packed, axis=1)[:, None]
    counts = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, shifts), 255)
    if keys.shape.num_elements() >= 2**31:
        counts = tf.cast(counts, tf.int64)
    return tf.cast(tf.reduce_sum(counts, axis=0), tf.int64)


def _reach_of_all(
    groups: Sequence[Sequence[Scores]], pivots: tf.Tensor, zero: tf.Tensor
) -> tf.Tensor:
    """How many scores of each group reach its pivots: int64 tensor like `pivots`."""
    pairs = zip(groups, tf.unstack(tf.cast(pivots, tf.int32)))
    return tf.stack(
        [tf.add_n([_reach(s.keys(zero), pivot) for s in group]) for group, pivot in pairs]
    )


def _reach_of_read(keys: tf.Tensor, bracket: _Bracket, pivots: tf.Tensor) -> tf.Tensor:
    """The same by the keys that `_read_out_all` found."""
    keys = tf.cast(keys, tf.int64)[:, None, :]
    is_reached = (keys >= pivots[:, :, None]) & (keys < bracket.high[:, None, None])
    reached = tf.reduce_sum(tf.cast(is_reached, tf.int32), axis=2)
    return bracket.reach_high[:, None] + tf.cast(reached, tf.int64)


def _read_out_all(
    groups: Sequence[Sequence[Scores]], bracket: _Bracket, zero: tf.Tensor
) -> tf.Tensor:
    """The keys inside each bracket, in rows with `_LOWEST` for nothing: int32 [groups, longest].

    Where two share a row their sum stands for them.
    """
    lows, highs = (tf.cast(end, tf.int32) for end in (bracket.low, bracket.high))
    sums = _stack(
        [
            [_read_out(s.keys(zero), low, high) for s in group]
            for group, low, high in zip(groups, tf.unstack(lows), tf.unstack(highs))
        ]
    )
    return tf.where(sums == 0, _LOWEST, sums - 1 + lows[:, None])


def _read_out(keys: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """The sum over each row of `1 + key - low`, of the keys in [low, high): int32."""
    offsets = tf.where((keys >= low) & (keys < high), keys - low + 1, 0)  # may wrap around
    return tf.reduce_sum(_in_rows(offsets, _ROW, 0), axis=1)


def _ends_of_tied(
    groups: Sequence[Sequence[Scores]],
    cuts: Sequence[tf.Tensor],
    bracket: _Bracket,
    counts: tf.Tensor,
) -> tf.Tensor:
    """The index in each group before which scores at the cut stay: int64."""
    sizes = tf.constant([_size(group) for group in groups], tf.int64)
    wanted = counts - bracket.reach_high

    def body(low, high):
        middle = low + (high - low) // 2
        taken = []
        for group, cut, end in zip(groups, cuts, tf.unstack(middle)):
            end = tf.cast(end, _index_type(group))
            pairs = zip((s.keys(_hidden_zero(end)) for s in group), _indices(group))
            taken.append(tf.add_n([count_true((keys == cut) & (i < end)) for keys, i in pairs]))
        is_late = tf.stack(taken) > wanted
        return tf.where(is_late, low, middle), tf.where(is_late, middle, high)

    # The greatest end before which no more than `wanted` are tied. Without a surplus, the last.
    low = tf.where(bracket.reach_low > counts, tf.zeros_like(sizes), sizes)
    low, _ = tf.while_loop(lambda low, high: tf.reduce_any(high - low > 1), body, (low, sizes + 1))
    return low


def _indices(group: Sequence[Scores]) -> list[tf.Tensor]:
    """The index of each score in its group."""
    starts = np.cumsum([0, *(s.size for s in group)])
    of_type = _index_type(group)
    return [tf.range(a, a + s.size, dtype=of_type) for a, s in zip(starts, group)]


def _index_type(group: Sequence[Scores]) -> tf.DType:
    return tf.int32 if _size(group) < 2**31 - 1 else tf.int64


def count_true(mask: tf.Tensor) -> tf.Tensor:
    """int64 number of true entries."""
    return count_true_of_each([mask])[0]


def count_true_of_each(masks: Sequence[tf.Tensor]) -> tf.Tensor:
    """int64 number of true entries of each of some masks.

    Those of one shape are counted together, and in short rows: XLA's CPU compiler makes several
    times as fast a program of that.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, mask in enumerate(masks):
        by_shape.setdefault(tuple(mask.shape), []).append(i)
    counts: dict[int, tf.Tensor] = {}
    for members in by_shape.values():
        flat = tf.stack([tf.reshape(masks[i], [-1]) for i in members])
        rows = tf.reduce_sum(tf.cast(_in_rows(flat, _ROW, False), tf.int32), axis=-1)
        counts.update(zip(members, tf.unstack(tf.reduce_sum(tf.cast(rows, tf.int64), axis=-1))))
    return tf.stack([counts[i] for i in range(len(masks))])


def _keys_of_bits(bits: tf.Tensor) -> tf.Tensor:
    magnitude = tf.bitwise.bitwise_and(bits, _SIGN)
    keys = tf.where(bits < 0, -magnitude, magnitude)
    return tf.where(magnitude > _INFINITY, _LOWEST, keys)


def _scores_of(keys: tf.Tensor) -> tf.Tensor:
    """float32 scores of int32 keys: -inf for that of NaN, +inf for those above that of +inf."""
    bits = tf.where(keys < 0, tf.bitwise.bitwise_or(-keys, _LOWEST), keys)
    scores = tf.where(keys == _LOWEST, -np.inf, tf.bitcast(bits, tf.float32))
    return tf.where(keys > _INFINITY, np.inf, scores)


def _stack(groups: Sequence[Sequence[tf.Tensor]], padding: int | np.int32 = 0) -> tf.Tensor:
    """Tensors of rank 1, those of each group joined to one row: [groups, longest]."""
    rows = [tf.concat(group, axis=0) for group in groups]
    longest = max(row.shape.num_elements() for row in rows)
    return tf.stack(
        [
            tf.pad(row, [[0, longest - row.shape.num_elements()]], constant_values=padding)
            for row in rows
        ]
    )


def _hidden_zero(number: tf.Tensor) -> tf.Tensor:
    """0, of which the compiler does not know: the sign of a number that is not negative."""
    return tf.cast(number < 0, tf.int32)


def _size(group: Sequence[Scores]) -> int:
    return sum(scores.size for scores in group)


def _in_rows(values: tf.Tensor, limit: int, padding: int | np.int32) -> tf.Tensor:
    """The last axis of a tensor in rows of at most `limit`: [..., rows, row]."""
    *others, size = values.shape
    length = _row_length(size, limit)
    if size % length:
        paddings = [[0, 0]] * len(others) + [[0, -size % length]]
        values = tf.pad(values, paddings, constant_values=padding)
    return tf.reshape(values, [*others, -1, length])


def _rows(size: int, limit: int) -> int:
    return math.ceil(size / _row_length(size, limit))


def _row_length(size: int, limit: int) -> int:
    """The greatest divisor of `size` up to a limit, or the limit where all of them are small."""
    divisors = (n for n in range(limit, limit // 4, -1) if size % n == 0)
    return next(divisors, limit)
