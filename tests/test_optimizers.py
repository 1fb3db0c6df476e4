"""What `create_optimizer` promises for models of either Keras."""

import numpy as np
import tensorflow as tf

import tf_movprune


def norm(keras, name, axes):
    """A layer with one weight of a name, as RMS normalisations have."""

    class Norm(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(name=name, shape=(8,) * axes, initializer="ones")
            self.built = True

        def call(self, x):
            return x * tf.convert_to_tensor(self.w)

    return Norm(name=f"norm_{axes}")


def test_only_matrices_decay(keras):
    layers = [keras.layers.Dense(8, bias_initializer="ones"), keras.layers.LayerNormalization()]
    layers += [norm(keras, "weight", 1), norm(keras, "scale", 2)]
    model = keras.Sequential([keras.Input([8]), *layers])
    optimizer = tf_movprune.create_optimizer(0.5, 10, 0, weight_decay=0.1, model=model)
    before = model.get_weights()
    gradients = [(tf.zeros(v.shape), v) for v in model.trainable_variables]
    optimizer.apply_gradients(gradients)
    kernel, *others = model.get_weights()
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.5 * 0.1), rtol=1e-6)
    for old, new in zip(before[1:], others, strict=True):
        np.testing.assert_array_equal(old, new)


def test_users_exclude_more_from_decay(keras):
    model = keras.Sequential([keras.Input([8]), keras.layers.Dense(8), keras.layers.Dense(4)])
    optimizer = tf_movprune.create_optimizer(0.5, 10, 0, weight_decay=0.1, model=model)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    before = model.get_weights()
    optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in model.trainable_variables])
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert changed == [False, False, True, False]
