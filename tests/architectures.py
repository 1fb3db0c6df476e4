"""Models of each kind that Keras knows, for what works on all of them."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_movprune

layers = keras.layers


def schedule(final_sparsity=0.75):
    return tf_movprune.CubicSparsity(final_sparsity, begin_step=0, end_step=2)


def random_scores():
    return tf_movprune.HardMovement(keras.initializers.RandomNormal(seed=1))


def inputs(*shape):
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def sequential():
    return keras.Sequential(
        [
            layers.Dense(16, activation="relu", input_shape=(8,), name="first"),
            layers.Dropout(0.5),
            layers.Dense(12, name="second"),
            layers.Dense(3, name="output"),
            layers.Softmax(),
        ]
    )


def functional():
    image = keras.Input([8, 8, 3])
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Reshape([16, 4])(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.Flatten()(x)
    shared = layers.Dense(64, name="shared")
    x = shared(shared(x))
    return keras.Model(image, [layers.Dense(2, name="a")(x), layers.Dense(1, name="b")(x)])


class Block(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.up = layers.Dense(2 * units, activation="gelu")
        self.parts = {"down": [layers.Dense(units), layers.LayerNormalization()]}

    def call(self, x):
        for layer in self.parts["down"]:
            x = layer(self.up(x) if layer is self.parts["down"][0] else x)
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(11, 8)
        self.blocks = [Block(8), Block(8)]
        self.shared = self.blocks[0].up
        self.head = layers.Dense(2)

    def call(self, ids, training=None):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.shared(tf.reduce_mean(x, axis=1))[:, :8])


def subclassed():
    model = Subclassed()
    model(np.zeros([1, 4], np.int32))
    return model


IDS = np.random.RandomState(0).randint(0, 11, [5, 4])
