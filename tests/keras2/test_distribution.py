"""Pruned models under `tf.distribute`, on two devices of one machine."""

import subprocess
import sys
import textwrap

PROGRAM = """
    import warnings
    import numpy as np, tensorflow as tf, tf_keras as keras
    import tf_movprune

    cpu, = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    random = np.random.RandomState(0)
    x, y = random.standard_normal([32, 8]).astype("float32"), random.randint(0, 3, 32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    start = tf_movprune.MagnitudeScores(0.01)
    schedule = tf_movprune.CubicSparsity(0.75, begin_step=1, end_step=6)
    warnings.simplefilter("error", UserWarning)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(16, "relu")
            self.second, self.out = keras.layers.Dense(16), keras.layers.Dense(3)

        def call(self, x, training=False):
            return self.out(self.second(self.first(x)))

    def model(is_own):
        if is_own:
            own = Own()
            own(x)
            return own
        shapes = [dict(units=16, activation="relu", input_shape=[8]), dict(units=16)]
        return keras.Sequential([*(keras.layers.Dense(**s) for s in shapes), keras.layers.Dense(3)])

    def components(variable):
        return [np.array(each) for each in getattr(variable, "values", [variable])]

    METHODS = {
        "hard": (tf_movprune.HardMovement(start), {}),
        "global": (tf_movprune.HardMovement(start, scope="global"), {}),
        "soft": (tf_movprune.SoftMovement(10.0, target=True, score_initializer=start), {}),
        "magnitude": (tf_movprune.Magnitude(), {}),
        "L0": (tf_movprune.L0(10.0), {}),
        "neurons": (tf_movprune.HardMovement(start), {"block_size": tf_movprune.NEURONS}),
    }

    # More strategies in a process would mix up their collective operations.
    STRATEGIES = [tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"][:n]) for n in (1, 2)]

    for name, replicas, is_own in CASES:
        method, kwargs = METHODS[name]
        strategy = STRATEGIES[replicas - 1]
        with strategy.scope():
            pruned = tf_movprune.prune_low_movement(
                model(is_own), None if name == "L0" else schedule, method, **kwargs
            )
            pruned.compile(keras.optimizers.Adam(1e-2), loss)
        callbacks = [tf_movprune.UpdatePruningStep()]
        history = pruned.fit(
            x, y, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=callbacks
        )
        outside = float(tf_movprune.update_masks(pruned, 8, force=True))
        with strategy.scope():
            inside = float(tf_movprune.update_masks(pruned, 8, force=True))
        assert outside == inside == history.history["sparsity"][-1], name
        assert inside > 0.5 or name == "L0", (name, inside)
        for layer in tf_movprune.pruned_layers(pruned).values():
            for kernel in layer.kernels:
                for variable in kernel.variables:
                    first, *others = components(variable)
                    assert all(np.array_equal(first, other) for other in others), variable.name
        masked = pruned(x).numpy()
        with strategy.scope():
            assert np.array_equal(pruned(x), masked)
        assert tf_movprune.summarize_sparsity(pruned).sparsity == pytest_approx(inside)
        stripped = tf_movprune.strip_pruning(pruned)
        assert np.array_equal(stripped(x), masked), name
        print(name, replicas, is_own, "done")
"""

CASES = [
    *((name, 2, False) for name in ("hard", "global", "soft", "magnitude", "L0", "neurons")),
    *(("hard", 2, True), ("hard", 1, False), ("L0", 1, True)),
]


def test_training_updates_calls_and_stripping():
    lines = ["from pytest import approx as pytest_approx", f"CASES = {CASES!r}"]
    code = "\n".join([*lines, textwrap.dedent(PROGRAM)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == len(CASES)
