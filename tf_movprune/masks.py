"""Masks as pure functions of tensors: exact selection, gates and straight-through masking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

_LOWEST = np.int32(-(2**31))
_HIGHEST = np.int32(2**31 - 1)
_SIGN = np.int32(2**31 - 1)  # all bits but the sign
_INFINITY = np.int32(0x7F800000)  # the bits of +inf


def kept_count(size: int, sparsity: tf.Tensor) -> tf.Tensor:
    """Number of weights that stay: `floor((1 - sparsity) * size)`.

    Computed in float64, with a guard of the rounding error of `sparsity`, so that a sparsity of
    0.9 keeps 100 of 1,000 weights although `1 - 0.9` is a little less than 0.1.

    Args:
      size: number of weights, below 2^53.
      sparsity: float32 or float64 scalar in [0, 1].

    Returns:
      int64 scalar in [0, size].
    """
    sparsity = tf.convert_to_tensor(sparsity)
    # A sparsity from [0.5, 1) is off by up to a quarter of its type's epsilon.
    off = np.finfo(sparsity.dtype.as_numpy_dtype).eps / 4 + np.finfo(np.float64).eps
    guard = min(size * float(off), 0.01)
    kept = tf.floor((1.0 - tf.cast(sparsity, tf.float64)) * float(size) + guard)
    return tf.clip_by_value(tf.cast(kept, tf.int64), 0, size)


def _order_keys(scores: tf.Tensor) -> tf.Tensor:
    """int32 keys in the order of the float32 `scores`; -0 equals +0, and NaN comes below -inf."""
    bits = tf.bitcast(scores, tf.int32)
    magnitude = tf.bitwise.bitwise_and(bits, _SIGN)
    keys = tf.where(bits < 0, -magnitude, magnitude)
    return tf.where(magnitude > _INFINITY, _LOWEST, keys)


def _count(mask: tf.Tensor) -> tf.Tensor:
    """int64 number of true entries. int32 sums are exact, and cheaper, below 2^31 entries."""
    accumulator = tf.int32 if mask.shape.num_elements() < 2**31 else tf.int64
    return tf.cast(tf.reduce_sum(tf.cast(mask, accumulator)), tf.int64)


def _bisect(low: tf.Tensor, high: tf.Tensor, go_low) -> tf.Tensor:
    """The largest integer of [low, high) at which `go_low` is false; it must be so at `low`.

    A while loop, not 32 unrolled passes: those take XLA half a minute to compile.
    """

    def body(low, high):
        middle = tf.bitwise.bitwise_and(low, high) + tf.bitwise.right_shift(
            tf.bitwise.bitwise_xor(low, high), 1
        )
        too_high = go_low(middle)
        return tf.where(too_high, low, middle), tf.where(too_high, middle, high)

    # `high > low` at the start, so that `high - 1` cannot overflow.
    low, _ = tf.while_loop(lambda low, high: low < high - 1, body, (low, high))
    return low


def topk_mask(scores: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Marks exactly the `count` highest scores.

    Ties go to the lower flat index, so the count is exact even where all scores are equal.
    Selection bisects on an order-preserving integer key: no sort, fixed shapes, and the same bits
    eagerly, in a graph and under XLA.

    Args:
      scores: float32 tensor of any static shape; larger means more important. NaN ranks lowest.
      count: int64 scalar in [0, size of scores]. No selection is done where it is the size.

    Returns:
      mask: bool tensor of the shape of `scores`.
      threshold: float32 scalar, the lowest score that is kept; -inf where all are, +inf where
        none is. Of the scores equal to it some may be masked.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 4.
    """
    (mask,), threshold = global_topk_masks([scores], count)
    return mask, threshold


def global_topk_masks(
    scores: Sequence[tf.Tensor],
    count: tf.Tensor,
    minimums: Sequence[int] | None = None,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Marks exactly the `count` highest scores of several tensors together.

    As `topk_mask` of all scores in one row, which is never made; ties go to the earlier tensor.

    Args:
      scores: float32 tensors of static shapes. NaN ranks lowest.
      count: int64 scalar in [0, number of all scores].
      minimums: scores of each tensor that stay in any case, its highest ones. They count: where
        `count` is less than their sum, just they stay.

    Returns:
      masks: a bool tensor to each of `scores`.
      threshold: float32 scalar, the lowest score that is kept but for the minimums; -inf where
        all are kept, +inf where none is.
    """
    sizes = [tensor.shape.num_elements() for tensor in scores]
    if None in sizes:
        shape = scores[sizes.index(None)].shape
        raise ValueError(f"scores must have a static shape, got {shape}.")
    shapes = [tensor.shape for tensor in scores]
    minimums = [min(m, size) for m, size in zip(minimums or [0] * len(sizes), sizes)]
    count = tf.maximum(count, sum(minimums))

    def select() -> tuple[list[tf.Tensor], tf.Tensor]:
        keys = [_order_keys(tf.reshape(tensor, [-1])) for tensor in scores]
        masks, cut = _select_topk(keys, count)
        if any(minimums):
            kept = [_count(mask) for mask in masks]
            short = tf.reduce_any([k < m for k, m in zip(kept, minimums)])
            masks, cut = tf.cond(
                short,
                lambda: _select_topk(_reserve(keys, minimums), count),
                lambda: (masks, cut),
            )
        return masks, _score_of(cut, count)

    masks, threshold = tf.cond(
        count < sum(sizes),
        select,
        lambda: ([tf.ones([n], tf.bool) for n in sizes], tf.constant(-np.inf, tf.float32)),
    )
    return [tf.reshape(mask, shape) for mask, shape in zip(masks, shapes)], threshold


def _select_topk(keys: list[tf.Tensor], count: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Masks of the `count` highest keys, fewer than all, and the lowest key that is kept."""
    size = sum(k.shape.num_elements() for k in keys)

    def total(marked: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        return tf.add_n([_count(marked(k)) for k in keys])

    # No key is _HIGHEST, so nothing reaches it: those bits are a NaN, which has the lowest key.
    cut = _bisect(
        tf.constant(_LOWEST), tf.constant(_HIGHEST), lambda key: total(lambda k: k >= key) < count
    )
    wanted = count - total(lambda k: k > cut)

    # Of the tied scores the first `wanted` stay. Without a surplus there is nothing to search.
    index_type = np.int32 if size < 2**31 - 1 else np.int64
    starts = np.cumsum([0, *(k.shape.num_elements() for k in keys)]).astype(index_type)
    indices = [tf.range(start, end) for start, end in itertools.pairwise(starts)]

    def tied_before(end: tf.Tensor) -> tf.Tensor:
        return tf.add_n([_count((k == cut) & (i < end)) for k, i in zip(keys, indices)])

    end = _bisect(
        tf.where(total(lambda k: k == cut) > wanted, index_type(0), index_type(size)),
        tf.constant(size + 1, index_type),
        lambda end: tied_before(end) > wanted,
    )
    return [(k > cut) | ((k == cut) & (i < end)) for k, i in zip(keys, indices)], cut


def _reserve(keys: list[tf.Tensor], counts: list[int]) -> list[tf.Tensor]:
    """The keys, where the `counts` highest of each tensor are above all others."""
    reserved = []
    for k, count in zip(keys, counts):
        if count == k.shape.num_elements():
            first = tf.ones(k.shape, tf.bool)
        elif count:
            (first,), _ = _select_topk([k], tf.constant(count, tf.int64))
        else:
            first = tf.zeros(k.shape, tf.bool)
        reserved.append(tf.where(first, _HIGHEST - 1, k))
    return reserved


def _score_of(key: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The float32 score of the lowest key that is kept, of `count`."""
    bits = tf.where(key < 0, tf.bitwise.bitwise_or(-key, _LOWEST), key)
    threshold = tf.where(key == _LOWEST, -np.inf, tf.bitcast(bits, tf.float32))
    return tf.where((count > 0) & (key <= _INFINITY), threshold, np.inf)  # or reserved ones only


def threshold_mask(scores: tf.Tensor, threshold: tf.Tensor, minimum: int) -> tf.Tensor:
    """Marks the scores whose sigmoid is above a threshold, and never fewer than the `minimum`.

        mask = sigmoid(scores) > threshold

    Where that marks too few, the `minimum` highest scores are marked, ties by the lower index.

    Args:
      scores: float32 tensor of any static shape.
      threshold: scalar in [0, 1).
      minimum: number of scores in [0, size of scores].

    Returns:
      bool tensor of the shape of `scores`.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, section 3; the minimum is that of
      the authors' code.
    """
    mask = tf.sigmoid(scores) > tf.cast(threshold, scores.dtype)
    return tf.cond(
        _count(mask) < minimum,
        lambda: topk_mask(scores, tf.constant(minimum, tf.int64))[0],
        lambda: mask,
    )


_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3  # l, r and b of the hard concrete distribution
_NOISE = (1e-4, 0.9999)
GATE_THRESHOLD = float(np.log(-_LOW / _HIGH))
"""The score above which a gate is open, in evaluation."""


def hard_concrete_gate(scores: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Gates in [0, 1] that can be exactly 0 and 1, with the ordinary gradient.

        s    = sigmoid(scores)                                    without a seed
        s    = sigmoid((ln u - ln(1 - u) + scores) / b)           with one; u ~ U(0, 1)
        gate = clip(s * (r - l) + l, 0, 1)                        l, r, b = -0.1, 1.1, 2/3

    Args:
      scores: float32 tensor.
      seed: integer tensor of shape [2]. The same seed gives the same noise in the same program; XLA
        orders it in another way.

    Returns:
      Tensor like `scores`.

    Reference:
      Louizos, Welling & Kingma (2018), https://arxiv.org/abs/1712.01312.
    """
    if seed is not None:
        uniform = tf.random.stateless_uniform(scores.shape, seed, alg="philox")
        uniform = tf.clip_by_value(uniform, *_NOISE)
        scores = (tf.math.log(uniform) - tf.math.log1p(-uniform) + scores) / _TEMPERATURE
    return tf.clip_by_value(tf.sigmoid(scores) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)


def open_gate_probability(scores: tf.Tensor) -> tf.Tensor:
    """Probability that a hard concrete gate is not 0: `sigmoid(scores - b ln(-l / r))`."""
    return tf.sigmoid(scores - _TEMPERATURE * GATE_THRESHOLD)


@tf.custom_gradient
def scale_scores(scores: tf.Tensor, multiplier: float):
    """`multiplier * scores`, with the gradient of the product handed on to `scores` unscaled.

    So the product learns at `multiplier` times the optimizer's rate, whatever the optimizer, and a
    clip over all gradients sees that of the product.
    """
    return multiplier * scores, lambda upstream: (upstream, None)


@tf.custom_gradient
def straight_through(kernel: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor):
    """Masks a kernel; the gradient passes the mask and reaches the scores of all entries.

    forward:   y = mask ? kernel : 0
    backward:  dL/dkernel = mask ? dL/dy : 0
               dL/dscores = dL/dy * kernel, for masked entries too

    Args:
      kernel: floating tensor, in the precision of the computation.
      scores: float32 tensor of the shape of `kernel`. Not read in the forward pass.
      mask: bool tensor of the shape of `kernel`.

    Returns:
      Tensor of the shape and dtype of `kernel`. The gradient of `scores` is computed in float32.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 3 and appendix A.1.
    """

    def gradient(upstream):
        to_scores = tf.cast(upstream, scores.dtype) * tf.cast(kernel, scores.dtype)
        return apply_mask(upstream, mask), to_scores, None

    return apply_mask(kernel, mask), gradient


def apply_mask(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`values` where `mask` is true, and +0 elsewhere, whatever stood there."""
    return tf.where(mask, values, tf.zeros([], values.dtype))


def block_shape(shape: tuple[int, ...], block_size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the scores of a kernel: one score to a block.

    Args:
      shape: shape of the kernel, of rank 2 unless `block_size` is (1, 1).
      block_size: rows and columns of a block. They must divide the rows and columns of `shape`.

    Raises:
      ValueError: the kernel cannot be cut into such blocks.
    """
    if block_size == (1, 1):
        return tuple(shape)
    if len(shape) != 2 or any(size % block for size, block in zip(shape, block_size)):
        raise ValueError(
            f"block_size {block_size} must divide the kernel's rows and columns, but the kernel "
            f"has shape {tuple(shape)}. Use a divisor, or (1, 1)."
        )
    return tuple(size // block for size, block in zip(shape, block_size))


def expand_blocks(blocks: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """Repeats each entry over its block; the gradient of an entry is the sum over its block.

    Args:
      blocks: tensor of rank 2, or of any rank where `block_size` is (1, 1).
      block_size: rows and columns of a block.

    Returns:
      Tensor with `block_size` times the rows and columns.
    """
    if block_size == (1, 1):
        return blocks
    return tf.repeat(tf.repeat(blocks, block_size[0], axis=0), block_size[1], axis=1)


def mean_blocks(values: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """The mean of each block: `[rows, columns] -> [rows / r, columns / c]`."""
    if block_size == (1, 1):
        return values
    rows, columns = block_shape(values.shape, block_size)
    blocks = tf.reshape(values, [rows, block_size[0], columns, block_size[1]])
    return tf.reduce_mean(blocks, axis=[1, 3])
