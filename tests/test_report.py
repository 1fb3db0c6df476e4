"""Tables of sparsity, and the named recipe."""

import pytest
import tf_keras as keras

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
    assert report.as_dict() == {
        "weights": {
            "a.kernel": {"shape": (10, 10), "remaining": 10, "total": 100, "sparsity": 0.9},
            "b.kernel": {"shape": (10, 10), "remaining": 50, "total": 100, "sparsity": 0.5},
        },
        "remaining": 60,
        "total": 200,
        "sparsity": 0.7,
    }
    header, first, second, _, last = str(report).splitlines()
    assert header.split() == ["weight", "shape", "remaining", "total", "sparsity"]
    assert first.split() == ["a.kernel", "10x10", "10", "100", "90.00%"]
    assert second.split() == ["b.kernel", "10x10", "50", "100", "50.00%"]
    assert last.split() == ["all", "60", "200", "70.00%"]


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
    with pytest.raises(ValueError, match="final_sparsity must be in"):
        tf_movprune.ShortRun(100, final_sparsity=1.0)
