"""Blocks of the matrices that layers of either Keras multiply with, whatever axes kernels have."""

import numpy as np
import pytest
from shells import kernels
from unit_masks import outputs_of

import tf_movprune

SCHEDULE = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=4)
SEQUENCES = np.random.RandomState(1).standard_normal([4, 5, 16]).astype("float32")
MATRICES = {  # equation: output shape, shape of the matrix
    "abc,cde->abde": ([None, 4, 8], (16, 32)),
    "btd,ndh->btnh": ([None, 4, 8], (16, 32)),
    "abc,dc->abd": ([None, 32], (16, 32)),
}


def in_blocks(model, block_size, method=None):
    return tf_movprune.prune_low_movement(model, SCHEDULE, method, block_size=block_size)


@pytest.mark.parametrize("equation", MATRICES)
def test_the_matrix_that_a_layer_multiplies_with_loses_blocks(keras, equation):
    output, (rows, columns) = MATRICES[equation]
    layer = keras.layers.EinsumDense(equation, output)
    identity = np.eye(rows, dtype="float32")[None]
    matrix = np.array(layer(identity)).reshape(rows, columns)
    pruned = in_blocks(layer, (4, 2), tf_movprune.Magnitude())
    tf_movprune.update_masks(pruned, 4)
    (kernel,) = kernels(pruned)
    assert tuple(kernel.mask.shape) == (rows // 4, columns // 2)
    assert np.count_nonzero(kernel.mask) == 16
    means = np.abs(matrix).reshape(rows // 4, 4, columns // 2, 2).mean(axis=(1, 3))
    keeps = np.kron(means >= np.sort(means, axis=None)[-16], np.ones([4, 2]))
    masked = np.array(pruned(identity)).reshape(rows, columns)
    np.testing.assert_array_equal(masked, matrix * keeps)
    plain = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(np.array(plain(identity)).reshape(rows, columns), masked)


def attentive(keras, heads=4, size=8):
    inputs = keras.Input([5, 16])
    attention = keras.layers.MultiHeadAttention(heads, size, name="attention")
    x = keras.layers.Dense(16, "relu", name="up")(attention(inputs, inputs) + inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="output")(x))


def test_attention_is_trained_in_blocks(keras):
    start = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.01))
    model = in_blocks(attentive(keras), (4, 1), start)
    shapes = [tuple(kernel.mask.shape) for kernel in kernels(model)]
    assert shapes == [(4, 32)] * 3 + [(8, 16), (4, 16)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    callbacks = [tf_movprune.UpdatePruningStep()]
    labels = np.arange(20).reshape(4, 5) % 3
    model.fit(SEQUENCES, labels, batch_size=1, callbacks=callbacks, verbose=0)
    left = [np.count_nonzero(kernel.mask) for kernel in kernels(model)]
    assert left == [size // 4 for size in (128, 128, 128, 128, 64)]
    report = tf_movprune.summarize_sparsity(model)
    assert sum(weight.remaining for weight in report.weights) == 4 * sum(left)
    masked = outputs_of(model, SEQUENCES)
    plain = tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(outputs_of(plain, SEQUENCES), masked)


def test_tflite_stores_the_blocks_of_attention(keras, tmp_path):
    schedule = tf_movprune.CubicSparsity(0.9375, begin_step=0, end_step=4)
    model = tf_movprune.prune_low_movement(
        attentive(keras, size=16),
        {"attention*": schedule},
        tf_movprune.Magnitude(),
        block_size=tf_movprune.BLOCKS_FLOAT32,
    )
    tf_movprune.update_masks(model, 4)
    plain = tf_movprune.strip_pruning(model)
    report = tf_movprune.export_tflite(
        plain, tmp_path / "x", quantization=None, sparse_storage="blocks", shrink=False
    )
    stored = [matrix for matrix in report.matrices if matrix.storage == "blocks"]
    assert sorted(matrix.shape for matrix in stored) == [(16, 64)] + [(64, 16)] * 3
    assert {matrix.block_sparsity for matrix in stored} == {0.9375}
    assert report.max_abs_diff < 1e-5


def test_kernels_that_are_no_matrix_are_refused_by_name(keras):
    inputs = keras.Input([4, 8])
    heads = keras.layers.EinsumDense("bnh,nhd->bnd", [4, 6], name="heads")(inputs)
    convolved = keras.layers.Conv1D(6, 3, padding="same", name="convolved")(inputs)
    outputs = keras.layers.Dense(3, name="output")(heads + convolved)
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError) as error:
        in_blocks(model, (2, 2))
    assert "heads.kernel (4, 8, 6)" in str(error.value)
    assert "convolved.kernel (3, 8, 6)" in str(error.value)
    assert not tf_movprune.pruned_layers(model)
    layer = keras.layers.EinsumDense("abc,cde->abde", [None, 4, 3], name="heads")
    layer(np.zeros([1, 2, 8], "float32"))
    with pytest.raises(ValueError, match=r"does not divide those of heads.kernel \(8, 12\)"):
        in_blocks(layer, (5, 1))
