"""Masks as pure functions of tensors: exact selection, gates and straight-through masking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_movprune.core import topk


def kept_count(size: int | Sequence[int], sparsity: tf.Tensor) -> tf.Tensor:
    """Number of weights that stay: `floor((1 - sparsity) * size)`.

    Computed in float64, with a guard of the rounding error of `sparsity`, so that a sparsity of
    0.9 keeps 100 of 1,000 weights although `1 - 0.9` is a little less than 0.1.

    Args:
      size: number of weights, below 2^53, or several such numbers.
      sparsity: float32 or float64 scalar in [0, 1].

    Returns:
      int64 tensor of the shape of `size`, in [0, size].
    """
    sparsity, sizes = tf.convert_to_tensor(sparsity), np.asarray(size, np.int64)
    # A sparsity from [0.5, 1) is off by up to a quarter of its type's epsilon.
    off = np.finfo(sparsity.dtype.as_numpy_dtype).eps / 4 + np.finfo(np.float64).eps
    guard = np.minimum(sizes * float(off), 0.01)
    kept = tf.floor((1.0 - tf.cast(sparsity, tf.float64)) * sizes.astype(np.float64) + guard)
    return tf.clip_by_value(tf.cast(kept, tf.int64), 0, sizes)


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

    Ties go to the lower flat index, so the counts are exact even where all scores are equal.
    Selection searches for the cut among order-preserving integer keys: large tensors are not
    sorted, shapes are fixed, and the bits are the same eagerly, in a graph and under XLA.

    Args:
      scores: float32 tensors of static shapes; larger means more important. NaN ranks lowest.
      counts: int64 tensor, how many to mark of each tensor, in [0, its size]. No selection is done
        where all are marked of all.

    Returns:
      masks: a bool tensor of the shape of each of `scores`.
      thresholds: float32 tensor, the lowest score of each that is kept; -inf where all are, +inf
        where none is. Of the scores equal to it some may be masked.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 4.
    """
    _check_static(scores)
    if tf.config.list_physical_devices("GPU"):  # where each turn of a loop is a round trip
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
    """Masks and thresholds of rows of one size, of one after the other.

    So each stays in the cache of a CPU, and the compiler sees but one program.
    """

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
        rows = [[topk.Scores(tf.reshape(tensor, [-1])) for tensor in group] for group in groups]
        masks, thresholds = topk.select(rows, counts)
        if any(minimums):
            masks, thresholds = tf.cond(
                tf.reduce_any(topk.count_true_of_each(masks[0]) < minimums),
                lambda: topk.select([_reserve(rows[0], minimums)], counts),
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


def _reserve(rows: list[topk.Scores], counts: list[int]) -> list[topk.Scores]:
    """The scores, where the `counts` highest of each tensor rank above all others."""
    first, _ = topk_masks([row.values for row in rows], tf.constant(counts, tf.int64))
    return [topk.Scores(row.values, mask) for row, mask in zip(rows, first)]


def threshold_mask(scores: tf.Tensor, threshold: tf.Tensor, minimum: int) -> tf.Tensor:
    """`threshold_masks` of one tensor."""
    return threshold_masks([scores], threshold, [minimum])[0]


def threshold_masks(
    scores: Sequence[tf.Tensor], threshold: tf.Tensor, minimums: Sequence[int]
) -> list[tf.Tensor]:
    """Marks the scores whose sigmoid is above a threshold, and never fewer than the `minimums`.

        mask = sigmoid(scores) > threshold

    Where that marks too few, the highest scores of the tensor are marked, ties by the lower index.

    Args:
      scores: float32 tensors of any static shapes.
      threshold: scalar in [0, 1).
      minimums: number of scores of each tensor, in [0, its size].

    Returns:
      A bool tensor to each of `scores`.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, section 3; the minimum is that of
      the authors' code.
    """
    threshold = tf.cast(threshold, tf.float64)
    cut = tf.cast(tf.math.log(threshold / (1 - threshold)), tf.float32)  # costs less than sigmoids
    masks = [tensor > cut for tensor in scores]
    is_short = topk.count_true_of_each(masks) < minimums

    def complete() -> list[tf.Tensor]:
        least, _ = topk_masks(scores, tf.constant(minimums, tf.int64))
        return [tf.where(short, *pair) for short, *pair in zip(tf.unstack(is_short), least, masks)]

    return tf.cond(tf.reduce_any(is_short), complete, lambda: masks)


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


def expand_units(units: tf.Tensor, shape: Sequence[int], axis: int) -> tf.Tensor:
    """Repeats each entry over its unit; the gradient of an entry is the sum over its unit.

    Args:
      units: tensor `[units]`.
      shape: of a variable in which unit follows unit along `axis`, a whole number of entries each.

    Returns:
      Tensor of that shape.
    """
    repeated = tf.repeat(units, shape[axis] // units.shape[0])
    repeated = tf.reshape(repeated, [-1 if i == axis else 1 for i in range(len(shape))])
    return tf.broadcast_to(repeated, shape)


def keep_one(mask: tf.Tensor, importance: tf.Tensor) -> tf.Tensor:
    """The mask `[n]`; where it is all false, with its most important entry."""
    highest = tf.equal(tf.range(mask.shape[0]), tf.argmax(importance, output_type=tf.int32))
    return mask | (highest & ~tf.reduce_any(mask))


def mean_blocks(values: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """The mean of each block: `[rows, columns] -> [rows / r, columns / c]`."""
    if block_size == (1, 1):
        return values
    rows, columns = block_shape(values.shape, block_size)
    blocks = tf.reshape(values, [rows, block_size[0], columns, block_size[1]])
    return tf.reduce_mean(blocks, axis=[1, 3])
