"""Small models of either Keras, pruned and trained as most tests of both shells do it."""

import contextlib

import numpy as np

import tf_movprune
from tf_movprune import CubicSparsity, HardMovement

X = np.random.RandomState(0).standard_normal([32, 8]).astype("float32")
Y = np.random.RandomState(1).randint(0, 3, 32)
RAMP = CubicSparsity(0.75, begin_step=0, end_step=6)
START = tf_movprune.MagnitudeScores(0.01)


def mlp(keras, **kwargs):
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(16, "relu", name="first", **kwargs),
            keras.layers.Dense(16, "relu", name="second", **kwargs),
            keras.layers.Dense(3, name="out", **kwargs),
        ]
    )


class Block:
    """Makes a composite layer of either Keras."""

    def __new__(cls, keras, **kwargs):
        class Residual(keras.layers.Layer):
            def __init__(self):
                super().__init__(**kwargs)
                self.up, self.down = keras.layers.Dense(12, "relu"), [keras.layers.Dense(8)]

            def build(self, shape):
                self.up.build(shape)
                self.down[0].build((*shape[:-1], 12))
                self.built = True

            def call(self, x):
                return x + self.down[0](self.up(x))

        return Residual()


def nested(keras):
    inner_input = keras.Input([8])
    inner = keras.Model(
        inner_input, keras.layers.Dense(8, name="inside")(inner_input), name="inner"
    )
    x = keras.Input([8])
    shared = keras.layers.Dense(8, name="shared")
    h = shared(shared(inner(Block(keras, name="block")(x))))
    return keras.Model(x, keras.layers.Dense(3, name="out")(h))


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)  # made first, called last
            self.blocks = [Block(keras), Block(keras)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Net()
    model(X)
    return model


def convolutional(keras):
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Reshape([8, 1]),
            keras.layers.Conv1D(6, 3, name="conv"),
            keras.layers.SeparableConv1D(4, 2, name="separable"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def attentive(keras):
    x = keras.Input([8])
    h = keras.layers.Reshape([4, 2])(x)
    h = keras.layers.MultiHeadAttention(2, 3, name="attention")(h, h)
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(h)))


MODELS = {
    "sequential": (mlp, ["first", "second"]),
    "nested": (nested, ["block.up", "block.down.0", "inner.inside", "shared"]),
    "subclassed": (
        subclassed,
        ["blocks.0.up", "blocks.0.down.0", "blocks.1.up", "blocks.1.down.0"],
    ),
    "convolutional": (convolutional, ["conv", "separable"]),
    "attentive": (attentive, None),
}


def fit(keras, pruned, optimizer=None, epochs=2, callbacks=(), **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(optimizer or keras.optimizers.SGD(0.1), loss, **kwargs)
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    return pruned.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


def prune(model, schedule=RAMP, method=None, **kwargs):
    return tf_movprune.prune_low_movement(model, schedule, method or HardMovement(START), **kwargs)


class BegunError(Exception):
    """Ends a `fit` before its first step."""


def begin_fit(keras, pruned, num_train_steps=None, update=None):
    """Lets a `fit` of 8 steps say what is wrong with it, and ends it before it traces a step."""

    class Ending(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise BegunError

    callbacks = [update or tf_movprune.UpdatePruningStep(num_train_steps), Ending()]
    with contextlib.suppress(BegunError):
        pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)


def scaled(keras, optimizer, **kwargs):
    """An optimizer within one that scales the loss."""
    module = keras.mixed_precision if keras.__name__ == "tf_keras" else keras.optimizers
    return module.LossScaleOptimizer(optimizer, **kwargs)
