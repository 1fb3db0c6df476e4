"""How much masks agree with magnitude."""

import numpy as np
import pytest
from records import kernel_of, matrix, weight

import tf_movprune
from tf_movprune.core.granularity import HEADS, Blocks
from tf_movprune.core.magnitude_agreement import is_compared, kept_by_both, magnitudes
from tf_movprune.core.masked_kernel import Part


@pytest.mark.parametrize(
    "magnitude, mask, expected",
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 2),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0),
        ([1, 2, 3, 4], [1, 0, 0, 1], 1),
        ([1, 2, 3, 4], [1, 1, 1, 1], 4),
        ([1, 2, 3, 4], [0, 0, 0, 0], 0),
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.25),  # any of the four could have stayed
        ([5, 1, 1, 0], [1, 1, 0, 0], 1.5),
    ],
)
def test_kept_by_both(magnitude, mask, expected):
    mask = np.array(mask, bool).reshape(2, 2)
    assert kept_by_both(mask, np.float32(magnitude).reshape(2, 2)) == expected


def test_magnitudes_of_weights_blocks_and_units():
    kernel = matrix(4, 6)
    values = np.abs(kernel.parts[0].weight.numpy())
    np.testing.assert_array_equal(magnitudes(kernel), values)
    blocks = kernel_of(
        [Part.in_blocks(weight(4, 6), None, (2, 3))], (2, 2), block_size=Blocks(2, 3)
    )
    values = np.abs(blocks.parts[0].weight.numpy())
    means = values.reshape(2, 2, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(magnitudes(blocks), means, rtol=1e-6)
    heads = kernel_of([Part(weight(4, 6), 1), Part(weight(6, 5), 0)], (2,), block_size=HEADS)
    before, after = (np.abs(part.weight.numpy()) for part in heads.parts)
    rows = [np.append(before[:, s], after[s]) for s in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(magnitudes(heads), np.mean(rows, axis=1), rtol=1e-6)


def test_which_methods_are_compared():
    assert is_compared(matrix(2, 2)) and is_compared(
        matrix(2, 2, method=tf_movprune.L0(), schedule=None)
    )
    assert not is_compared(matrix(2, 2, method=tf_movprune.Magnitude()))
    assert not is_compared(matrix(2, 2, method=tf_movprune.KeepZeros(), schedule=None))
