"""Choice of the layers that are pruned and of their settings, and refusals."""

import numpy as np
import pytest
import tf_keras as keras
from architectures import inputs, random_scores, schedule, sequential, subclassed
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_policy import PruningPolicy
from wrapped import Everything

import tf_movprune

layers = keras.layers


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


def test_nothing_to_prune():
    with pytest.raises(ValueError, match=r"Nothing to prune.*output layer.*pruning_policy"):
        tf_movprune.prune_low_movement(
            keras.Sequential([layers.Dense(2, input_shape=(3,))]), schedule()
        )

    class Empty(keras.Model):
        pass

    with pytest.raises(ValueError, match="not built: call it once"):
        tf_movprune.prune_low_movement(Empty(), schedule())
    with pytest.raises(ValueError, match="list of 1 layer:"):
        tf_movprune.prune_low_movement([layers.ReLU()], schedule())
    with pytest.raises(ValueError, match=r"MultiHeadAttention.*first called"):
        attention = layers.MultiHeadAttention(2, 4)
        attention.built = True
        tf_movprune.prune_low_movement(attention, schedule())


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
    kernels = r"first.kernel \(8, 16\), .*second.kernel \(16, 12\)"
    with pytest.raises(ValueError, match=rf"block_size \(3, 1\) .* {kernels}"):
        tf_movprune.prune_low_movement(sequential(), schedule(), block_size=(3, 1))
    unbuilt = tf_movprune.prune_low_movement(
        layers.Dense(3, name="late"), schedule(), block_size=(2, 2)
    )
    with pytest.raises(
        ValueError, match=r"not divide those of late\.kernel \(8, 3\)\. Blocks\(2, 1"
    ):
        unbuilt(inputs(2, 8))
    with pytest.raises(TypeError, match="Unexpected arguments for a model: name"):
        tf_movprune.prune_low_movement(sequential(), schedule(), name="x")
    with pytest.raises(TypeError, match="single layer takes no pruning_policy"):
        tf_movprune.prune_low_movement(layers.Dense(2), schedule(), pruning_policy=Everything())
    with pytest.raises(TypeError, match="single layer takes one"):
        tf_movprune.prune_low_movement(layers.Dense(2), {"*": schedule()})
    for block_size in (4, (4,), (4, 2.0), "44", (1, 2, 3)):
        with pytest.raises(TypeError, match=r"block_size must be the rows .*\(4, 4\).*, got"):
            tf_movprune.prune_low_movement(sequential(), schedule(), block_size=block_size)
    with pytest.raises(ValueError, match=r"block_size must be .* at least 1.* got \(0, 1\)"):
        tf_movprune.prune_low_movement(sequential(), schedule(), block_size=(0, 1))
    with pytest.raises(TypeError, match=r"score_learning_rate_multiplier must be a number .*'3'"):
        tf_movprune.prune_low_movement(sequential(), schedule(), score_learning_rate_multiplier="3")
    with pytest.raises(ValueError, match=r"scale must be greater than 0, got -1"):
        tf_movprune.MagnitudeScores(-1)


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


IDS = np.random.RandomState(0).randint(0, 1000, [64, 12])


def text_classifier():
    return keras.Sequential(
        [
            layers.Embedding(1000, 16, input_length=12, mask_zero=True, name="embedding"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )


def test_an_embedding_goes_all_the_way(tmp_path):
    ramp = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=3)
    sizes = {}
    for kind, patterns in (("default", ramp), ("named", {"embedding": ramp, "*": ramp})):
        model = tf_movprune.prune_low_movement(
            text_classifier(), patterns, tf_movprune.HardMovement(tf_movprune.MagnitudeScores())
        )
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(IDS, IDS[:, 0] % 2, 16, callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
        masked = model.predict(IDS, verbose=0)
        report = tf_movprune.summarize_sparsity(model)
        plain = tf_movprune.strip_pruning(model)
        np.testing.assert_array_equal(plain.predict(IDS, verbose=0), masked)
        assert tf_movprune.summarize_sparsity(plain).as_dict()["weights"].keys() == (
            report.as_dict()["weights"].keys()
        )
        assert tf_movprune.export_tflite(plain, tmp_path / "model.tflite").max_abs_diff < 0.1
        tf_movprune.export_compressed(plain, tmp_path / "model.movprune")
        sizes[kind] = (tmp_path / "model.movprune").stat().st_size
    assert np.count_nonzero(plain.layers[0].embeddings) == 1600
    assert sizes["named"] < 0.6 * sizes["default"]
    loaded = text_classifier()
    tf_movprune.load_compressed(tmp_path / "model.movprune", loaded)
    np.testing.assert_allclose(loaded.predict(IDS, verbose=0), masked, atol=0.05)


def recurrent():
    """Unrolled over two steps: loops take TensorFlow seconds to trace."""
    lstm = layers.LSTM(4, return_sequences=True, unroll=True)
    return keras.Sequential(
        [
            layers.Embedding(50, 8, input_length=2, name="embedding"),
            layers.Bidirectional(lstm, name="both"),
            layers.GRU(4, unroll=True, name="gru"),
            layers.Dense(8, name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )


@pytest.mark.parametrize(
    "pattern, paths",
    [
        ("embedding", ["embedding"]),
        ("output", ["output"]),
        ("gru", ["gru"]),
        ("both.*", ["both.forward_layer", "both.backward_layer"]),
    ],
)
def test_patterns_take_layers_that_the_default_leaves_out(pattern, paths):
    assert wrapped_of({pattern: schedule()}) == paths


def wrapped_of(patterns, **kwargs):
    model = tf_movprune.prune_low_movement(recurrent(), patterns, random_scores(), **kwargs)
    return list(tf_movprune.pruned_layers(model))


def test_patterns_beside_others():
    assert set(wrapped_of({"output": schedule(), "*": schedule()})) == {"output", "hidden"}
    assert set(wrapped_of(schedule(), block_size={"gru": (2, 1)})) == {"gru", "hidden"}
    assert wrapped_of({"*": schedule()}) == ["hidden"]


def test_patterns_do_not_reach_past_a_policy():
    with pytest.raises(ValueError, match=r"'second' .*matches no prunable layer.* first, output"):
        tf_movprune.prune_low_movement(
            sequential(), {"second": schedule()}, pruning_policy=OnlyFirst()
        )


class NoPolicy:
    def allow_pruning(self, layer):
        return True


@pytest.mark.parametrize(
    "policy, received",
    [
        ("x", "'x'"),
        (OnlyFirst, "the class OnlyFirst"),
        (NoPolicy(), "NoPolicy object"),
        (lambda layer: True, "function"),
        (["first"], r"\['first'\]"),
    ],
)
def test_policies_of_another_type(policy, received):
    for to_prune in (sequential(), [layers.Dense(2)]):
        with pytest.raises(
            TypeError, match=rf"must be an object such as tf_movp.*got .*{received}"
        ):
            tf_movprune.prune_low_movement(to_prune, schedule(), pruning_policy=policy)


def test_a_policy_that_refuses_everything():
    class Nothing(OnlyFirst):
        def allow_pruning(self, layer):
            return False

    with pytest.raises(ValueError, match=r"pruning_policy refused every layer"):
        tf_movprune.prune_low_movement(sequential(), schedule(), pruning_policy=Nothing())


def test_nothing_but_what_is_left_out():
    model = keras.Sequential([layers.Embedding(9, 4, input_length=3), layers.LSTM(4)])
    with pytest.raises(ValueError, match=r"layers \(embedding\w*, lstm\w*\) are left out.*pattern"):
        tf_movprune.prune_low_movement(model, schedule())


class OddNames(keras.Model):
    """Holds layers in attributes that Keras's own models have."""

    def __init__(self):
        super().__init__()
        self.block = self.Block()
        self.history = layers.Dense(5)
        self.outputs = [layers.Dense(3)]

    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inputs, self.optimizer = layers.Dense(8), layers.Dense(4)

        def call(self, x):
            return self.optimizer(self.inputs(x))

    def call(self, x):
        return self.outputs[0](self.history(self.block(x)))


def test_layers_in_attributes_that_models_have():
    model = OddNames()
    x = np.random.RandomState(0).standard_normal([4, 6]).astype("float32")
    before = model(x)
    pruned = tf_movprune.prune_low_movement(
        model, schedule(), tf_movprune.Magnitude(), pruning_policy=Everything()
    )
    paths = ["block.inputs", "block.optimizer", "history", "outputs.0"]
    assert list(tf_movprune.pruned_layers(pruned)) == paths
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(x), before)
    assert type(model.history) is type(model.outputs[0]) is layers.Dense
