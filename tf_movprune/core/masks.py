"""Masks from scores: exactly the highest ones, within a tensor or over several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_movprune.core.counting import count_true_of_each
from tf_movprune.core.ordered_keys import RankedScores
from tf_movprune.core.topk import select as select_highest


def kept_count(size: int | Sequence[int], sparsity: tf.Tensor) -> tf.Tensor:
    """Number of weights that stay: `floor((1 - sparsity) * size)`.

    The product is computed in float64 with a guard against the rounding error of `sparsity`: a
    sparsity of 0.9 keeps 100 of 1,000 weights although `1 - 0.9` is a little less than 0.1.

    Args:
      size: number of weights, below 2^53, or a sequence of numbers.
      sparsity: float32 or float64 scalar in [0, 1].

    Returns:
      int64 tensor of the shape of `size`, in [0, size].
    """
    sparsity, sizes = tf.convert_to_tensor(sparsity), np.asarray(size, np.int64)
    # A sparsity in [0.5, 1) is off by up to a quarter of its type's epsilon.
    off = np.finfo(sparsity.dtype.as_numpy_dtype).eps / 4 + np.finfo(np.float64).eps
    guard = np.minimum(sizes * float(off), 0.01)
    kept = tf.floor((1.0 - tf.cast(sparsity, tf.float64)) * sizes.astype(np.float64) + guard)
    return tf.clip_by_value(tf.cast(kept, tf.int64), 0, sizes)


def minimum_count(size: int, fraction: float) -> int:
    """The least number of weights that a fraction asks for, rounded down.

    It has the guard of `kept_count`: 0.29 of 100 are 29, although the product is a little less.
    """
    return int(fraction * size + min(2 * size * float(np.finfo(np.float64).eps), 0.01))


def topk_mask(scores: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Marks exactly the `count` highest scores: `topk_masks` of one tensor.

    Args:
      scores: float32 tensor of any static shape; larger means more important. NaN ranks lowest.
      count: int64 scalar in [0, size of scores].

    Returns:
      mask: bool tensor of the shape of `scores`.
      threshold: float32 scalar.
    """
    (mask,), thresholds = _select([[scores]], tf.reshape(count, [1]))
    return mask, thresholds[0]


def topk_masks(scores: Sequence[tf.Tensor], counts: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Marks exactly the highest scores of each of several tensors.

    Ties go to the lower flat index, so the counts are exact even if all scores are equal.
    Selection searches for the cut among order-preserving integer keys: large tensors are not
    sorted, shapes are fixed, and the bits are the same eagerly, in a graph and under XLA.

    Args:
      scores: float32 tensors of static shapes; larger means more important. NaN ranks lowest.
      counts: int64 tensor, the number of scores to mark in each tensor, in [0, its size]. If all
        scores of all tensors are marked, selection is skipped.

    Returns:
      masks: one bool tensor for each of `scores`, of the same shape.
      thresholds: float32 tensor, the lowest score kept in each tensor; -inf if all are kept, +inf
        if none is. Some of the scores equal to it may be masked.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 4.
    """
    _check_static(scores)
    if tf.config.list_physical_devices("GPU"):  # each turn of a loop is a round trip there
        return _select([[tensor] for tensor in scores], counts)
    by_size: dict[int, list[int]] = {}
    for i, tensor in enumerate(scores):
        by_size.setdefault(tensor.shape.num_elements(), []).append(i)
    found: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
    for members in by_size.values():
        rows = [tf.reshape(scores[i], [-1]) for i in members]
        results = _select_each(rows, tf.gather(counts, members))
        found.update(zip(members, zip(*map(tf.unstack, results))))
    masks = [tf.reshape(found[i][0], tensor.shape) for i, tensor in enumerate(scores)]
    return masks, tf.stack([found[i][1] for i in range(len(scores))])


def _select_each(rows: list[tf.Tensor], counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Masks and thresholds of rows of one size, selected one after the other.

    Each row stays in the cache of a CPU, and the compiler sees a single program.
    """

    if len(rows) == 1:
        masks, thresholds = _select([rows], counts)
        return tf.stack(masks), thresholds

    @tf.autograph.experimental.do_not_convert  # as map_fn does otherwise, which eagerly takes long
    def select(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        one = tf.switch_case(i, [lambda row=row: tf.identity(row) for row in rows])
        masks, thresholds = _select([[one]], tf.reshape(counts[i], [1]))
        return masks[0], thresholds[0]

    mask = tf.TensorSpec(rows[0].shape, tf.bool)
    return tf.map_fn(
        select,
        tf.range(len(rows)),
        fn_output_signature=(mask, tf.TensorSpec([], tf.float32)),
        parallel_iterations=1,
    )


def global_topk_masks(
    scores: Sequence[tf.Tensor],
    count: tf.Tensor,
    minimums: Sequence[int] | None = None,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Marks exactly the `count` highest scores of several tensors together.

    The result is that of `topk_mask` on all scores in one row, which is never made. Ties go to the
    earlier tensor.

    Args:
      scores: float32 tensors of static shapes. NaN ranks lowest.
      count: int64 scalar in [0, number of all scores].
      minimums: number of scores of each tensor that stay in any case, its highest ones. Minimums
        count towards `count`. If their sum exceeds it, only the minimums are kept.

    Returns:
      masks: one bool tensor for each of `scores`.
      threshold: float32 scalar, the lowest score that is kept apart from the minimums; -inf if all
        are kept, +inf if none is.
    """
    minimums = minimums or [0] * len(scores)
    masks, thresholds = _select([scores], tf.reshape(count, [1]), minimums)
    return masks, thresholds[0]


def _select(
    groups: Sequence[Sequence[tf.Tensor]],
    counts: tf.Tensor,
    minimums: Sequence[int] = (),
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Masks of all tensors of all groups, and the threshold of each group."""
    scores = [tensor for group in groups for tensor in group]
    _check_static(scores)
    sizes = [sum(tensor.shape.num_elements() for tensor in group) for group in groups]
    minimums = [min(*pair) for pair in zip(minimums, (s.shape.num_elements() for s in scores))]
    counts = tf.maximum(counts, sum(minimums))

    def select() -> tuple[list[tf.Tensor], tf.Tensor]:
        rows = [[RankedScores(tf.reshape(tensor, [-1])) for tensor in group] for group in groups]
        masks, thresholds = select_highest(rows, counts)
        if any(minimums):
            masks, thresholds = tf.cond(
                tf.reduce_any(count_true_of_each(masks[0]) < minimums),
                lambda: select_highest([_reserve(rows[0], minimums)], counts),
                lambda: (masks, thresholds),
            )
        thresholds = tf.where(counts == sizes, -np.inf, thresholds)
        return [mask for group in masks for mask in group], thresholds

    masks, thresholds = tf.cond(
        tf.reduce_any(counts < sizes),
        select,
        lambda: (
            [tf.ones([tensor.shape.num_elements()], tf.bool) for tensor in scores],
            tf.fill([len(sizes)], tf.constant(-np.inf, tf.float32)),
        ),
    )
    return [tf.reshape(mask, tensor.shape) for mask, tensor in zip(masks, scores)], thresholds


def _check_static(scores: Sequence[tf.Tensor]) -> None:
    for tensor in scores:
        if tensor.shape.num_elements() is None:
            raise ValueError(f"scores must have a static shape, got {tensor.shape}.")


def _reserve(rows: list[RankedScores], counts: list[int]) -> list[RankedScores]:
    """The scores, with the `counts` highest of each tensor ranked above all others."""
    first, _ = topk_masks([row.values for row in rows], tf.constant(counts, tf.int64))
    return [RankedScores(row.values, mask) for row, mask in zip(rows, first)]


def threshold_mask(scores: tf.Tensor, threshold: tf.Tensor, minimum: int) -> tf.Tensor:
    """Marks the scores of one tensor as `threshold_masks` does."""
    return threshold_masks([scores], threshold, [minimum])[0]


def threshold_masks(
    scores: Sequence[tf.Tensor], threshold: tf.Tensor, minimums: Sequence[int]
) -> list[tf.Tensor]:
    """Marks the scores whose sigmoid is above a threshold, and never fewer than the `minimums`.

        mask = sigmoid(scores) > threshold

    If that marks too few, the highest scores of the tensor are marked; ties go to the lower index.

    Args:
      scores: float32 tensors of any static shapes.
      threshold: scalar in [0, 1).
      minimums: least number of scores to mark in each tensor, in [0, its size].

    Returns:
      One bool tensor for each of `scores`.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, section 3; the minimum is that of
      the authors' code.
    """
    threshold = tf.cast(threshold, tf.float64)
    cut = tf.cast(tf.math.log(threshold / (1 - threshold)), tf.float32)  # costs less than sigmoids
    masks = [tensor > cut for tensor in scores]
    is_short = count_true_of_each(masks) < minimums

    def complete() -> list[tf.Tensor]:
        least, _ = topk_masks(scores, tf.constant(minimums, tf.int64))
        return [tf.where(short, *pair) for short, *pair in zip(tf.unstack(is_short), least, masks)]

    return tf.cond(tf.reduce_any(is_short), complete, lambda: masks)


def keep_one(mask: tf.Tensor, importance: tf.Tensor) -> tf.Tensor:
    """The mask `[n]`, with its most important entry marked if it is all false."""
    highest = tf.equal(tf.range(mask.shape[0]), tf.argmax(importance, output_type=tf.int32))
    return mask | (highest & ~tf.reduce_any(mask))
