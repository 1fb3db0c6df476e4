"""Hard concrete gates: values, noise and gradients."""

import numpy as np
import reference
import tensorflow as tf
from modes import MODES, every_mode

from tf_movprune.core.hard_concrete import GATE_THRESHOLD, hard_concrete_gate, open_gate_probability


@every_mode
def test_gates_and_their_gradient(mode):
    scores = np.linspace(-6, 6, 41).astype(np.float32)

    def gate_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            gate = hard_concrete_gate(x)
        return gate, tape.gradient(gate, x)

    gate, gradient = MODES[mode](gate_and_gradient)(tf.constant(scores))
    np.testing.assert_allclose(gate, reference.hard_concrete_gate(scores), atol=1e-6)
    inside = (gate.numpy() > 0) & (gate.numpy() < 1)
    s = reference.sigmoid(scores.astype(np.float64))
    np.testing.assert_allclose(gradient, np.where(inside, 1.2 * s * (1 - s), 0), atol=1e-6)
    assert np.any(gate == 0) and np.any(gate == 1)
    np.testing.assert_array_equal(gate > 0, scores > GATE_THRESHOLD)


@every_mode
def test_noise_of_gates_depends_on_the_seed_alone(mode):
    scores = tf.linspace(-3.0, 3.0, 1000)

    @MODES[mode]
    def gate_and_uniform(seed):
        uniform = tf.random.stateless_uniform([1000], seed, alg="philox")
        return hard_concrete_gate(scores, seed), uniform

    gate, uniform = gate_and_uniform(tf.constant([3, 4]))
    expected = reference.hard_concrete_gate(scores.numpy(), uniform.numpy())
    np.testing.assert_allclose(gate, expected, atol=2e-6)
    other, _ = gate_and_uniform(tf.constant([4, 4]))
    assert np.mean(np.abs(gate - other)) > 0.1


def test_probability_that_a_gate_is_open():
    scores = tf.constant([-4.0, -1.0, 0.0, 2.197])
    expected = 1 / (1 + np.exp(-(scores.numpy() - 2 / 3 * np.log(0.1 / 1.1))))
    np.testing.assert_allclose(open_gate_probability(scores), expected, rtol=1e-6)
    drawn = [
        np.mean(hard_concrete_gate(tf.fill([20000], x), tf.constant([1, 2])) > 0)
        for x in scores.numpy()
    ]
    np.testing.assert_allclose(drawn, expected, atol=0.02)
