"""Named recipes."""

import re
import warnings

import numpy as np
import pytest
import tf_keras as keras
from runs import data, dense_model
from wrapped import mask_of

import tf_movprune


def test_short_run():
    recipe = tf_movprune.ShortRun(num_train_steps=1500, final_sparsity=0.8)
    schedule = recipe.schedule
    assert (schedule.begin_step, schedule.end_step, schedule.final_sparsity) == (150, 1050, 0.8)
    assert recipe.method == tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))
    optimizer = recipe.create_optimizer(8e-5, weight_decay=0.01, clipnorm=None)
    assert optimizer.weight_decay == 0.01 and optimizer.global_clipnorm is None
    for name in ("num_warmup_steps", "score_optimizer"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            recipe.create_optimizer(8e-5, **{name: 1})
    rate = optimizer.score_optimizer._learning_rate
    assert isinstance(optimizer.score_optimizer, keras.optimizers.SGD)
    assert float(rate(150)) == 1.0 and float(rate(1500)) == 0.0
    with pytest.raises(ValueError, match="num_train_steps must be at least 10, got 3"):
        tf_movprune.ShortRun(3)
    for steps in ("1500", 1500.5, True):
        with pytest.raises(TypeError, match="num_train_steps must be an integer such as 1500, got"):
            tf_movprune.ShortRun(steps)
    with pytest.raises(TypeError, match="learning_rate must be a number such as 3e-05, got '1e-3'"):
        recipe.create_optimizer("1e-3")
    with pytest.raises(ValueError, match="final_sparsity must be in"):
        tf_movprune.ShortRun(100, final_sparsity=1.0)


def test_short_run_of_soft_movement_is_that_of_global_selection():
    """But for the penalty: the same movement, in other units."""
    random = np.random.RandomState(0)
    inputs = random.standard_normal([160, 8]).astype("float32")
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype("int32")
    scores, kept = [], []
    for method in (
        tf_movprune.HardMovement(scope="global"),
        tf_movprune.SoftMovement(0.0, minimum_remaining=0.0, target=True),
    ):
        recipe = tf_movprune.ShortRun(20, 0.75, method)
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(24, "tanh", input_shape=[8]), keras.layers.Dense(16, "tanh")]
        model = keras.Sequential([*layers, keras.layers.Dense(2)])
        model = tf_movprune.prune_low_movement(model, recipe.schedule, recipe.method)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(recipe.create_optimizer(1e-2), loss)
        update = tf_movprune.UpdatePruningStep()
        model.fit(inputs, labels, 8, verbose=0, shuffle=False, callbacks=[update])
        pruned = list(tf_movprune.pruned_layers(model).values())
        unit = 1.0 if method.has_penalty else 1e3
        scores.append([unit * layer.kernels[0].paper_scores().numpy() for layer in pruned])
        kept.append([mask_of(layer) for layer in pruned])
    for hard, soft in zip(*scores):
        assert np.std(hard) > 0
        np.testing.assert_allclose(hard, soft, rtol=1e-3, atol=1e-4)
    for hard, soft in zip(*kept):
        np.testing.assert_array_equal(hard, soft)
    assert sum(mask.sum() for mask in kept[0]) == (8 * 24 + 24 * 16) // 4


def test_short_run_of_other_methods():
    recipe = tf_movprune.ShortRun(100, 0.8, tf_movprune.Magnitude(scope="global"))
    assert recipe.method == tf_movprune.Magnitude(scope="global")
    own = tf_movprune.HardMovement(score_initializer="ones")
    assert tf_movprune.ShortRun(100, method=own).method is own
    with pytest.raises(ValueError, match=r"reaches a given sparsity, but SoftMovement\(.* target"):
        tf_movprune.ShortRun(100, method=tf_movprune.SoftMovement(100.0))
    with pytest.raises(ValueError, match="reaches a given sparsity, but L0"):
        tf_movprune.ShortRun(100, method=tf_movprune.L0())
    with pytest.raises(TypeError, match="method must be an object such as"):
        tf_movprune.ShortRun(100, method="hard")


@pytest.mark.parametrize(
    "optimizer, what",
    [
        (lambda recipe: keras.optimizers.Adam(1e-3), r"by Adam: accuracy is lower"),
        (lambda recipe: keras.optimizers.SGD(0.01), r"at rate 0\.01: accuracy is lower"),
        (lambda recipe: tf_movprune.create_optimizer(1e-3, 12, 1), r"by MovementAdamW: acc"),
        (lambda recipe: recipe.create_optimizer(1e-3), None),
        (lambda recipe: keras.optimizers.SGD(1.0), None),
    ],
)
def test_scores_that_learn_by_another_optimizer_are_warned_of(optimizer, what):
    recipe = tf_movprune.ShortRun(12, 0.5)
    model = recipe.prune(dense_model())
    model.compile(optimizer(recipe), "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data(), epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    messages = [str(w.message) for w in caught if "MagnitudeScores(0.001)" in str(w.message)]
    assert len(messages) == (what is not None)
    assert what is None or re.search(what, messages[0])
