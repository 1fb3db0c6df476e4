"""Masks as pure functions of tensors: exact top-k selection and straight-through masking."""

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
    size = scores.shape.num_elements()
    if size is None:
        raise ValueError(f"scores must have a static shape, got {scores.shape}.")
    return tf.cond(
        count < size,
        lambda: _select_topk(scores, count),
        lambda: (tf.ones(scores.shape, tf.bool), tf.constant(-np.inf, tf.float32)),
    )


def _select_topk(scores: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = scores.shape.num_elements()
    keys = _order_keys(tf.reshape(scores, [-1]))

    # No key is _HIGHEST, so nothing reaches it: those bits are a NaN, which has the lowest key.
    cut = _bisect(
        tf.constant(_LOWEST), tf.constant(_HIGHEST), lambda key: _count(keys >= key) < count
    )
    above = keys > cut
    tied = keys == cut
    wanted = count - _count(above)

    # Of the tied scores the first `wanted` stay. Without a surplus there is nothing to search.
    index_type = np.int32 if size < 2**31 - 1 else np.int64
    index = tf.range(size, dtype=index_type)
    end = _bisect(
        tf.where(_count(tied) > wanted, index_type(0), index_type(size)),
        tf.constant(size + 1, index_type),
        lambda end: _count(tied & (index < end)) > wanted,
    )
    mask = tf.reshape(above | (tied & (index < end)), scores.shape)

    bits = tf.where(cut < 0, tf.bitwise.bitwise_or(-cut, _LOWEST), cut)
    threshold = tf.where(cut == _LOWEST, -np.inf, tf.bitcast(bits, tf.float32))
    return mask, tf.where(count > 0, threshold, np.inf)


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
