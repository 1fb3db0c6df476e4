"""First values of scores, and the scale on which a variable holds them."""

import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from modes import MODES, every_mode

import tf_movprune
from tf_movprune.core.scores import ScoreScale, initial_scores, is_scores

KERNEL = np.random.RandomState(0).standard_normal([4, 6]).astype(np.float32)


def start(initializer, shape=(4, 6), block_size=(1, 1)):
    kernel = tf.constant(KERNEL)
    return initial_scores(initializer, shape, lambda: kernel, block_size, keras.initializers.get)


@pytest.mark.parametrize("suffix", ["", ":0", "/replica_1:0"])
def test_scores_are_known_by_their_name(suffix):
    names = ["kernel/movement_scores", "movement_scores", "movement_scores/mask", "my_scores"]
    variables = [types.SimpleNamespace(name=name + suffix) for name in names]
    assert list(map(is_scores, variables)) == [True, True, False, False]


@pytest.mark.parametrize("multiplier", [1.0, 1e-2 / 3e-5])
def test_units_of_a_variable(multiplier):
    units = ScoreScale(multiplier)
    scores = tf.constant([0.5, -3.0])
    np.testing.assert_allclose(units.to_scores(units.to_variable(scores)), scores, rtol=1e-6)


def test_scores_learn_at_a_multiple_of_the_rate():
    units, rate = ScoreScale(50.0), 0.01
    variable = tf.Variable([1.0, 2.0])
    before = units.to_scores(variable)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(units.to_scores(variable) ** 2)
    gradient = tape.gradient(loss, variable)
    np.testing.assert_allclose(gradient, 2 * before)  # of the scores: not times 50
    variable.assign_sub(rate * gradient)
    moved = before - units.to_scores(variable)
    np.testing.assert_allclose(moved, 50 * rate * gradient, rtol=1e-5)
    assert units.rate_for(50 * rate) == pytest.approx(rate)


@pytest.mark.parametrize(
    "initializer, expected",
    [
        ("zeros", np.zeros([4, 6])),
        (2.197, np.full([4, 6], 2.197)),
        (keras.initializers.Constant(3.0), np.full([4, 6], 3.0)),
        (tf_movprune.MagnitudeScores(2.0), 2 * np.abs(KERNEL) / np.abs(KERNEL).mean()),
    ],
)
def test_first_scores(initializer, expected):
    np.testing.assert_allclose(start(initializer), expected, rtol=1e-5)


def test_first_scores_of_blocks_are_their_means():
    magnitude = np.abs(KERNEL) / np.abs(KERNEL).mean()
    expected = magnitude.reshape(2, 2, 2, 3).mean(axis=(1, 3))
    found = start(tf_movprune.MagnitudeScores(), (2, 2), (2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@every_mode
def test_scaled_scores_hand_their_gradient_on_unscaled(mode):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            scaled = ScoreScale(3.0).to_scores(x)
            loss = tf.reduce_sum(scaled**2)
        return scaled, tape.gradient(loss, x)

    scaled, grad = MODES[mode](gradient)(tf.constant([1.0, -2.0]))
    np.testing.assert_array_equal(scaled, [3.0, -6.0])
    np.testing.assert_array_equal(grad, [6.0, -12.0])
