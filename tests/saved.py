"""Pruned models of each kind, at high sparsity, and whether what was loaded is the same."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import wrappers

import tf_movprune


def dense(units, name, **kwargs):
    return keras.layers.Dense(units, activation="tanh", name=name, **kwargs)


def sequential():
    return keras.Sequential(
        [
            keras.Input((8,), name="features"),
            dense(12, "first"),
            keras.layers.LayerNormalization(name="norm"),
            dense(8, "second"),
            keras.layers.Dense(2, name="output"),
        ],
        name="sequential",
    )


def functional():
    inputs = keras.Input((8,), name="features")
    shared = dense(8, "shared")
    left, right = shared(inputs), shared(dense(8, "right")(inputs))
    merged = keras.layers.Concatenate(name="merge")([left, right])
    return keras.Model(inputs, keras.layers.Dense(2, name="output")(merged), name="functional")


def nested():
    inner_inputs = keras.Input((8,), name="inner_features")
    inner = keras.Model(
        inner_inputs, dense(8, "inner_b")(dense(10, "inner_a")(inner_inputs)), name="inner"
    )
    inputs = keras.Input((8,), name="features")
    outputs = keras.layers.Dense(2, name="output")(inner(dense(8, "before")(inputs)))
    return keras.Model(inputs, outputs, name="nested")


def attention():
    inputs = keras.Input((5, 8), name="features")
    attended = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    hidden = dense(8, "hidden")(keras.layers.Add(name="add")([inputs, attended]))
    return keras.Model(inputs, keras.layers.Dense(2, name="output")(hidden), name="attention")


def cubic(**kwargs):
    return tf_movprune.CubicSparsity(0.75, begin_step=1, end_step=10, **kwargs)


def polynomial():
    return tfmot.PolynomialDecay(0.25, 0.75, begin_step=2, end_step=10, power=2, frequency=4)


def prune_sequential(model):
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.5))
    schedule = cubic(initial_sparsity=0.125, frequency=3)
    return tf_movprune.prune_low_movement(model, schedule, method, block_size=(2, 4))


def prune_functional(model):
    method = tf_movprune.HardMovement(keras.initializers.RandomUniform(-0.5, 1.5, seed=7))
    return tf_movprune.prune_low_movement(model, polynomial(), method)


def prune_nested(model):
    return tf_movprune.prune_low_movement(model, cubic(), tf_movprune.Magnitude())


def prune_attention(model):
    schedules = {"attention": polynomial(), "*": cubic()}
    return tf_movprune.prune_low_movement(model, schedules, score_learning_rate_multiplier=300.0)


ZOO = {
    "sequential": (sequential, prune_sequential),
    "functional": (functional, prune_functional),
    "nested": (nested, prune_nested),
    "attention": (attention, prune_attention),
}


FORMATS = {"keras": ".keras", "h5": ".h5", "tf": "_saved_model"}


def fresh(kind, seed=1):
    keras.utils.set_random_seed(seed)
    build, prune = ZOO[kind]
    return prune(build())


@functools.cache
def example(kind):
    """A pruned model at sparsity 0.75 that nobody has trained, and no callback was bound to."""
    refreshed = fresh(kind)
    random = np.random.RandomState(2)
    for layer in wrappers(refreshed):
        for scores in (k.scores for k in layer.kernels if k.scores is not None):
            scores.assign(random.standard_normal(scores.shape))
    assert float(tf_movprune.update_masks(refreshed, 10)) == 0.75
    model = fresh(kind, seed=3)
    model.set_weights(refreshed.get_weights())
    return model


def inputs_of(model):
    shape = (16, *model.input_shape[1:])
    return np.random.RandomState(4).standard_normal(shape).astype("float32")


def outputs_of(model):
    return model(inputs_of(model), training=False).numpy()


@functools.cache
def dense_outputs_of(kind):
    """Outputs of the model if masks are forgotten."""
    model = example(kind)
    weights = model.get_weights()
    for layer in wrappers(model):
        for mask in (kernel.mask for kernel in layer.kernels):
            mask.assign(tf.ones_like(mask))
    outputs = outputs_of(model)
    model.set_weights(weights)
    return outputs


def names(variables):
    return [variable.name for variable in variables]


def described(layer):
    """All of a wrapper's configuration, with the types of its objects."""
    schedule, method = layer.settings.schedule, layer.settings.method
    start = getattr(method, "score_initializer", None)
    return {
        "name": layer.name,
        "inner": (type(layer.layer).__name__, layer.layer.name),
        "schedule": (type(schedule).__name__, schedule.get_config()),
        "method": type(method).__name__,
        "start": start if isinstance(start, str | None) else type(start).__name__,
        "start_config": start.get_config() if hasattr(start, "get_config") else None,
        "block_size": layer.settings.block_size,
        "multiplier": layer.settings.score_learning_rate_multiplier,
        "variables": [(v.name, v.dtype, tuple(v.shape)) for v in layer.variables],
    }


def assert_same_state(loaded, model):
    ours, theirs = wrappers(model), wrappers(loaded)
    assert [layer.name for layer in theirs] == [layer.name for layer in ours]
    for one, other in zip(ours, theirs):
        assert len(one.kernels) == len(other.kernels) > 0
        for expected, actual in zip(one.kernels, other.kernels):
            assert len(expected.variables) == len(actual.variables) >= 2
            for a, b in zip(expected.variables, actual.variables):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(b.numpy(), a.numpy(), err_msg=a.name)
    assert names(loaded.weights) == names(model.weights)
    for a, b in zip(model.weights, loaded.weights):
        np.testing.assert_array_equal(b.numpy(), a.numpy(), err_msg=a.name)
    assert names(loaded.trainable_weights) == names(model.trainable_weights)


def save(model, path, **kwargs):
    save_format = "tf" if path.name.endswith(FORMATS["tf"]) else None
    model.save(str(path), save_format=save_format, **kwargs)
