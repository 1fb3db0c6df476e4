"""One score to a block, and back to single weights, with gradients."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES, every_mode

from tf_movprune.core.blocks import (
    any_in_blocks,
    block_shape,
    check_blocks,
    expand_blocks,
    mean_blocks,
)

BLOCKS = [((6, 8), (1, 1)), ((6, 8), (3, 1)), ((6, 8), (1, 4)), ((6, 8), (2, 4)), ((6, 8), (6, 8))]


def expanded(blocks, block_size):
    return np.kron(blocks, np.ones(block_size, blocks.dtype))


@pytest.mark.parametrize(
    "shape, block_size, expected",
    [
        ((6, 8), (1, 1), (6, 8)),
        ((3, 3, 4, 8), (1, 1), (3, 3, 4, 8)),
        ((5,), (1, 1), (5,)),
        ((6, 8), (2, 4), (3, 2)),
        ((6, 8), (6, 1), (1, 8)),
        ((6, 8), (1, 8), (6, 1)),
    ],
)
def test_block_shape(shape, block_size, expected):
    assert block_shape(shape, block_size) == expected
    assert block_shape(tf.TensorShape(shape), block_size) == expected


@pytest.mark.parametrize(
    "shape, block_size, fits",
    [
        ((6, 8), (4, 1), (3, 1)),
        ((6, 8), (1, 3), (1, 2)),
        ((6, 8), (12, 8), (6, 8)),
        ((7, 9), (2, 2), (1, 1)),
    ],
)
def test_block_shape_names_what_does_not_fit(shape, block_size, fits):
    with pytest.raises(ValueError) as error:
        block_shape(shape, block_size)
    assert str(error.value).startswith(
        f"block_size {block_size} must divide rows and columns, but does not divide those of a "
        f"kernel {shape}. Blocks{fits} does; or"
    )
    assert block_shape(shape, fits)


@pytest.mark.parametrize("shape", [(2, 6, 8), (3, 3, 6, 8), (6,)])
def test_blocks_are_for_matrices(shape):
    message = r"block_size \(2, 2\) is for matrices, but .* \(.*,.*\).* with a mapping"
    with pytest.raises(ValueError, match=message):
        block_shape(shape, (2, 2))
    assert block_shape(shape, (1, 1)) == shape


def test_all_kernels_that_blocks_do_not_fit_are_named():
    shapes = {"a": (8, 8), "b": (6, 8), "conv": (3, 8, 8), "c": (8, 10), "d": (16, 16)}
    with pytest.raises(ValueError) as error:
        check_blocks(shapes, (4, 8))
    assert str(error.value) == (
        "block_size (4, 8) is for matrices, but of another shape is conv (3, 8, 8). Give blocks to "
        "other layers only, with a mapping of path patterns. block_size (4, 8) must divide rows "
        "and columns, but does not divide those of b (6, 8), c (8, 10). Blocks(2, 2) does; or give "
        "layers block sizes of their own, with a mapping of path patterns."
    )
    check_blocks({name: shapes[name] for name in "ad"}, (4, 8))
    check_blocks(shapes, (1, 1))


def test_kernels_that_blocks_do_not_fit_are_counted_from_the_seventh_on():
    with pytest.raises(ValueError, match=r"5 \(6, 6\), and 12 more\. Blocks\(3, 1\) does"):
        check_blocks({str(i): (6, 6) for i in range(18)}, (4, 1))


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_expand_blocks_and_its_gradient(mode, shape, block_size):
    random = np.random.default_rng(2)
    blocks = random.normal(size=block_shape(shape, block_size)).astype(np.float32)
    upstream = random.integers(-9, 10, shape).astype(np.float32)  # sums are exact

    def value_and_gradient(blocks, upstream):
        with tf.GradientTape() as tape:
            tape.watch(blocks)
            value = expand_blocks(blocks, block_size)
        return value, tape.gradient(value, blocks, output_gradients=upstream)

    found = MODES[mode](value_and_gradient)(tf.constant(blocks), tf.constant(upstream))
    value, gradient = map(np.asarray, found)
    np.testing.assert_array_equal(value, expanded(blocks, block_size))
    sums = np.array(
        [
            [
                upstream[i : i + block_size[0], j : j + block_size[1]].sum()
                for j in range(0, shape[1], block_size[1])
            ]
            for i in range(0, shape[0], block_size[0])
        ]
    )
    np.testing.assert_array_equal(gradient, sums)


def test_expand_blocks_of_a_mask():
    blocks = tf.constant([[True, False], [False, True]])
    mask = expand_blocks(blocks, (1, 2))
    assert mask.numpy().tolist() == [[True, True, False, False], [False, False, True, True]]


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_mean_blocks(mode, shape, block_size):
    blocks = np.random.default_rng(3).normal(size=block_shape(shape, block_size))
    ramp = np.arange(block_size[0] * block_size[1]).reshape(block_size)
    values = expanded(blocks, block_size) + np.kron(np.ones(blocks.shape), ramp - ramp.mean())
    means = MODES[mode](lambda values: mean_blocks(values, block_size))(
        tf.constant(values, tf.float32)
    )
    assert means.dtype == tf.float32
    np.testing.assert_allclose(means, blocks, atol=1e-5)


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_any_in_blocks(mode, shape, block_size):
    values = np.zeros(shape, bool)
    values[:2, 1] = values[-1, -1] = True
    found = MODES[mode](lambda values: any_in_blocks(values, block_size))(tf.constant(values))
    rows, columns = block_shape(shape, block_size)
    blocks = values.reshape(rows, block_size[0], columns, block_size[1])
    np.testing.assert_array_equal(found, blocks.any(axis=(1, 3)))


def test_mean_blocks_of_any_rank_without_blocks():
    values = tf.reshape(tf.range(24.0), [2, 3, 4])
    np.testing.assert_array_equal(mean_blocks(values, (1, 1)), values)
    np.testing.assert_array_equal(expand_blocks(values, (1, 1)), values)
