"""The exact cut between the highest scores and the rest, without sorting more than a few.

Each pass over the scores counts how many reach four pivots. The first pivots come from a sorted
sample, the next from interpolation, and after three or four passes a bracket of a few scores is
left. A last pass reads those out, one to a row. These steps of one search make sense together only,
so they stay in one module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core.counting import ROW, count_true, in_rows, row_count
from tf_movprune.core.ordered_keys import LOWEST, NONE, RankedScores, keys_of_bits, scores_of_keys

_SORTED = 2048  # largest group that is sorted, which takes a compiler less time


def select(
    groups: Sequence[Sequence[RankedScores]], counts: tf.Tensor
) -> tuple[list[list[tf.Tensor]], tf.Tensor]:
    """Marks the `counts` highest scores of each group; ties go to the earlier ones.

    Args:
      groups: lists of scores that are selected together.
      counts: int64 tensor, one number for each group, in [0, its size].

    Returns:
      masks: bool tensors like the scores of the `groups`.
      thresholds: float32 tensor, the lowest score kept in each group; +inf if none is kept, or only
        first ones are. It has no meaning if all are kept.
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
    return masks, scores_of_keys(lowest)


def _select_sorted(
    groups: Sequence[Sequence[RankedScores]], counts: tf.Tensor
) -> tuple[list[list[tf.Tensor]], tf.Tensor]:
    """Sort-based `select` for small groups."""
    keys = _stack([[s.keys() for s in group] for group in groups], LOWEST)
    order = tf.argsort(keys, axis=1, direction="DESCENDING", stable=True)
    chosen = tf.argsort(order, axis=1) < tf.cast(counts, tf.int32)[:, None]
    lowest = tf.reduce_min(tf.where(chosen, keys, NONE), axis=1)
    masks = [
        tf.split(row[: _size(group)], [s.size for s in group])
        for row, group in zip(tf.unstack(chosen), groups)
    ]
    return masks, scores_of_keys(lowest)


class _Bracket(NamedTuple):
    """Two int64 keys for each group: enough scores reach the low one, too few the high one."""

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
        """Narrows by pivots and the number of scores that reach each: int64 [groups, pivots]."""
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


def _find_cuts(
    groups: Sequence[Sequence[RankedScores]], counts: tf.Tensor
) -> tuple[_Bracket, tf.Tensor]:
    """Brackets whose low ends are the cuts, and the lowest keys that reach them.

    Exactly `counts` scores reach the cut, unless more are tied there; then the bracket is closed.
    """
    sizes = tf.constant([_size(group) for group in groups], tf.int64)
    whole = _Bracket(
        tf.fill(sizes.shape, tf.constant(LOWEST, tf.int64)),
        tf.fill(sizes.shape, tf.constant(NONE, tf.int64)),
        sizes,
        tf.zeros_like(sizes),
    )
    # Groups that keep all or none need no search.
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
        found = tf.reduce_sum(tf.cast(keys > LOWEST, tf.int32), axis=1)
        is_complete = ~bracket.is_open | (tf.cast(found, tf.int64) == bracket.inside)
        # If two of the few share a row, the search goes on until one is left.
        return bracket, turn + 1, tf.ones_like(few), tf.reduce_all(is_complete), keys

    def body(bracket, turn, few, is_read, keys):
        state = bracket, turn, few, is_read, keys
        is_few = tf.reduce_all(~bracket.is_open | (bracket.inside <= few))
        return tf.cond(is_few & ~is_read, lambda: read_out(*state), lambda: narrow(*state))

    few = tf.constant([int(math.sqrt(_size(g) / ROW) / 2) + 1 for g in groups], tf.int64)
    longest = max(sum(row_count(s.size, ROW) for s in group) for group in groups)
    nothing = tf.fill([len(groups), longest], LOWEST)
    bracket, _, _, _, keys = tf.while_loop(
        lambda bracket, turn, few, is_read, keys: tf.reduce_any(
            bracket.is_open & (~is_read | (bracket.reach_low > counts))
        ),
        body,
        (whole, tf.constant(0), few, tf.constant(False), nothing),
    )
    cuts = tf.cast(bracket.low, tf.int32)
    lowest = tf.reduce_min(tf.where(keys >= cuts[:, None], keys, NONE), axis=1)
    return bracket, tf.where(bracket.is_open, lowest, cuts)


def _sampled_pivots(groups: Sequence[Sequence[RankedScores]], counts: tf.Tensor) -> tf.Tensor:
    """Pivots near and far around each cut, from a sample of each group: int64 [groups, pivots]."""
    samples = [_sample(group) for group in groups]
    sizes = [sum(s.size for s in group) for group in samples]
    rows = tf.sort(_stack([[s.keys() for s in group] for group in samples], LOWEST), axis=1)
    rows = tf.pad(rows, [[0, 0], [0, 1]], constant_values=NONE - 1)

    size = tf.constant(sizes, tf.float64)
    share = tf.cast(counts, tf.float64) / [float(_size(group)) for group in groups]
    deviation = tf.sqrt(size * share * (1 - share))
    distances = tf.constant([4.0, 0.7, -0.7, -4.0], tf.float64)
    ranks = tf.round((size * share)[:, None] + deviation[:, None] * distances + tf.sign(distances))
    ranks = tf.clip_by_value(ranks, 0, size[:, None])
    # These are the keys of a sample that `ranks` of its keys reach.
    keys = tf.gather(rows, max(sizes) - tf.cast(ranks, tf.int32), batch_dims=1)
    return tf.cast(keys, tf.int64) + tf.constant([0, 0, 1, 1], tf.int64)


def _sample(group: Sequence[RankedScores]) -> list[RankedScores]:
    """A sample of about the root of a group's size, at a stride out of step with its columns.

    Sorting more scores would cost more than the pass that they save.
    """
    size = _size(group)
    stride = math.isqrt(size)
    while math.gcd(stride, size) > 1:
        stride += 1
    return [
        RankedScores(s.values[::stride], None if s.first is None else s.first[::stride])
        for s in group
    ]


def _interpolated_pivots(
    bracket: _Bracket, counts: tf.Tensor, sizes: tf.Tensor, turn: tf.Tensor
) -> tf.Tensor:
    """Pivots near and far around each cut, as if scores were evenly spread in its bracket.

    Every fourth turn divides the keys of the bracket evenly, whatever the scores.

    Returns:
      int64 tensor [groups, pivots], rising.
    """
    inside = tf.cast(tf.maximum(bracket.inside, 1), tf.float64)
    share = tf.cast(bracket.reach_low - counts, tf.float64) / inside
    noise, bend = tf.sqrt(inside), inside * inside / tf.cast(sizes, tf.float64)
    near, far = (0.2 * noise + 0.1 * bend) / inside, (noise + bend) / inside
    shares = share[:, None] + tf.stack([-far, -near, near, far], axis=1)

    low, high = (scores_of_keys(tf.cast(end, tf.int32)) for end in (bracket.low, bracket.high))
    is_finite = (tf.abs(low) < np.inf) & (tf.abs(high) < np.inf) & (turn % 4 < 3)
    low, high = tf.cast(low, tf.float64)[:, None], tf.cast(high, tf.float64)[:, None]
    by_score = tf.cast(low + shares * (high - low), tf.float32)
    by_score = tf.cast(keys_of_bits(tf.bitcast(by_score, tf.int32)), tf.int64)

    even = tf.constant([[0.2, 0.4, 0.6, 0.8]], tf.float64)
    width = tf.cast(bracket.high - bracket.low, tf.float64)[:, None]
    by_key = bracket.low[:, None] + tf.cast(even * width, tf.int64)

    pivots = tf.where(is_finite[:, None], by_score, by_key)
    return tf.maximum(tf.minimum(pivots, bracket.high[:, None] - 1), bracket.low[:, None] + 1)


def _reach(keys: tf.Tensor, pivots: tf.Tensor) -> tf.Tensor:
    """Number of keys that reach each of the int32 `pivots`: int64 tensor of their shape."""
    rows = in_rows(keys, 255, LOWEST)  # padding lies below every pivot
    shifts = [8 * i for i in range(pivots.shape[0])]  # four counts fit into one int32
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
    groups: Sequence[Sequence[RankedScores]], pivots: tf.Tensor, zero: tf.Tensor
) -> tf.Tensor:
    """Number of scores of each group that reach its pivots: int64 tensor like `pivots`."""
    pairs = zip(groups, tf.unstack(tf.cast(pivots, tf.int32)))
    return tf.stack(
        [tf.add_n([_reach(s.keys(zero), pivot) for s in group]) for group, pivot in pairs]
    )


def _reach_of_read(keys: tf.Tensor, bracket: _Bracket, pivots: tf.Tensor) -> tf.Tensor:
    """Result of `_reach_of_all`, from the keys that `_read_out_all` found."""
    keys = tf.cast(keys, tf.int64)[:, None, :]
    is_reached = (keys >= pivots[:, :, None]) & (keys < bracket.high[:, None, None])
    reached = tf.reduce_sum(tf.cast(is_reached, tf.int32), axis=2)
    return bracket.reach_high[:, None] + tf.cast(reached, tf.int64)


def _read_out_all(
    groups: Sequence[Sequence[RankedScores]], bracket: _Bracket, zero: tf.Tensor
) -> tf.Tensor:
    """The key inside the bracket for each row, or `LOWEST` for none: int32 [groups, longest].

    If several keys share a row, their sum stands for them.
    """
    lows, highs = (tf.cast(end, tf.int32) for end in (bracket.low, bracket.high))
    sums = _stack(
        [
            [_read_out(s.keys(zero), low, high) for s in group]
            for group, low, high in zip(groups, tf.unstack(lows), tf.unstack(highs))
        ]
    )
    return tf.where(sums == 0, LOWEST, sums - 1 + lows[:, None])


def _read_out(keys: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Row sums of `1 + key - low` over the keys in [low, high): int32."""
    offsets = tf.where((keys >= low) & (keys < high), keys - low + 1, 0)  # may wrap around
    return tf.reduce_sum(in_rows(offsets, ROW, 0), axis=1)


def _ends_of_tied(
    groups: Sequence[Sequence[RankedScores]],
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

    # The search finds the greatest end before which at most `wanted` are tied; without a surplus,
    # it is the last one.
    low = tf.where(bracket.reach_low > counts, tf.zeros_like(sizes), sizes)
    low, _ = tf.while_loop(lambda low, high: tf.reduce_any(high - low > 1), body, (low, sizes + 1))
    return low


def _indices(group: Sequence[RankedScores]) -> list[tf.Tensor]:
    """The index of each score in its group."""
    starts = np.cumsum([0, *(s.size for s in group)])
    of_type = _index_type(group)
    return [tf.range(a, a + s.size, dtype=of_type) for a, s in zip(starts, group)]


def _index_type(group: Sequence[RankedScores]) -> tf.DType:
    return tf.int32 if _size(group) < 2**31 - 1 else tf.int64


def _stack(groups: Sequence[Sequence[tf.Tensor]], padding: int | np.int32 = 0) -> tf.Tensor:
    """Joins the rank-1 tensors of each group to one padded row: [groups, longest]."""
    rows = [tf.concat(group, axis=0) for group in groups]
    longest = max(row.shape.num_elements() for row in rows)
    return tf.stack(
        [
            tf.pad(row, [[0, longest - row.shape.num_elements()]], constant_values=padding)
            for row in rows
        ]
    )


def _hidden_zero(number: tf.Tensor) -> tf.Tensor:
    """A 0 that the compiler does not know: the sign of a number that is not negative."""
    return tf.cast(number < 0, tf.int32)


def _size(group: Sequence[RankedScores]) -> int:
    return sum(scores.size for scores in group)
