"""Conversions between single weights and the blocks, heads or neurons that share a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tf_movprune.core.granularity import Blocks
from tf_movprune.core.wording import listed


def check_blocks(shapes: Mapping[str, tuple[int, ...]], block_size: tuple[int, int]) -> None:
    """Raises ValueError if kernels cannot be cut into blocks, and names all that cannot.

    Args:
      shapes: shapes of the kernels by name.
      block_size: rows and columns of a block.
    """
    if block_size == (1, 1):
        return
    errors = []
    others = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) != 2]
    if others:
        errors.append(
            f"block_size {tuple(block_size)} is for matrices, but of another shape is "
            f"{listed(others)}. Give blocks to other layers only, with a mapping of path patterns."
        )
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    uncut = [
        f"{name} {shape}"
        for name, shape in matrices.items()
        if any(size % block for size, block in zip(shape, block_size))
    ]
    if uncut:
        sizes = (math.gcd(*axis) for axis in zip(*matrices.values()))
        errors.append(
            f"block_size {tuple(block_size)} must divide rows and columns, but does not divide "
            f"those of {listed(uncut)}. {Blocks(*map(_largest_divisor, sizes, block_size))} does; "
            "or give layers block sizes of their own, with a mapping of path patterns."
        )
    if errors:
        raise ValueError(" ".join(errors))


def _largest_divisor(size: int, at_most: int) -> int:
    return next(divisor for divisor in range(at_most, 0, -1) if size % divisor == 0)


def block_shape(shape: tuple[int, ...], block_size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the scores of a kernel: one score for each block.

    Args:
      shape: shape of the kernel, of rank 2 unless `block_size` is (1, 1).
      block_size: rows and columns of a block. They must divide the rows and columns of `shape`.

    Raises:
      ValueError: the kernel cannot be cut into blocks of this size.
    """
    if block_size == (1, 1):
        return tuple(shape)
    check_blocks({"a kernel": tuple(shape)}, block_size)
    return tuple(size // block for size, block in zip(shape, block_size))


def expand_blocks(blocks: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """Repeats each entry over its block; the gradient of an entry is the sum over its block.

    Args:
      blocks: tensor of rank 2, or of any rank if `block_size` is (1, 1).
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
      shape: shape of a variable in which unit follows unit along `axis`, with a whole number of
        entries each.

    Returns:
      Tensor of that shape.
    """
    repeated = tf.repeat(units, shape[axis] // units.shape[0])
    repeated = tf.reshape(repeated, [-1 if i == axis else 1 for i in range(len(shape))])
    return tf.broadcast_to(repeated, shape)


def mean_blocks(values: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """The mean of each block: `[rows, columns] -> [rows / r, columns / c]`."""
    return _reduced(tf.reduce_mean, values, block_size)


def any_in_blocks(values: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
    """Tells whether any bool value in each block is true; shapes are those of `mean_blocks`."""
    return _reduced(tf.reduce_any, values, block_size)


def _reduced(
    reduce: Callable[..., tf.Tensor], values: tf.Tensor, block_size: tuple[int, int]
) -> tf.Tensor:
    if block_size == (1, 1):
        return values
    rows, columns = block_shape(values.shape, block_size)
    blocks = tf.reshape(values, [rows, block_size[0], columns, block_size[1]])
    return reduce(blocks, axis=[1, 3])
