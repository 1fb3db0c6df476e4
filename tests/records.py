"""Records of masked kernels, without any layer."""

import numpy as np
import tensorflow as tf

import tf_movprune
from tf_movprune.core.masked_kernel import MaskedKernel, Part
from tf_movprune.core.settings import Settings

CUBIC = tf_movprune.CubicSparsity(0.75, 0, 4)


def weight(*shape):
    return tf.Variable(tf.random.stateless_normal(shape, [3, 4]))


def kernel_of(parts, shape, method=None, schedule=CUBIC, **settings):
    method = method or tf_movprune.HardMovement()
    start = tf.random.stateless_normal(shape, [1, 2])
    return MaskedKernel(
        Settings(schedule, method, **settings),
        parts,
        mask=tf.Variable(tf.ones(shape, tf.bool)),
        threshold=tf.Variable(-np.inf, dtype=tf.float32),
        scores=tf.Variable(start) if method.has_scores else None,
    )


def matrix(*shape, **settings):
    """The record of a kernel that is masked entry by entry."""
    return kernel_of([Part(weight(*shape))], shape, **settings)
