"""Wrapping and stripping models of every kind."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_policy import PruningPolicy
from tensorflow_model_optimization.sparsity import keras as tfmot

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


def nested():
    inner = keras.Sequential([layers.Dense(6, input_shape=(8,), name="inner_dense")], name="inner")
    x = keras.Input([8])
    return keras.Model(x, layers.Dense(2, name="output")(layers.ReLU()(inner(x))))


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
    assert layer.kernels[0].mask.numpy().sum() == 8
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
    kernel, mask = pruned.layers[0].layer.kernel.numpy(), pruned.layers[0].kernels[0].mask.numpy()
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


def test_finds_layers_under_private_names():
    class Attention(keras.Model):
        def __init__(self):
            super().__init__()
            self._self_attention = layers.Dense(8)
            self._inbound = layers.Dense(8)
            self.out = layers.Dense(2)

        def call(self, x):
            return self.out(self._inbound(self._self_attention(x)))

    model = Attention()
    model(inputs(1, 8))
    pruned = tf_movprune.prune_low_movement(model, schedule())
    assert list(tf_movprune.pruned_layers(pruned)) == ["_self_attention", "_inbound"]


# ---- what is chosen


class Everything(PruningPolicy):
    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


class OnlyFirst(PruningPolicy):
    def __init__(self):
        self.checked = None

    def allow_pruning(self, layer):
        return layer.name in ("first", "output")

    def ensure_model_supports_pruning(self, model):
        self.checked = model


def test_policy_decides():
    policy, model = OnlyFirst(), sequential()
    pruned = tf_movprune.prune_low_movement(model, schedule(), pruning_policy=policy)
    assert list(tf_movprune.pruned_layers(pruned)) == ["first", "output"]
    assert policy.checked is model


def test_schedules_by_pattern():
    fine, coarse = schedule(0.5), schedule(0.75)
    pruned = tf_movprune.prune_low_movement(
        subclassed(), {"*down*": fine, "blocks.1.*": coarse}, random_scores()
    )
    tf_movprune.update_masks(pruned, 2)
    sparsity = {w.path: w.sparsity for w in tf_movprune.summarize_sparsity(pruned).weights}
    assert sparsity == {
        "blocks.0.parts.down.0.kernel": 0.5,
        "blocks.1.up.kernel": 0.75,
        "blocks.1.parts.down.0.kernel": 0.5,
    }


def test_blocks():
    pruned = tf_movprune.prune_low_movement(
        sequential(), schedule(), tf_movprune.Magnitude(), block_size=(4, 2)
    )
    tf_movprune.update_masks(pruned, 2)
    weight = tf_movprune.summarize_sparsity(pruned).weights[0]
    assert (weight.remaining, weight.total) == (32, 128)
    plain = tf_movprune.strip_pruning(pruned)
    blocks = np.abs(plain.layers[0].kernel.numpy()).reshape(2, 4, 8, 2).sum((1, 3))
    assert np.count_nonzero(blocks) == 4


# ---- errors


def test_pruning_twice():
    for make in (sequential, subclassed):
        pruned = tf_movprune.prune_low_movement(make(), schedule())
        with pytest.raises(ValueError, match=r"pruned already.*strip_pruning"):
            tf_movprune.prune_low_movement(pruned, schedule())


def test_nothing_to_prune():
    with pytest.raises(ValueError, match=r"Nothing to prune.*output layer.*pruning_policy"):
        tf_movprune.prune_low_movement(
            keras.Sequential([layers.Dense(2, input_shape=(3,))]), schedule()
        )

    class Empty(keras.Model):
        pass

    with pytest.raises(ValueError, match="not built: call it once"):
        tf_movprune.prune_low_movement(Empty(), schedule())
    with pytest.raises(ValueError, match="list of 1 layers"):
        tf_movprune.prune_low_movement([layers.ReLU()], schedule())
    with pytest.raises(ValueError, match=r"MultiHeadAttention.*first called"):
        attention = layers.MultiHeadAttention(2, 4)
        attention.built = True
        tf_movprune.prune_low_movement(attention, schedule())


def test_keras_3_model():
    keras3 = pytest.importorskip("keras", minversion="3")
    model = keras3.Sequential([keras3.layers.Dense(2)])
    with pytest.raises(TypeError, match=r"Keras 3.*tf_keras.*TF_USE_LEGACY_KERAS=1"):
        tf_movprune.prune_low_movement(model, schedule())
    with pytest.raises(TypeError, match="Expected a tf_keras model"):
        tf_movprune.prune_low_movement("model", schedule())


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"method must be an object.*'movement'"):
        tf_movprune.prune_low_movement(sequential(), schedule(), "movement")
    with pytest.raises(TypeError, match="method must be an object"):
        tf_movprune.prune_low_movement(sequential(), schedule(), tf_movprune.HardMovement)
    with pytest.raises(TypeError, match=r"pruning_schedule must be.*0\.9"):
        tf_movprune.prune_low_movement(sequential(), 0.9)
    with pytest.raises(TypeError, match="pruning_schedule must be"):
        tf_movprune.prune_low_movement(sequential(), {"*": 0.9})
    with pytest.raises(ValueError, match="empty mapping"):
        tf_movprune.prune_low_movement(sequential(), {})
    with pytest.raises(ValueError, match=r"'encoder\.\*' .*matches no prunable.*first, second"):
        tf_movprune.prune_low_movement(sequential(), {"*": schedule(), "encoder.*": schedule()})
    with pytest.raises(ValueError, match="score_learning_rate_multiplier must be greater than 0"):
        tf_movprune.prune_low_movement(sequential(), schedule(), score_learning_rate_multiplier=0)
    with pytest.raises(ValueError, match=r"block_size \(3, 1\) must divide.*\(8, 16\)"):
        tf_movprune.prune_low_movement(sequential(), schedule(), block_size=(3, 1))
    with pytest.raises(TypeError, match="Unexpected arguments for a model: name"):
        tf_movprune.prune_low_movement(sequential(), schedule(), name="x")
    with pytest.raises(TypeError, match="single layer takes no pruning_policy"):
        tf_movprune.prune_low_movement(layers.Dense(2), schedule(), pruning_policy=Everything())
    with pytest.raises(TypeError, match="single layer takes one"):
        tf_movprune.prune_low_movement(layers.Dense(2), {"*": schedule()})
    for block_size in (4, (4,), (4, 2.0), "44", (1, 2, 3)):
        with pytest.raises(TypeError, match=r"block_size must be two integers .*\(4, 4\).*, got"):
            tf_movprune.prune_low_movement(sequential(), schedule(), block_size=block_size)
    with pytest.raises(ValueError, match=r"block_size must be .* at least 1.* got \(0, 1\)"):
        tf_movprune.prune_low_movement(sequential(), schedule(), block_size=(0, 1))
    with pytest.raises(TypeError, match=r"score_learning_rate_multiplier must be a number .*'3'"):
        tf_movprune.prune_low_movement(sequential(), schedule(), score_learning_rate_multiplier="3")
    with pytest.raises(ValueError, match=r"scale must be greater than 0, got -1"):
        tf_movprune.MagnitudeScores(-1)


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


class Attentive(keras.Model):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)
        self.head = layers.Dense(2)

    def call(self, x, training=None):
        return self.head(self.attention(x, x, training=training)[:, 0])


def test_attention_must_be_built_first(tmp_path):
    model = Attentive()
    with pytest.raises(ValueError, match=r"MultiHeadAttention\) makes its kernels .* before"):
        tf_movprune.prune_low_movement(model, schedule())
    assert isinstance(model.attention, layers.MultiHeadAttention)
    model(np.ones([2, 3, 8], np.float32))
    tf_movprune.prune_low_movement(model, schedule())
    assert len(tf_movprune.pruned_layers(model)["attention"].kernels) == 4

    # A SavedModel would not bring the wrappers of attention back.
    with pytest.raises(ValueError, match=r"pruning wrappers inside .* would not load"):
        model.save(tmp_path / "model")


def test_stripping_a_kernel_of_which_nothing_remains_warns():
    ramp = tf_movprune.CubicSparsity(0.99, 0, 4)
    pruned = tf_movprune.prune_low_movement(layers.Dense(4, name="hidden"), ramp)
    pruned.build([None, 8])
    tf_movprune.update_masks(pruned, 4)
    with pytest.warns(UserWarning, match=r"Nothing remains of a kernel of hidden\. Prune less"):
        tf_movprune.strip_pruning(pruned)
