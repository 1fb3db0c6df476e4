"""The wrapper that prunes layers of tf_keras: its weights, its files, what code sees of it."""

import copy

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from wrapped import mask_of, prune

import tf_movprune
from tf_movprune.core.scores import is_scores

layers = keras.layers


def schedule(final_sparsity=0.75):
    return tf_movprune.CubicSparsity(final_sparsity, begin_step=0, end_step=2)


def wrapped(layer, method=None, **kwargs):
    method = method or tf_movprune.HardMovement(keras.initializers.RandomNormal(seed=1))
    return tf_movprune.PruneLowMovement(layer, schedule(), method, **kwargs)


def test_weights_by_name_and_type():
    layer = wrapped(layers.Dense(4, name="dense"))
    layer(np.ones([1, 8], np.float32))
    scores, mask, threshold = (
        layer.kernels[0].scores,
        layer.kernels[0].mask,
        layer.kernels[0].threshold,
    )
    assert scores.name.endswith("kernel/movement_scores:0") and is_scores(scores)
    assert (scores.dtype, mask.dtype, threshold.dtype) == (tf.float32, tf.bool, tf.float32)
    assert scores.shape == mask.shape == [8, 4]
    assert [is_scores(weight) for weight in layer.trainable_weights].count(True) == 1
    assert len(layer.trainable_weights) == 3 and len(layer.non_trainable_weights) == 2
    assert not any(is_scores(weight) for weight in layer.non_trainable_weights)


def test_magnitude_has_no_scores():
    layer = wrapped(layers.Dense(4), tf_movprune.Magnitude())
    layer(np.ones([1, 8], np.float32))
    assert layer.kernels[0].scores is None and len(layer.trainable_weights) == 2


def test_json_round_trip():
    layer = wrapped(
        layers.Dense(4, name="dense"), block_size=(2, 2), score_learning_rate_multiplier=7.0
    )
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(copy, tf_movprune.PruneLowMovement)
    assert copy.get_config() == layer.get_config()
    assert isinstance(copy.settings.schedule, tf_movprune.CubicSparsity)
    assert isinstance(copy.settings.method.score_initializer, keras.initializers.RandomNormal)
    assert (copy.settings.block_size, copy.settings.score_learning_rate_multiplier) == ((2, 2), 7.0)


def test_what_cannot_be_wrapped():
    with pytest.raises(ValueError, match="layer with prunable weights, got ReLU"):
        wrapped(layers.ReLU())
    with pytest.raises(TypeError, match="pruning_schedule must be"):
        tf_movprune.PruneLowMovement(layers.Dense(2), 0.5)


def test_deferred_restore_brings_the_saved_scores(tmp_path):
    """The variables of an unbuilt layer are restored when they are made."""
    start = tf_movprune.HardMovement(tf_movprune.MagnitudeScores())

    def model():
        return keras.Sequential(
            [wrapped(layers.Dense(4), start, score_learning_rate_multiplier=10)]
        )

    x = np.ones([1, 8], np.float32)
    saved = model()
    saved(x)
    saved.layers[0].kernels[0].scores.assign(tf.fill([8, 4], 7.0))
    path = tf.train.Checkpoint(saved).save(str(tmp_path / "saved"))
    restored = model()
    tf.train.Checkpoint(restored).restore(path)
    restored(x)
    np.testing.assert_array_equal(restored.layers[0].kernels[0].scores, np.full([8, 4], 7.0))


def test_stateful_layers_are_reset():
    lstm = layers.LSTM(3, stateful=True)
    layer = wrapped(lstm)
    model = keras.Sequential([keras.Input([5, 2], batch_size=2), layer])
    x = np.random.RandomState(0).standard_normal([2, 5, 2]).astype(np.float32)
    first = model(x).numpy()
    assert np.any(model(x).numpy() != first)
    model.reset_states()
    np.testing.assert_array_equal(model(x), first)


def test_the_penalty_of_a_copy_is_its_own():
    schedule = tf_movprune.CubicThreshold(0.1, 0, 4)
    layer = tf_movprune.PruneLowMovement(
        layers.Dense(3), schedule, tf_movprune.SoftMovement(final_lambda=8.0)
    )
    layer(np.ones([1, 4], np.float32))
    tf_movprune.update_masks(layer, 4)
    copied = copy.deepcopy(layer)
    copied.kernels[0].scores.assign_add(tf.fill([4, 3], 1e-3))
    with tf.GradientTape() as tape:
        loss = tf.add_n(copied.losses)
    to_copy, to_original = tape.gradient(loss, [k.kernels[0].scores for k in (copied, layer)])
    assert np.all(to_copy.numpy() > 0) and to_original is None
    assert float(loss) > float(tf.add_n(layer.losses))


def test_another_schedule_is_that_of_the_kernels_and_of_the_configuration():
    layer = wrapped(layers.Dense(4))
    layer(np.ones([1, 8], np.float32))
    layer.pruning_schedule = tf_movprune.CubicSparsity(0.75, 0, 4)
    assert layer.get_config()["pruning_schedule"]["config"]["final_sparsity"] == 0.75
    assert float(tf_movprune.update_masks(layer, 4)) == 0.75
    with pytest.raises(ValueError, match="sparsity schedule is needed"):
        layer.pruning_schedule = tf_movprune.CubicThreshold(0.1, 0, 4)
    assert layer.pruning_schedule.final_sparsity == 0.75


def test_a_schedule_may_be_corrected_in_place():
    layer = wrapped(layers.Dense(4))
    layer(np.ones([1, 8], np.float32))
    assert layer.kernels[0].settings.ramp.end_step != 7
    layer.pruning_schedule.end_step = 7
    assert layer.kernels[0].settings.ramp.end_step == 7


# ---- the layer inside, as other code sees it


def test_attributes_are_those_of_the_layer():
    dense, lstm = wrapped(layers.Dense(4)), wrapped(layers.LSTM(3, stateful=True))
    x = np.ones([1, 5, 8], np.float32)
    dense(x), lstm(x)
    assert dense.units == 4 and lstm.cell.units == 3 and lstm.states[0].shape == (1, 3)
    np.testing.assert_array_equal(dense.kernel, dense.layer.kernel)
    tf_movprune.update_masks(dense, 2)
    np.testing.assert_array_equal(dense.kernel, np.where(mask_of(dense), dense.layer.kernel, 0))
    assert dense.bias is dense.layer.bias
    with pytest.raises(AttributeError, match="nothing"):
        _ = dense.nothing
    dense.own = 3
    assert dense.own == 3 and not hasattr(dense.layer, "own")


@pytest.mark.parametrize("method", [None, tf_movprune.L0()], ids=["movement", "L0"])
def test_positional_arguments_are_those_of_the_layer(method):
    attention = layers.MultiHeadAttention(2, 4, dropout=0.5)
    x, y = (np.random.RandomState(i).standard_normal([2, 5, 8]).astype("float32") for i in (0, 1))
    mask = np.tril(np.ones([2, 5, 5], bool))
    expected = attention(x, y, y, mask, True)
    ramp = None if method else schedule()
    layer = tf_movprune.PruneLowMovement(
        attention, ramp, method or tf_movprune.HardMovement(keras.initializers.RandomNormal())
    )
    if not method:
        for a, b in zip(layer(x, y, y, mask, True), expected):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(layer(query=x, value=y, attention_mask=mask, key=y), expected[:1]):
            np.testing.assert_array_equal(a, b[0])
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        layer(x, y, y, mask, True, True)
    tf_movprune.update_masks(layer, 0)
    trained = [layer(x, y, training=True).numpy(), layer(x, y, None, None, False, True).numpy()]
    assert np.any(trained[0] != layer(x, y))  # dropout, and the noise of L0


@pytest.mark.parametrize(
    "make",
    [
        lambda: wrapped(layers.Embedding(10, 3), input_shape=[5]),
        lambda: wrapped(layers.Embedding(10, 3, input_length=5)),
        lambda: wrapped(layers.Embedding(10, 3), batch_input_shape=[None, 5]),
        lambda: wrapped(layers.Embedding(10, 3, input_shape=[5])),
    ],
)
def test_a_declared_input_shape_stays(make):
    model = keras.Sequential([make(), layers.Flatten(), layers.Dense(1)])
    assert model.input_shape == (None, 5) and model.layers[0].output_shape == (None, 5, 3)


def test_the_weights_of_the_layer_come_first():
    layer = keras.layers.Dense(3, input_shape=[2])
    wrapper = prune(layer)
    wrapper.build([None, 2])
    for trainable in (True, False):
        wrapper.trainable = trainable
        assert [id(w) for w in wrapper.weights[:2]] == [id(w) for w in layer.weights]
        assert len(wrapper.weights) == 5 and len(wrapper.trainable_weights) == 3 * trainable


class Scoring(keras.layers.Dense):
    def build(self, shape):
        self.scores = self.add_weight("scores", [3])
        super().build(shape)


class Positioned(keras.layers.Dense):
    position = 3


@pytest.mark.parametrize("make, name", [(Scoring, "scores"), (Positioned, "position")])
def test_layers_with_attributes_of_the_wrapper_are_refused(make, name):
    layer = make(3)
    layer.build([None, 2])
    with pytest.raises(ValueError, match=rf"has its own '{name}'.* Rename"):
        prune(layer)
