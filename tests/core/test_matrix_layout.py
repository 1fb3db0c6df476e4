"""The matrix of a kernel of several axes."""

import numpy as np
import pytest
import tensorflow as tf
from records import kernel_of, weight

import tf_movprune
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.matrix_layout import PLAIN, MatrixLayout, einsum_layout

LAYOUTS = {  # equation: shape of the kernel, its layout
    "ab,bc->ac": ((3, 4), PLAIN),
    "...x,xy->...y": ((3, 4), PLAIN),
    "ab,cb->ac": ((4, 3), MatrixLayout((1,), (0,))),
    "abc,cde->abde": ((3, 2, 4), MatrixLayout((0,), (1, 2))),  # queries of Keras's attention
    "btd,ndh->btnh": ((2, 3, 4), MatrixLayout((1,), (0, 2))),  # those of Gemma's
    "btnh,nhd->btd": ((2, 3, 4), MatrixLayout((0, 1), (2,))),
    "bhnt,nhd->btd": ((2, 3, 4), MatrixLayout((1, 0), (2,))),
    "abc,cde->abed": ((3, 2, 4), MatrixLayout((0,), (2, 1))),
}


@pytest.mark.parametrize("equation", LAYOUTS)
def test_layers_multiply_with_the_matrix(equation):
    shape, expected = LAYOUTS[equation]
    layout = einsum_layout(equation)
    assert layout == expected
    kernel = np.random.RandomState(0).standard_normal(shape)
    matrix = layout.to_matrix(tf.constant(kernel)).numpy()
    assert matrix.shape == layout.shape(shape)
    np.testing.assert_array_equal(layout.to_kernel(tf.constant(matrix), shape), kernel)

    operands, output = equation.replace("...", "").split("->")
    inputs = operands.split(",")[0]
    sizes = dict(zip(operands.split(",")[1], shape))
    x = np.random.RandomState(1).standard_normal([sizes.get(label, 2) for label in inputs])
    rows = [inputs.index(label) for label in inputs if label in sizes]
    flat = np.moveaxis(x, rows, range(-len(rows), 0)).reshape(-1, len(matrix)) @ matrix
    plain = np.einsum(f"{operands}->{output}", x, kernel)
    columns = [output.index(label) for label in output if label in sizes]
    plain = np.moveaxis(plain, columns, range(-len(columns), 0)).reshape(flat.shape)
    np.testing.assert_allclose(flat, plain, rtol=1e-10)


@pytest.mark.parametrize("equation", ["bnh,nhd->bnd", "ab,b->ab", "ab,bcd->ac"])
def test_several_matrices_have_no_layout(equation):
    assert einsum_layout(equation) is None


def test_blocks_of_a_kernel_of_three_axes_are_those_of_its_matrix():
    layout = einsum_layout("btd,ndh->btnh")
    part = Part.in_blocks(weight(2, 6, 4), layout, (3, 2))
    assert part.covered_shape == (6, 8)
    kernel = kernel_of([part], (2, 4), tf_movprune.Magnitude(), block_size=(3, 2))
    matrix = part.weight.numpy().transpose(1, 0, 2).reshape(6, 8)
    np.testing.assert_array_equal(kernel.weights(), matrix)
    means = np.abs(matrix).reshape(2, 3, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(kernel.importance(), means, rtol=1e-6)
    kernel.mask.assign(np.arange(8).reshape(2, 4) % 3 > 0)
    masked = kernel.masked(part, tf.convert_to_tensor(part.weight), training=False)
    expected = matrix * np.kron(kernel.mask.numpy(), np.ones([3, 2]))
    np.testing.assert_array_equal(masked, expected.reshape(6, 2, 4).transpose(1, 0, 2))


def test_single_weights_and_plain_matrices_are_masked_as_they_are():
    assert Part.in_blocks(weight(2, 6, 4), MatrixLayout((1,), (0, 2)), (1, 1)).layout is None
    assert Part.in_blocks(weight(6, 4), PLAIN, (2, 1)).layout is None
