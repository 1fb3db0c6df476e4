"""Tables of sparsity, and the named recipe."""

import numpy as np
import pytest
import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_policy import PruningPolicy

import tf_movprune


def model():
    return keras.Sequential(
        [keras.layers.Dense(10, input_shape=(10,), name=name) for name in ("a", "b", "out")]
    )


def test_table_and_dict():
    pruned = tf_movprune.prune_low_movement(
        model(),
        {
            "a": tf_movprune.CubicSparsity(0.9, 0, 1),
            "b": tf_movprune.CubicSparsity(0.5, 0, 1),
        },
    )
    tf_movprune.update_masks(pruned, 1)
    report = tf_movprune.summarize_sparsity(pruned)
    a = {"remaining": 10, "total": 100, "sparsity": 0.9}
    b = {"remaining": 50, "total": 100, "sparsity": 0.5}
    groups = ["HardMovement to sparsity 0.9", "HardMovement to sparsity 0.5"]
    assert report.as_dict() == {
        "weights": {
            "a.kernel": {"shape": (10, 10), **a},
            "b.kernel": {"shape": (10, 10), **b},
        },
        "groups": {groups[0]: a, groups[1]: b},
        "remaining": 60,
        "total": 200,
        "sparsity": 0.7,
    }
    header, first, second, _, one, other, last = str(report).splitlines()
    assert header.split() == ["weight", "shape", "remaining", "total", "sparsity"]
    assert first.split() == ["a.kernel", "10x10", "10", "100", "90.00%"]
    assert second.split() == ["b.kernel", "10x10", "50", "100", "50.00%"]
    assert one.split() == [*groups[0].split(), "10", "100", "90.00%"]
    assert other.split() == [*groups[1].split(), "50", "100", "50.00%"]
    assert last.split() == ["all", "60", "200", "70.00%"]


class TwoKernels(keras.layers.Layer):
    """Of one name, as weights of a user's own may be."""

    def build(self, shape):
        self.left = self.add_weight("kernel", [shape[-1], 4])
        self.right = self.add_weight("kernel", [shape[-1], 4])

    def call(self, x):
        return x @ self.left + x @ self.right

    def get_prunable_weights(self):
        return [self.left, self.right]


class Everything(PruningPolicy):
    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


def test_rows_have_paths_of_their_own():
    x = keras.Input([4, 4, 3])
    y = keras.layers.SeparableConv2D(4, 1, name="separable")(x)
    y = keras.layers.Reshape([16, 4])(y)
    y = keras.layers.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = keras.layers.LSTM(4, name="lstm")(y)
    y = TwoKernels(name="two")(y)
    model = keras.Model(x, keras.layers.Dense(2, name="head")(y))
    pruned_by_default = [
        "separable.pointwise_kernel",
        "attention.query.kernel",
        "attention.key.kernel",
        "attention.value.kernel",
        "attention.attention_output.kernel",
        "two.kernel_0",
        "two.kernel_1",
    ]

    def paths(model):
        report = tf_movprune.summarize_sparsity(model)
        found = [weight.path for weight in report.weights]
        assert list(report.as_dict()["weights"]) == found
        return found

    assert paths(model) == pruned_by_default
    schedule = tf_movprune.CubicSparsity(0.5, 0, 1)
    pruned = tf_movprune.prune_low_movement(model, schedule, pruning_policy=Everything())
    others = {"lstm.kernel", "lstm.recurrent_kernel", "head.kernel"}
    assert set(paths(pruned)) == {*pruned_by_default, *others}


def test_nothing_to_report():
    with pytest.raises(ValueError, match="no prunable weights"):
        tf_movprune.summarize_sparsity(keras.Sequential([keras.layers.ReLU(input_shape=(2,))]))


def test_short_run():
    recipe = tf_movprune.ShortRun(num_train_steps=1500, final_sparsity=0.8)
    schedule = recipe.schedule
    assert (schedule.begin_step, schedule.end_step, schedule.final_sparsity) == (150, 1050, 0.8)
    assert recipe.method == tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))
    optimizer = recipe.create_optimizer(8e-5, weight_decay=0.01)
    assert optimizer.weight_decay == 0.01
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
        scores.append([unit * layer._scaled_scores(0).numpy() for layer in pruned])
        kept.append([layer.kernels[0].mask.numpy() for layer in pruned])
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
