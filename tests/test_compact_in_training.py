"""Models of either Keras that become smaller in the middle of their training."""

import numpy as np
import pytest
import tensorflow as tf

import tf_movprune
from tf_movprune import HEADS, NEURONS

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([128, 8]).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
HALF, STEPS, BATCH = 64, 8, 8


def mlp(keras):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu", name=f"hidden_{i}") for i in range(2)]
    return keras.Sequential([keras.Input([8]), *layers, keras.layers.Dense(2, name="head")])


def attention(keras):
    keras.utils.set_random_seed(0)
    inputs = keras.Input([8])
    x = keras.layers.Reshape([4, 2])(inputs)
    x = keras.layers.Dense(8, name="wide")(x)
    x = keras.layers.MultiHeadAttention(4, 4, name="attention")(x, x)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def trained(keras, model, method, optimizer, block_size=NEURONS):
    """A pruned model after the first half of its data, whose masks do not change any more."""
    ramp = tf_movprune.CubicSparsity(0.5, 0, STEPS - 2, freeze_step=STEPS - 2)
    if block_size is HEADS:
        ramp = {"attention*": ramp}
    model = tf_movprune.prune_low_movement(model, ramp, method, block_size=block_size)
    model.compile(optimizer(model), loss_of(keras), metrics=["accuracy"])
    return fit(model, X[:HALF], Y[:HALF], tf_movprune.UpdatePruningStep(2 * STEPS))


def loss_of(keras):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit(model, x, y, *callbacks):
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def goes_on(keras, model):
    """The smaller model after the second half, and its optimizer."""
    small, optimizer = tf_movprune.compact_in_training(model)
    small.compile(optimizer, loss_of(keras), metrics=["accuracy"])
    return fit(small, X[HALF:], Y[HALF:]), optimizer


def movement_adamw(keras, **kwargs):
    def make(model):
        scores = keras.optimizers.SGD(1.0)
        return tf_movprune.create_optimizer(
            1e-2, 2 * STEPS, 2, weight_decay=0.1, model=model, score_optimizer=scores, **kwargs
        )

    return make


OPTIMIZERS = {
    "movement": movement_adamw,
    "adam": lambda keras: lambda model: keras.optimizers.Adam(1e-2, amsgrad=True),
    "momentum": lambda keras: lambda model: keras.optimizers.SGD(1e-1, momentum=0.9),
    "plain": lambda keras: lambda model: keras.optimizers.SGD(1e-1),
    "average": lambda keras: lambda model: keras.optimizers.AdamW(1e-2, use_ema=True),
}


def quick(*some):
    return [pytest.param(x, marks=() if x in some else pytest.mark.slow) for x in OPTIMIZERS]


@pytest.mark.parametrize("name", quick("movement"))
@pytest.mark.parametrize("make, block_size", [(mlp, NEURONS), (attention, HEADS)])
def test_training_goes_on_as_that_of_the_masked_model(keras, name, make, block_size):
    """Masked weights get no gradient by magnitude, so that both compute the same."""
    optimizer, method = OPTIMIZERS[name](keras), tf_movprune.Magnitude()
    masked = trained(keras, make(keras), method, optimizer, block_size)
    fit(masked, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))
    small, used = goes_on(keras, trained(keras, make(keras), method, optimizer, block_size))
    np.testing.assert_allclose(small.predict(X, verbose=0), masked.predict(X, verbose=0), atol=2e-5)
    assert small.count_params() < make(keras).count_params()
    assert int(tf.convert_to_tensor(used.iterations)) == 2 * STEPS


def test_a_fresh_optimizer_would_go_another_way(keras):
    """So the tests above see that slots and counters are carried over."""
    optimizer, method = OPTIMIZERS["movement"](keras), tf_movprune.Magnitude()
    expected, _ = goes_on(keras, trained(keras, mlp(keras), method, optimizer))
    small, _ = tf_movprune.compact_in_training(trained(keras, mlp(keras), method, optimizer))
    small.compile(optimizer(small), loss_of(keras))
    fit(small, X[HALF:], Y[HALF:])
    difference = np.abs(small.predict(X, verbose=0) - expected.predict(X, verbose=0))
    assert difference.max() > 1e-2


def test_the_student_of_a_distiller_with_scores(keras):
    teacher, student = mlp(keras), mlp(keras)
    ramp = tf_movprune.CubicSparsity(0.5, 0, STEPS - 2, freeze_step=STEPS - 2)
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))
    student = tf_movprune.prune_low_movement(student, ramp, method, block_size=NEURONS)
    distiller = tf_movprune.Distiller(student, teacher)
    distiller.compile(movement_adamw(keras)(student))
    fit(distiller, X[:HALF], Y[:HALF], tf_movprune.UpdatePruningStep(2 * STEPS))
    before = student.predict(X, verbose=0)
    small, optimizer = tf_movprune.compact_in_training(distiller)
    np.testing.assert_allclose(small.predict(X, verbose=0), before, atol=1e-5)
    assert [layer.units for layer in small.layers] == [8, 8, 2]
    taught = tf_movprune.Distiller(small, teacher)
    taught.compile(optimizer)
    fit(taught, X[HALF:], Y[HALF:])
    assert int(tf.convert_to_tensor(optimizer.iterations)) == 2 * STEPS
    assert "score" not in str(optimizer.get_config().get("score_optimizer"))


def test_scaled_losses_and_excluded_weights(keras):
    def scaled(model):
        made = keras.optimizers.AdamW(1e-2, weight_decay=0.5)
        made.exclude_from_weight_decay(var_names=["bias"])
        wrapper = getattr(keras.optimizers, "LossScaleOptimizer", None)
        return (wrapper or keras.mixed_precision.LossScaleOptimizer)(made)

    method = tf_movprune.Magnitude()
    masked = trained(keras, mlp(keras), method, scaled)
    fit(masked, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))
    small, optimizer = goes_on(keras, trained(keras, mlp(keras), method, scaled))
    np.testing.assert_allclose(small.predict(X, verbose=0), masked.predict(X, verbose=0), atol=2e-5)
    assert type(optimizer) is type(masked.optimizer)


def test_frozen_layers(keras):
    def frozen():
        model = mlp(keras)
        model.get_layer("hidden_0").trainable = False
        return model

    optimizer, method = OPTIMIZERS["adam"](keras), tf_movprune.Magnitude()
    masked = trained(keras, frozen(), method, optimizer)
    fit(masked, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))
    small, _ = goes_on(keras, trained(keras, frozen(), method, optimizer))
    np.testing.assert_allclose(small.predict(X, verbose=0), masked.predict(X, verbose=0), atol=2e-5)


@pytest.mark.parametrize("by", ["variable", "name"])
def test_variables_that_users_exclude_from_decay(keras, by):
    def excluding(model):
        made = keras.optimizers.AdamW(1e-2, weight_decay=0.5)
        names = [getattr(v, "path", v.name) for v in model.trainable_variables]
        those = [v for v, n in zip(model.trainable_variables, names) if "hidden_0" in n]
        if by == "variable":
            made.exclude_from_weight_decay(those)
        else:
            made.exclude_from_weight_decay(var_names=["hidden_0"])
        return made

    method, after = tf_movprune.Magnitude(), []
    for goes_small in (True, False):
        model = trained(keras, mlp(keras), method, excluding)
        if goes_small:
            model, _ = goes_on(keras, model)
        else:
            fit(model, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))
        after.append(model.predict(X, verbose=0))
    np.testing.assert_allclose(*after, atol=2e-5)


def test_optimizers_that_cannot_be_made_anew(keras):
    class Halves(keras.optimizers.SGD):
        def __init__(self, rate):
            super().__init__(rate)

    model = trained(keras, mlp(keras), tf_movprune.Magnitude(), lambda model: Halves(0.1))
    with pytest.raises(ValueError, match=r"Halves cannot be made anew from its get_config\(\)"):
        tf_movprune.compact_in_training(model)
    assert tf_movprune.pruned_layers(model)
    fit(model, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))


def test_optimizers_with_hidden_variables():
    import tf_keras

    def nadam(model):
        return tf_keras.optimizers.Nadam(1e-2)

    model = trained(tf_keras, mlp(tf_keras), tf_movprune.Magnitude(), nadam)
    with pytest.raises(ValueError, match=r"Nadam keeps _u_product beside"):
        tf_movprune.compact_in_training(model)
    assert tf_movprune.pruned_layers(model)


def test_legacy_optimizers():
    import tf_keras

    def legacy(model):
        return tf_keras.optimizers.legacy.Adam(1e-2)

    model = trained(tf_keras, mlp(tf_keras), tf_movprune.Magnitude(), legacy)
    with pytest.raises(ValueError, match=r"legacy.adam.Adam, whose slots are kept in another way"):
        tf_movprune.compact_in_training(model)


def test_what_cannot_go_on_is_left_as_it_is(keras):
    method, plain = tf_movprune.Magnitude(), OPTIMIZERS["adam"](keras)
    weights = trained(keras, mlp(keras), method, plain, block_size=(1, 1))
    with pytest.raises(ValueError, match=r"hidden_0 is pruned in single weights or blocks"):
        tf_movprune.compact_in_training(weights)
    assert tf_movprune.pruned_layers(weights)
    ramp = tf_movprune.CubicSparsity(0.5, 0, 4)
    fresh = tf_movprune.prune_low_movement(mlp(keras), ramp, method, block_size=NEURONS)
    with pytest.raises(ValueError, match=r"was not trained: its optimizer has no state"):
        tf_movprune.compact_in_training(fresh)
    assert tf_movprune.pruned_layers(fresh)
    with pytest.raises(ValueError, match="has no pruned layers"):
        stripped = tf_movprune.strip_pruning(trained(keras, mlp(keras), method, plain))
        stripped.compile(plain(stripped), loss_of(keras))
        tf_movprune.compact_in_training(fit(stripped, X, Y))
    early = tf_movprune.prune_low_movement(mlp(keras), ramp, method, block_size=NEURONS)
    early.compile(plain(early), loss_of(keras))
    fit(early, X[:8], Y[:8], tf_movprune.UpdatePruningStep(4))
    with pytest.raises(ValueError, match=r"hidden_0 is pruned until step 4, and this is step 1"):
        tf_movprune.compact_in_training(early)
    assert tf_movprune.pruned_layers(early)

    def factored(model):
        return keras.optimizers.Adafactor(1e-2)

    rows = trained(keras, mlp(keras), method, factored)
    with pytest.raises(ValueError, match=r"Adafactor keeps .* of another shape"):
        tf_movprune.compact_in_training(rows)
    assert tf_movprune.pruned_layers(rows)
    fit(rows, X[HALF:], Y[HALF:], tf_movprune.UpdatePruningStep(2 * STEPS))
