"""Wrapping and stripping models of every kind."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import (
    IDS,
    functional,
    inputs,
    random_scores,
    schedule,
    sequential,
    subclassed,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import mask_of

import tf_movprune

layers = keras.layers


MODELS = {
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


def test_scope_holds_every_class():
    with tf_movprune.prune_scope():
        for name in ("PruneLowMovement", "CubicSparsity", "HardMovement", "Magnitude"):
            assert keras.saving.get_registered_object(name) is getattr(tf_movprune, name)


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
