"""Wrapping and stripping models of every kind."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import (
    IDS,
    functional,
    inputs,
    nested,
    random_scores,
    schedule,
    sequential,
    subclassed,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import Everything, mask_of

import tf_movprune

layers = keras.layers


MODELS = {
    "sequential": (sequential, inputs(5, 8), ["first", "second"]),
    "functional": (
        functional,
        inputs(5, 8, 8, 3),
        [
            "conv",
            "separable",
            *(f"attention.{part}" for part in ("query", "key", "value", "attention_output")),
            "shared",
        ],
    ),
    "nested": (nested, inputs(5, 8), ["inner.inner_dense"]),
    "subclassed": (
        subclassed,
        IDS,
        ["blocks.0.up", "blocks.0.parts.down.0", "blocks.1.up", "blocks.1.parts.down.0"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_prunes_and_strips(name):
    make, x, expected_paths = MODELS[name]
    model = make()
    names = [weight.name for weight in model.weights]
    dense = tf.nest.flatten(model(x))

    pruned = tf_movprune.prune_low_movement(model, schedule(), random_scores())
    report = tf_movprune.summarize_sparsity(pruned)
    assert [weight.path.rsplit(".", 1)[0] for weight in report.weights] == expected_paths
    for before, after in zip(dense, tf.nest.flatten(pruned(x))):
        np.testing.assert_array_equal(before, after)

    tf_movprune.update_masks(pruned, 2)
    report = tf_movprune.summarize_sparsity(pruned)
    for weight in report.weights:
        assert weight.remaining == weight.total // 4
    masked = tf.nest.flatten(pruned(x))
    assert any(np.any(a != b) for a, b in zip(dense, masked))

    plain = tf_movprune.strip_pruning(pruned)
    for expected, received in zip(masked, tf.nest.flatten(plain(x))):
        np.testing.assert_array_equal(expected, received)
    assert [weight.name for weight in plain.weights] == names
    assert not tf_movprune.pruned_layers(plain)
    assert tf_movprune.summarize_sparsity(plain).as_dict() == report.as_dict()


def test_clones_graphs_and_changes_subclassed_models_in_place():
    for make, in_place in ((sequential, False), (functional, False), (subclassed, True)):
        model = make()
        pruned = tf_movprune.prune_low_movement(model, schedule())
        assert (pruned is model) == in_place
        assert type(pruned) is type(model)
        if not in_place:
            assert not tf_movprune.pruned_layers(model)


def test_in_place_keeps_attributes_and_containers():
    model = subclassed()
    head, up, down = model.head, model.shared, model.blocks[1].parts["down"][0]
    tf_movprune.prune_low_movement(model, schedule())
    assert isinstance(model.blocks[0].up, tf_movprune.PruneLowMovement)
    assert model.shared is model.blocks[0].up  # one layer in two places, one wrapper
    assert model.blocks[1].parts["down"][0].layer is down
    tf_movprune.update_masks(model, 2)
    tf_movprune.strip_pruning(model)
    assert model.head is head and model.shared is up is model.blocks[0].up
    assert model.blocks[1].parts["down"][0] is down


def test_shared_layer_of_a_graph_has_one_set_of_scores():
    pruned = tf_movprune.prune_low_movement(functional(), schedule())
    scores = [w.name for w in pruned.trainable_weights if "movement_scores" in w.name]
    assert len(scores) == 7 and sum("shared" in name for name in scores) == 1


def test_prunes_a_subclassed_model_inside_a_graph():
    ids = keras.Input([4], dtype=tf.int32)
    inner = subclassed()
    model = keras.Model(ids, layers.Dense(3, name="top")(layers.ReLU()(inner(ids))))
    pruned = tf_movprune.prune_low_movement(model, schedule(), random_scores())
    tf_movprune.update_masks(pruned, 2)
    paths = list(tf_movprune.pruned_layers(pruned))
    assert paths[0] == f"{inner.name}.blocks.0.up" and f"{inner.name}.head" in paths
    masked = pruned(IDS)
    np.testing.assert_array_equal(masked, tf_movprune.strip_pruning(pruned)(IDS))


# ---- layers and lists


def test_prunes_a_layer():
    layer = tf_movprune.prune_low_movement(
        layers.Dense(4, name="dense"), schedule(), random_scores(), name="mine"
    )
    assert layer.name == "mine"
    layer(inputs(2, 8))
    tf_movprune.update_masks(layer, 2)
    assert mask_of(layer).sum() == 8
    stripped = tf_movprune.strip_pruning(layer)
    assert isinstance(stripped, layers.Dense) and np.count_nonzero(stripped.kernel) == 8


def test_prunes_a_list():
    given = [layers.Dense(4), layers.Dropout(0.1), layers.Dense(2)]
    pruned = tf_movprune.prune_low_movement(given, schedule())
    assert [isinstance(layer, tf_movprune.PruneLowMovement) for layer in pruned] == [
        True,
        False,
        True,
    ]
    assert pruned[1] is given[1]


def test_prunes_an_unbuilt_model_lazily():
    model = keras.Sequential([layers.Dense(8), layers.Dense(2)])
    pruned = tf_movprune.prune_low_movement(
        model, schedule(), tf_movprune.HardMovement(tf_movprune.MagnitudeScores())
    )
    x = inputs(3, 8)
    pruned(x)
    tf_movprune.update_masks(pruned, 2)
    assert tf_movprune.summarize_sparsity(pruned).weights[0].remaining == 16
    kernel, mask = pruned.layers[0].layer.kernel.numpy(), mask_of(pruned.layers[0])
    assert np.abs(kernel[mask]).min() > np.abs(kernel[~mask]).max()


def test_prunes_user_defined_weights():
    class Bilinear(layers.Layer):
        def build(self, shape):
            self.left = self.add_weight("left", [shape[-1], 4])
            self.right = self.add_weight("right", [4, 6])

        def get_prunable_weights(self):
            return [self.right]

        def call(self, x):
            return x @ self.left @ self.right

    model = keras.Sequential([Bilinear(), layers.Dense(2)])
    model(inputs(1, 8))
    pruned = tf_movprune.prune_low_movement(model, schedule(), random_scores())
    tf_movprune.update_masks(pruned, 2)
    (weight,) = tf_movprune.summarize_sparsity(pruned).weights
    assert weight.path.endswith(".right") and (weight.remaining, weight.total) == (6, 24)
    masked = pruned(inputs(3, 8))
    np.testing.assert_array_equal(masked, tf_movprune.strip_pruning(pruned)(inputs(3, 8)))


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_prunes_recurrent_layers_when_asked(cell):
    layer = cell(4)
    layer(inputs(2, 5, 6))
    dense = layer(inputs(2, 5, 6)).numpy()
    pruned = tf_movprune.prune_low_movement(layer, schedule(), random_scores())
    assert len(pruned.kernels) == 2
    tf_movprune.update_masks(pruned, 2)
    masked = pruned(inputs(2, 5, 6)).numpy()
    assert np.any(masked != dense)
    np.testing.assert_allclose(
        tf_movprune.strip_pruning(pruned)(inputs(2, 5, 6)), masked, rtol=1e-6
    )


def test_prunes_the_copies_inside_bidirectional():
    model = keras.Sequential(
        [layers.Bidirectional(layers.LSTM(3), input_shape=(5, 2), name="both"), layers.Dense(1)]
    )
    x = inputs(2, 5, 2)
    pruned = tf_movprune.prune_low_movement(
        model, schedule(), random_scores(), pruning_policy=Everything()
    )
    assert [path.split(".")[0] for path in tf_movprune.pruned_layers(pruned)][:2] == ["both"] * 2
    tf_movprune.update_masks(pruned, 2)
    masked = pruned(x)
    np.testing.assert_allclose(tf_movprune.strip_pruning(pruned)(x), masked, rtol=1e-6)


def test_pruning_twice():
    for make in (sequential, subclassed):
        pruned = tf_movprune.prune_low_movement(make(), schedule())
        with pytest.raises(ValueError, match=r"pruned already.*strip_pruning"):
            tf_movprune.prune_low_movement(pruned, schedule())


def test_stripping_a_model_that_was_never_pruned_warns():
    pruned = tf_movprune.prune_low_movement(sequential(), schedule())
    with pytest.warns(UserWarning, match=r"never refreshed.*UpdatePruningStep"):
        tf_movprune.strip_pruning(pruned)


def test_stripping_masks_that_are_behind_their_schedule_warns():
    fast, slow = schedule(), tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=10)
    pruned = tf_movprune.prune_low_movement(sequential(), {"first": fast, "second": slow})
    tf_movprune.update_masks(pruned, 9)
    tf_movprune.update_masks(pruned, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.strip_pruning(pruned)
    pruned = tf_movprune.prune_low_movement(sequential(), {"first": fast, "second": slow})
    tf_movprune.update_masks(pruned, 5)
    message = (
        r"Sparsity is 0\.7917 in masks whose CubicSparsity says 0\.9000 at its end_step 10"
        r".*update_masks\(model, step, force=True\)"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        tf_movprune.strip_pruning(pruned)
    assert [warning.filename for warning in caught] == [__file__]


def test_masks_that_are_almost_there_do_not_warn():
    pruned = tf_movprune.prune_low_movement(layers.Dense(4), schedule())
    pruned.build([None, 8])
    tf_movprune.update_masks(pruned, 2)
    pruned.kernels[0].mask.assign(np.arange(32).reshape(8, 4) < 8 + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.strip_pruning(pruned)
    pruned = tf_movprune.prune_low_movement(layers.Dense(4), schedule())
    pruned.build([None, 8])
    pruned.kernels[0].mask.assign(np.arange(32).reshape(8, 4) < 8 + 2)
    with pytest.warns(UserWarning, match=r"0\.6875 .* says 0\.7500 "):
        tf_movprune.strip_pruning(pruned)


def test_methods_whose_schedule_says_something_else_do_not_warn():
    ramp = tf_movprune.CubicThreshold(0.1, 0, 4)
    method = tf_movprune.SoftMovement(1.0)
    pruned = tf_movprune.prune_low_movement(layers.Dense(4), ramp, method)
    pruned.build([None, 8])
    pruned.kernels[0].mask.assign(np.arange(32).reshape(8, 4) < 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.strip_pruning(pruned)


def test_penalties_that_pruned_nothing_warn():
    pruned = tf_movprune.prune_low_movement(layers.Dense(4), method=tf_movprune.L0())
    pruned.build([None, 8])
    tf_movprune.update_masks(pruned, 5)
    with pytest.warns(UserWarning, match=r"L0 has pruned nothing .* Raise final_lambda"):
        tf_movprune.strip_pruning(pruned)


def test_schedules_without_an_end_do_not_warn():
    constant = tfmot.ConstantSparsity(0.75, begin_step=0)
    pruned = tf_movprune.prune_low_movement(layers.Dense(4), constant)
    pruned.build([None, 8])
    pruned.kernels[0].mask.assign(np.arange(32).reshape(8, 4) < 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.strip_pruning(pruned)


def test_stripping_a_plain_model():
    with pytest.raises(ValueError, match="no pruned layers"):
        tf_movprune.strip_pruning(sequential())


def test_pruning_a_compiled_model_demands_compiling_again():
    model = subclassed()
    model.compile("sgd", "mse")
    model.fit(IDS, np.zeros([5, 2]), verbose=0)
    model.predict(IDS, verbose=0)
    tf_movprune.prune_low_movement(model, schedule(), random_scores())
    with pytest.raises(RuntimeError, match="compile"):
        model.fit(IDS, np.zeros([5, 2]), callbacks=[tf_movprune.UpdatePruningStep()])
    tf_movprune.update_masks(model, 2)
    np.testing.assert_allclose(model.predict(IDS, verbose=0), model(IDS), rtol=1e-5)


def test_scope_holds_every_class():
    with tf_movprune.prune_scope():
        for name in ("PruneLowMovement", "CubicSparsity", "HardMovement", "Magnitude"):
            assert keras.saving.get_registered_object(name) is getattr(tf_movprune, name)


def test_stripping_a_kernel_of_which_nothing_remains_warns():
    ramp = tf_movprune.CubicSparsity(0.99, 0, 4)
    method = tf_movprune.HardMovement(minimum_remaining=0)
    pruned = tf_movprune.prune_low_movement(layers.Dense(4, name="hidden"), ramp, method)
    pruned.build([None, 8])
    tf_movprune.update_masks(pruned, 4)
    with pytest.warns(UserWarning, match=r"Nothing remains of a kernel of hidden\. Prune less"):
        tf_movprune.strip_pruning(pruned)


def held_by_a_subclass():
    model = subclassed()
    model.head = tfmot.prune_low_magnitude(layers.Dense(2, name="head"), input_shape=(3,))
    return model


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: tfmot.prune_low_magnitude(sequential()), "prune_low_magnitude_first"),
        (lambda: tfmot.prune_low_magnitude(functional()), "prune_low_magnitude_shared"),
        (lambda: tfmot.prune_low_magnitude(layers.Dense(2, name="a"), input_shape=(3,)), "_a"),
        (held_by_a_subclass, "prune_low_magnitude_head"),
    ],
    ids=["sequential", "functional", "layer", "subclassed"],
)
def test_models_that_tfmot_prunes_are_named_as_such(make, name):
    model = make()
    message = rf"is pruned by tensorflow_model_.*{name}'.* tfmot\.sparsity\.keras\.strip_pruning"
    for refused in (
        lambda: tf_movprune.prune_low_movement(model, schedule()),
        lambda: tf_movprune.prune_low_movement([layers.Dense(2), model], schedule()),
        lambda: tf_movprune.strip_pruning(model),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_a_model_that_tfmot_stripped_is_pruned():
    plain = tfmot.strip_pruning(tfmot.prune_low_magnitude(sequential()))
    pruned = tf_movprune.prune_low_movement(plain, schedule())
    assert list(tf_movprune.pruned_layers(pruned)) == ["first", "second"]
