"""Tables of sparsity."""

import pytest
import tf_keras as keras
from wrapped import Everything

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
