"""Models of tf_keras that make things while they are called, or were never called."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import schedule

import tf_movprune
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.output_layers import find_outputs

layers = keras.layers


def dense(name):
    return layers.Dense(5, name=name)


def called(model):
    model(np.ones([2, 8], np.float32))
    return model


class Busy(keras.Model):
    """Leaves something behind in every call."""

    def __init__(self):
        super().__init__()
        self.out, self.hidden, self.calls = dense("out"), dense("hidden"), 0

    @tf.function
    def inner(self, x):
        return self.out(self.hidden(x))

    def call(self, x, training=None):
        self.calls += 1
        self.add_loss(tf.reduce_mean(x))
        self.add_metric(tf.reduce_mean(x), name="mean")
        self.last = x
        return self.inner(x)


def test_tracing_leaves_the_model_as_it_was():
    model = called(Busy())
    before = dict(vars(model))
    losses, traces = model.losses, model.inner.experimental_get_tracing_count()
    weights, metrics = list(map(id, model.weights)), list(map(id, model.metrics))
    nodes = [len(layer._inbound_nodes) for layer in (model, model.out, model.hidden)]
    assert find_outputs(LayerTree(model)).layers == {id(model.out)}
    assert vars(model).keys() == before.keys()
    assert model.calls == 1 and model.last is before["last"] and tf.is_tensor(model.last)
    assert model.losses == losses
    assert model.inner.experimental_get_tracing_count() == traces
    assert (list(map(id, model.weights)), list(map(id, model.metrics))) == (weights, metrics)
    assert [len(x._inbound_nodes) for x in (model, model.out, model.hidden)] == nodes
    assert not tf.config.functions_run_eagerly()


class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = dense("a"), dense("b")

    def call(self, x):
        return self.b(self.a(x))


class MakesAVariable(Pair):
    def call(self, x):
        if not isinstance(x, np.ndarray) and tf.is_symbolic_tensor(x):
            self.add_weight("late")
        return super().call(x)


def test_the_last_layer_is_taken_for_the_output_if_a_model_cannot_be_traced():
    uncalled, late = Pair(), called(MakesAVariable())
    for model, reason in ((uncalled, "never called"), (late, "variables")):
        outputs = find_outputs(LayerTree(model))
        assert outputs.layers == {id(model.b)} and outputs.guessed == "b"
        assert reason in outputs.reason
        with pytest.warns(UserWarning, match=r"b is taken for the output layer .*Call the model"):
            tf_movprune.prune_low_movement(model, schedule())
        assert list(tf_movprune.pruned_layers(model)) == ["a"]
    assert len(late.a.layer.weights) == 2 and not any("late" in w.name for w in late.weights)


def test_the_last_layer_of_an_unbuilt_chain_is_no_guess():
    model = keras.Sequential([dense("a"), dense("out"), layers.Softmax()])
    outputs = find_outputs(LayerTree(model))
    assert outputs.layers == {id(model.layers[1])} and outputs.guessed is None
