"""Pruned models, and students, under `tf.distribute`, on two devices of one machine.

They need a process of their own, since devices are set up before anything else. All tests share
one: it takes seconds to load TensorFlow.
"""

import itertools
import json
import subprocess
import sys
import textwrap

import pytest
from shells import KERASES

REDUCTIONS = ("sum", "sum_over_batch_size")

SETUP = """
    import importlib, itertools, json, traceback, warnings
    import numpy as np, tensorflow as tf, tf_keras as keras
    from pytest import approx
    import tf_movprune

    cpu, = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)

    # More strategies in a process would mix up their collective operations.
    STRATEGIES = [tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"][:n]) for n in (1, 2)]
"""

PRUNING = """
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
        assert tf_movprune.summarize_sparsity(pruned).sparsity == approx(inside)
        stripped = tf_movprune.strip_pruning(pruned)
        assert np.array_equal(stripped(x), masked), name
        done.append([name, replicas, is_own])
"""

DISTILLATION = """
    x = np.random.RandomState(0).standard_normal([24, 8]).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)

    def run(keras, strategy, reduction, cached):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            regularizer = keras.regularizers.L2(0.1)
            student, teacher = (
                keras.Sequential([keras.layers.Dense(2, None, True, kernel, None, regularizer)])
                for kernel in ("glorot_uniform", "ones")
            )
            student.build([None, 8]), teacher.build([None, 8])
            loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
            distiller = tf_movprune.Distiller(student, None if cached else teacher)
            distiller.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        if cached:
            data = tf_movprune.cache_teacher_logits(data, teacher)
        history = distiller.fit(data, epochs=2, verbose=0).history
        return [*history.values(), *(w.flatten() for w in distiller.get_weights())]

    assert STRATEGIES[1].num_replicas_in_sync == 2
    for name, reduction in itertools.product(KERASES, REDUCTIONS):
        module = importlib.import_module(name)
        expected = run(module, tf.distribute.get_strategy(), reduction, False)
        for cached in (False, True):
            for a, b in zip(expected, run(module, STRATEGIES[1], reduction, cached), strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
            done.append([name, reduction, cached])
"""

OPTIMIZER = """
    def replicas_after(keras):
        keras.utils.set_random_seed(0)
        with STRATEGIES[1].scope():
            layers = [
                keras.Input([8]),
                keras.layers.Dense(8, name="first", bias_initializer="ones"),
                keras.layers.LayerNormalization(),
                keras.layers.Dense(3),
            ]
            pruned = tf_movprune.prune_low_movement(
                keras.Sequential(layers),
                {"first": tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)},
                tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.001)),
            )
            sgd = keras.optimizers.SGD(1.0)
            optimizer = tf_movprune.create_optimizer(0.1, 4, 0, 0.5, score_optimizer=sgd)
            pruned.compile(optimizer, "mse")
        x = np.random.RandomState(0).standard_normal([16, 8]).astype("float32")
        callbacks = [tf_movprune.UpdatePruningStep()]
        pruned.fit(x, x[:, :3], batch_size=4, verbose=0, callbacks=callbacks)
        variables = [getattr(v, "_value", v) for v in pruned.trainable_variables]
        return {v.name: [np.array(each) for each in v.values] for v in variables}

    for name in KERASES:
        found = replicas_after(importlib.import_module(name))
        assert len(found) == 7, list(found)
        for variable, (first, second) in found.items():
            assert np.array_equal(first, second), variable
        done.append(name)
"""

GUARD = """
    x = np.random.RandomState(0).standard_normal([16, 8]).astype("float32")
    for name in KERASES:
        keras = importlib.import_module(name)
        with STRATEGIES[1].scope():
            layers = [keras.Input([8]), keras.layers.Dense(8, name="first"), keras.layers.Dense(3)]
            schedule = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)
            start = tf_movprune.MagnitudeScores(0.001)
            method = tf_movprune.HardMovement(start)
            inner = tf_movprune.prune_low_movement(keras.Sequential(layers), schedule, method)
            inputs = keras.Input([8])
            model = keras.Model(inputs, inner(inputs))
            model.compile(keras.optimizers.SGD(0.1), "mse")
        tf_movprune.update_masks(inner, 0)
        try:
            model.fit(x, x[:, :3], batch_size=4, verbose=0)
        except RuntimeError as error:
            assert "nothing refreshes its masks" in str(error)
            done.append(name)
"""

KERAS_DISTRIBUTION = """
    import keras as keras3

    x = np.random.RandomState(0).standard_normal([16, 8]).astype("float32")

    def weights_with(distribution):
        keras3.distribution.set_distribution(distribution)
        keras3.utils.set_random_seed(0)
        layers = [keras3.Input([8]), keras3.layers.Dense(8), keras3.layers.Dense(3)]
        schedule = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)
        method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.001))
        model = tf_movprune.prune_low_movement(keras3.Sequential(layers), schedule, method)
        model.compile(keras3.optimizers.SGD(0.1), "mse")
        callbacks = [tf_movprune.UpdatePruningStep()]
        model.fit(x, x[:, :3], batch_size=4, verbose=0, shuffle=False, callbacks=callbacks)
        assert {v.value.device[-5:] for v in model.variables} == {"CPU:0"}
        return model.get_weights()

    both = keras3.distribution.DataParallel(devices=["cpu:0", "cpu:1"])
    for value, expected in zip(weights_with(both), weights_with(None), strict=True):
        assert np.array_equal(value, expected)
    done.append("same")
"""

CASES = [
    *((name, 2, False) for name in ("hard", "global", "soft", "magnitude", "L0", "neurons")),
    *(("hard", 2, True), ("hard", 1, False), ("L0", 1, True)),
]


PROGRAMS = {
    "guard": GUARD,
    "optimizer": OPTIMIZER,
    "pruning": PRUNING,
    "distillation": DISTILLATION,
    "keras_distribution": KERAS_DISTRIBUTION,
}
MAIN = """
    found = {}
    for name, program in PROGRAMS.items():
        done, error = [], None
        try:
            with warnings.catch_warnings():
                exec(program, {**globals(), "done": done})
        except BaseException:
            error = traceback.format_exc()
        found[name] = done, error
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """By program, the cases that are done, and the error that ended it, if any."""
    programs = {name: textwrap.dedent(program) for name, program in PROGRAMS.items()}
    constants = dict(CASES=CASES, PROGRAMS=programs, KERASES=KERASES, REDUCTIONS=REDUCTIONS)
    lines = [f"globals().update({constants!r})", *map(textwrap.dedent, (SETUP, MAIN))]
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_training_updates_calls_and_stripping(found):
    done, error = found["pruning"]
    assert error is None, error
    assert done == [list(case) for case in CASES]


def test_one_update_allows_one_step_of_a_model_around(found):
    """Its layers are called in a thread for each replica, which is not inside of `fit`."""
    done, error = found["guard"]
    assert error is None, error
    assert done == list(KERASES)


def test_the_papers_optimizer_keeps_replicas_equal(found):
    done, error = found["optimizer"]
    assert error is None, error
    assert done == list(KERASES)


def test_distillation_on_two_replicas(found):
    """With a task loss of either reduction, of a teacher and of its cached logits."""
    done, error = found["distillation"]
    assert error is None, error
    assert done == [list(case) for case in itertools.product(KERASES, REDUCTIONS, (False, True))]


def test_keras_distribution_has_no_effect(found):
    """On the backend TensorFlow, one device trains, and masks are as ever."""
    done, error = found["keras_distribution"]
    assert error is None, error
    assert done == ["same"]
