"""Helpers of the tests of heads and neurons of either Keras."""

import numpy as np
import tensorflow as tf
from shells import kernels

import tf_movprune


def outputs_of(model, inputs):
    outputs = model(inputs, training=False)
    return [np.asarray(x) for x in tf.nest.flatten(getattr(outputs, "logits", outputs))]


def draw_scores(model):
    """Gives random scores to each mask. Returns them, and the masked kernels."""
    masks = kernels(model)
    values = [np.random.RandomState(i).normal(size=mask.size) + i for i, mask in enumerate(masks)]
    for value, mask in zip(values, masks):
        mask.scores.assign(value.astype(np.float32))
    return values, masks


def _loss_of(model, inputs):
    outputs = model(inputs, training=True)
    outputs = tf.nest.flatten(getattr(outputs, "logits", outputs))
    return tf.add_n([tf.reduce_sum(tf.sin(3.0 * tf.convert_to_tensor(x))) for x in outputs])


def _keeps(mask, part):
    """The mask in the shape of a weight."""
    units = np.repeat(mask.mask.numpy(), part.weight.shape[part.axis] // mask.size)
    shape = [-1 if i == part.axis else 1 for i in range(part.weight.shape.rank)]
    return np.broadcast_to(units.reshape(shape), part.weight.shape)


def assert_movement_is_summed(model, inputs, off):
    """Asserts that the gradient of a score is the sum of `dL/dW' W` over all weights of its unit.

    Args:
      model: pruned model without dropout.
      inputs: inputs for it.
      off: units that each mask leaves out.
    """
    tf_movprune.update_masks(model, 0)
    masks = kernels(model)
    for mask in masks:
        mask.mask.assign([i not in off for i in range(mask.size)])
    with tf.GradientTape() as tape:
        loss = _loss_of(model, inputs)
    to_scores = tape.gradient(loss, [mask.scores for mask in masks])

    places = [(mask, part) for mask in masks for part in mask.parts]
    unmasked = [part.weight.numpy() for _, part in places]
    plain = tf_movprune.strip_pruning(model)
    with tf.GradientTape() as tape:  # in a plain model with the same zeros
        loss = _loss_of(plain, inputs)
    slopes = tape.gradient(loss, [part.weight for _, part in places])
    expected = {id(mask): np.zeros(mask.size) for mask in masks}
    for (mask, part), weights, slope in zip(places, unmasked, slopes):
        movement = np.asarray(slope) * weights
        for other, same in places:  # what another mask took does not count
            if other is not mask and same.weight is part.weight:
                movement = movement * _keeps(other, same)
        movement = np.moveaxis(movement, part.axis, 0).reshape(mask.size, -1)
        expected[id(mask)] += movement.sum(axis=1)
        zeros = np.asarray(part.weight) == 0
        np.testing.assert_array_equal(zeros[~_keeps(mask, part)], True)
    for mask, gradient in zip(masks, to_scores):
        np.testing.assert_allclose(gradient, expected[id(mask)], rtol=1e-3, atol=1e-4)
        assert np.abs(gradient).max() > 0.01
