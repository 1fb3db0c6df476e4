"""The state of the optimizer of `create_optimizer` as lists of arrays, as tf_keras has it."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

OPTIMIZERS = {
    "adam": lambda: tf_movprune.create_optimizer(0.05, 12, 2, weight_decay=0.1),
    "sgd": lambda: tf_movprune.create_optimizer(
        0.05, 12, 2, weight_decay=0.1, score_optimizer=keras.optimizers.SGD(2.0, momentum=0.5)
    ),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def variables():
    names = ["dense/kernel/movement_scores", "dense/kernel", "dense/bias"]
    return [tf.Variable(tf.ones([3]), name=name) for name in names]


def numpy_of(variables):
    return [variable.numpy() for variable in variables]


def train(optimizer, variables):
    for scale in (0.1, 1.0, 3.0):
        optimizer.apply_gradients([(scale * tf.range(3.0), v) for v in variables])


@every_optimizer
def test_set_weights_takes_what_variables_gives(make):
    optimizer, ours = make(), variables()
    train(optimizer, ours)
    restored, theirs = make(), variables()
    restored.build(theirs)
    restored.set_weights(numpy_of(optimizer.variables))
    for variable, value in zip(theirs, ours):
        variable.assign(value)
    for each, some in ((optimizer, ours), (restored, theirs)):
        train(each, some)
    for found, expected in ((restored.variables, optimizer.variables), (theirs, ours)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(optimizer.variables()) == len(optimizer.variables)  # Keras allows both


@every_optimizer
def test_set_weights_refuses_what_does_not_fit(make):
    optimizer = make()
    with pytest.raises(ValueError):
        optimizer.set_weights([np.zeros(3)] * 9)  # not built
    optimizer.build(variables())
    weights = numpy_of(optimizer.variables)
    with pytest.raises(ValueError):
        optimizer.set_weights(weights[:-1])
    with pytest.raises(ValueError):
        optimizer.set_weights([*weights[:-1], np.zeros((7, 7))])
