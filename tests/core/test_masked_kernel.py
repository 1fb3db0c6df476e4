"""The record of a masked kernel, without any layer: of one part, and of several."""

import numpy as np
import tensorflow as tf
from records import kernel_of, weight

import tf_movprune
from tf_movprune.core.granularity import HEADS
from tf_movprune.core.masked_kernel import Part, each_once, overall_sparsity, remaining
from tf_movprune.core.masked_kernel import masked_parts as weights_of
from tf_movprune.core.refresh import refresh_masks


def test_refresh_knows_no_layer():
    kernels = [
        kernel_of([Part(weight(8, 4))], (8, 4)),
        kernel_of([Part(weight(2, 2, 4))], (2, 2, 4)),
    ]
    assert bool(refresh_masks(kernels, tf.constant(4, tf.int64)))
    for kernel in kernels:
        kept = np.sort(kernel.scores.numpy().ravel())[-kernel.size // 4 :]
        np.testing.assert_array_equal(kernel.mask, kernel.scores.numpy() >= kept[0])
        assert float(kernel.threshold) == kept[0]
    assert float(overall_sparsity(kernels)) == 0.75


def test_masked_part_and_its_gradients():
    kernel = kernel_of([Part(weight(4, 6))], (2, 6), block_size=(2, 1))
    kernel.mask.assign(np.arange(12).reshape(2, 6) % 3 > 0)
    (part,) = kernel.parts
    with tf.GradientTape() as tape:
        masked = kernel.masked(part, tf.convert_to_tensor(part.weight), training=True)
        loss = tf.reduce_sum(masked**2)
    to_weight, to_scores = tape.gradient(loss, [part.weight, kernel.scores])
    values, mask = part.weight.numpy(), np.repeat(kernel.mask.numpy(), 2, axis=0)
    np.testing.assert_array_equal(masked, np.where(mask, values, 0))
    np.testing.assert_allclose(to_weight, np.where(mask, 2 * values, 0), rtol=1e-6)
    movement = (2 * np.where(mask, values, 0) * values).reshape(2, 2, 6).sum(axis=1)
    np.testing.assert_allclose(to_scores, movement, rtol=1e-5, atol=1e-6)


def test_weights_of_units_are_rows_over_all_parts():
    query, bias, output = weight(5, 6), weight(6), weight(6, 5)
    parts = [Part(query, 1), Part(bias, 0, is_bias=True), Part(output, 0)]
    kernel = kernel_of(parts, (3,), tf_movprune.Magnitude(), block_size=HEADS)
    rows = [
        query.numpy().reshape(5, 3, 2).transpose(1, 2, 0).reshape(3, -1),
        bias.numpy().reshape(3, 2),
        output.numpy().reshape(3, 10),
    ]
    np.testing.assert_array_equal(kernel.weights(), np.concatenate(rows, axis=1))
    assert kernel.block_size == (1, 10 + 2 + 10)
    expected = np.abs(np.concatenate(rows, axis=1)).mean(axis=1)
    np.testing.assert_allclose(kernel.importance(), expected, rtol=1e-6)
    kernel.mask.assign([True, False, True])
    masked = kernel.masked(parts[0], tf.convert_to_tensor(query), training=False)
    np.testing.assert_array_equal(masked, query.numpy() * [1, 1, 0, 0, 1, 1])


def test_weights_that_two_kernels_mask_count_once():
    first, between, last = weight(3, 4), weight(4, 8), weight(8, 2)
    rows = kernel_of([Part(first, 1), Part(between, 0)], (4,), block_size=HEADS)
    columns = kernel_of([Part(between, 1), Part(last, 0)], (8,), block_size=HEADS)
    rows.mask.assign([True, False, True, True])
    columns.mask.assign(np.arange(8) < 2)
    weights = weights_of([rows, columns])
    assert [w.shape.num_elements() for w, _ in weights] == [12, 32, 16]
    assert [int(count) for count in remaining(weights)] == [9, 3 * 2, 4]
    assert float(overall_sparsity([rows, columns])) == np.float32(1 - 19 / 60)


def test_masks_of_one_weight_that_overlap_are_multiplied_out():
    tied = weight(4, 4)
    first, second = kernel_of([Part(tied)], (4, 4)), kernel_of([Part(tied)], (4, 4))
    first.mask.assign(np.arange(16).reshape(4, 4) < 8)
    second.mask.assign(np.arange(16).reshape(4, 4) >= 6)
    ((_, masked_by),) = weights = weights_of([first, second])
    assert len(masked_by) == 2
    assert [int(count) for count in remaining(weights)] == [2]
    assert float(overall_sparsity([first, second])) == 1 - 2 / 16


def test_masks_along_one_axis_of_a_weight_are_multiplied_out():
    shared = weight(3, 8)
    kernels = [kernel_of([Part(shared, 1)], (8,), block_size=HEADS) for _ in range(2)]
    kernels[0].mask.assign(np.arange(8) < 5)
    kernels[1].mask.assign(np.arange(8) >= 3)
    assert [int(count) for count in remaining(weights_of(kernels))] == [3 * 2]


def test_kernels_that_layers_share_are_taken_once():
    first, second = (kernel_of([Part(weight(4, 4))], (4, 4)) for _ in range(2))
    assert each_once([second, first, second]) == [second, first]


def test_biases_are_masked_and_not_counted():
    kernel = kernel_of([Part(weight(3, 4), 1), Part(weight(4), 0, is_bias=True)], (4,))
    assert len(weights_of([kernel])) == 1
