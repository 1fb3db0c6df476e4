"""Hard concrete gates, the random masks of L0 regularisation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3  # l, r and b of the hard concrete distribution
_NOISE = (1e-4, 0.9999)
GATE_THRESHOLD = float(np.log(-_LOW / _HIGH))
"""The score above which a gate is open, in evaluation."""


def hard_concrete_gate(scores: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Gates in [0, 1] that can be exactly 0 and 1, with the ordinary gradient.

        s    = sigmoid(scores)                                    without a seed
        s    = sigmoid((ln u - ln(1 - u) + scores) / b)           with one; u ~ U(0, 1)
        gate = clip(s * (r - l) + l, 0, 1)                        l, r, b = -0.1, 1.1, 2/3

    Args:
      scores: float32 tensor.
      seed: integer tensor of shape [2]. The same seed gives the same noise in the same program; XLA
        orders it in another way.

    Returns:
      Tensor like `scores`.

    Reference:
      Louizos, Welling & Kingma (2018), https://arxiv.org/abs/1712.01312.
    """
    if seed is not None:
        uniform = tf.random.stateless_uniform(scores.shape, seed, alg="philox")
        uniform = tf.clip_by_value(uniform, *_NOISE)
        scores = (tf.math.log(uniform) - tf.math.log1p(-uniform) + scores) / _TEMPERATURE
    return tf.clip_by_value(tf.sigmoid(scores) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)


def open_gate_probability(scores: tf.Tensor) -> tf.Tensor:
    """Probability that a hard concrete gate is not 0: `sigmoid(scores - b ln(-l / r))`."""
    return tf.sigmoid(scores - _TEMPERATURE * GATE_THRESHOLD)
