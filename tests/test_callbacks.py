"""Callbacks of `fit` in either Keras."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from accumulating import accumulating_sgd
from shells import kernels, refresh, sparsities
from small_models import START, X, Y, begin_fit, fit, mlp, prune
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune import CubicSparsity, HardMovement, Magnitude
from tf_movprune.core.update_step import CompiledRefresh


def kept(model):
    return [np.count_nonzero(kernel.mask) for kernel in kernels(model)]


# ---- refreshes of masks in `fit`


def test_masks_follow_the_schedule_at_every_step_and_in_validation(keras, capsys):
    pruned = prune(mlp(keras), CubicSparsity(0.75, 2, 7, initial_sparsity=0.25))
    seen, validated = [], []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            (int(pruned.optimizer.iterations), kept(pruned))
        )
    )
    watch.on_test_begin = lambda logs=None: validated.append(kept(pruned))
    update = tf_movprune.UpdatePruningStep()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    data = {"validation_data": (X, Y), "batch_size": 8, "epochs": 2}
    history = pruned.fit(X, Y, verbose=0, callbacks=[update, watch], **data).history
    ramp = [0.75 - 0.5 * (1 - min(max(step - 2, 0) / 5, 1)) ** 3 for step in range(9)]
    expected = [[int((1 - value) * size + 1e-5) for size in (128, 256)] for value in ramp]
    assert seen == list(enumerate(expected[:8]))
    assert validated == [expected[4], expected[8]]  # as of the steps just taken
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "sparsity"}
    assert [type(value) for value in history["sparsity"]] == [float, float]
    assert history["sparsity"] == pytest.approx([1 - sum(expected[i]) / 384 for i in (4, 8)])
    assert capsys.readouterr().out == ""
    for kernel in kernels(pruned):  # evaluation outside of training changes no mask
        kernel.mask.assign(tf.zeros_like(kernel.mask))
    logs = pruned.evaluate(X, Y, callbacks=[update], return_dict=True, verbose=0)
    assert kept(pruned) == [0, 0] and set(logs) == {"loss", "accuracy"}


def test_final_masks_come_from_the_final_state(keras):
    """Scores that learned before pruning began decide, and so do weights."""
    pruned = prune(
        mlp(keras),
        {"*": CubicSparsity(0.75, 5, 8, frequency=2)},
        {"first": HardMovement(START), "second": Magnitude()},
    )
    first, second = kernels(pruned)
    start, seen = first.scores.numpy(), []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(kept(pruned))
    )
    fit(keras, pruned, callbacks=[watch])
    assert seen[-1] != kept(pruned) == [32, 64]
    assert np.all(first.scores != start)
    for kernel in (first, second):
        importance, mask = kernel.importance().numpy(), kernel.mask.numpy()
        assert importance[mask].min() > importance[~mask].max()
    np.testing.assert_array_equal(second.importance(), np.abs(second.parts[0].weight))
    assert second.scores is None


def test_refreshing_is_compiled_once_and_before_the_first_batch(keras):
    """Keras warns of callbacks that take longer than a batch."""
    pruned = prune(mlp(keras))
    update = tf_movprune.UpdatePruningStep()
    counts = []

    def count(*args, **kwargs):
        counts.append(update._compiled_refresh._function.experimental_get_tracing_count())

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=count, on_train_batch_end=count)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss)
    for _ in range(2):
        pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[update, watch])
    assert set(counts) == {1} and len(counts) == 20
    first = update._compiled_refresh
    pruned.compile(keras.optimizers.SGD(0.1), loss)  # an optimizer with a step of its own
    with pytest.warns(UserWarning, match="weights will come back"):
        begin_fit(keras, pruned, update=update)
    assert update._compiled_refresh is not first


@pytest.mark.parametrize(
    "ramp, first, compiled",
    [
        ((0, 9), 0, [0]),  # while Keras traces the training step
        ((7, 12), 0, [0]),
        ((8, 12), 0, [8]),  # after the first batches
        ((13, 15), 3, [11]),
        ((2, 12), 5, []),  # by the first refresh, which the first batch needs
    ],
)
@pytest.mark.parametrize("is_slow", [False, True])
def test_refreshing_is_compiled_beside_the_training(
    keras, ramp, first, compiled, is_slow, monkeypatch
):
    """Masks are refreshed at the right steps, however long compiling takes."""
    steps, compile_meanwhile = [], CompiledRefresh.compile_meanwhile
    schedule = CubicSparsity(0.75, *ramp)
    pruned = prune(mlp(keras), schedule)
    pruned.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    pruned.optimizer.iterations.assign(first)

    def noted(self, *args):
        steps.append(int(pruned.optimizer.iterations))
        compile_meanwhile(self, *args)
        if is_slow and self._compilation is not None:
            monkeypatch.setattr(self._compilation, "done", lambda: False)

    monkeypatch.setattr(CompiledRefresh, "compile_meanwhile", noted)
    seen = {}

    def note(batch, logs):
        seen[int(pruned.optimizer.iterations)] = sparsities(pruned)[0]

    callbacks = [
        tf_movprune.UpdatePruningStep(num_train_steps=first + 16),
        keras.callbacks.LambdaCallback(on_train_batch_begin=note),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    assert steps == compiled
    assert list(seen) == list(range(first, first + 16))
    expected = [float(schedule(tf.constant(step, tf.int64))[1]) for step in seen]
    assert list(seen.values()) == pytest.approx(expected, abs=1 / 64)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_train_step_is_traced_once(keras, jit_compile):
    """TensorFlow traces twice where the first time makes variables, as optimizers do."""
    traces = []

    class CountsTraces(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    layers = [CountsTraces(), keras.layers.Dense(8), keras.layers.Dense(3)]
    pruned = prune(keras.Sequential([keras.Input([8]), *layers]))
    metrics = [keras.metrics.MeanSquaredError()]
    pruned.compile("adam", "mse", metrics=metrics, jit_compile=jit_compile)
    traces.clear()
    for _ in range(2):
        callbacks = [tf_movprune.UpdatePruningStep()]
        pruned.fit(X, X[:, :3], batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        assert len(traces) == 1
    pruned.compile("adam", "mse", run_eagerly=True)  # calls for another train step
    with pytest.warns(UserWarning, match="weights will come back"):
        pruned.fit(X, X[:, :3], batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert len(traces) > 8


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_several_fits_and_steps_per_execution(keras, jit_compile):
    """A refresh that is due between executions comes with the next; no end of a fit forces one."""
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 12, frequency=3))
    update = tf_movprune.UpdatePruningStep(num_train_steps=12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    pruned.compile(optimizer, loss, steps_per_execution=2, jit_compile=jit_compile)
    reached = []
    for _ in range(3):
        pruned.fit(X, Y, batch_size=8, verbose=0, callbacks=[update])
        reached.append(tf_movprune.summarize_sparsity(pruned).sparsity)
    # Due at 3, seen at 4; due at 6, and not at 8; the end.
    expected = [kernels(pruned)[0].settings.ramp.value_at(step) for step in (4, 6, 12)]
    assert reached == pytest.approx(expected, abs=0.01)


def test_a_run_that_begins_at_a_later_epoch_is_as_long_as_its_rest(keras):
    pruned = prune(mlp(keras))
    pruned.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    update = tf_movprune.UpdatePruningStep()
    with pytest.raises(ValueError, match=r"ends at step 6, but this run has 4 steps"):
        pruned.fit(X, Y, batch_size=8, initial_epoch=2, epochs=3, verbose=0, callbacks=[update])


def test_schedules_count_steps_that_take_several_batches(keras):
    """Not the batches of them."""
    pruned = prune(mlp(keras))
    with pytest.raises(ValueError, match=r"ends at step 6, but this run has 4 steps \(4 × 2, 2 ba"):
        fit(keras, pruned, accumulating_sgd(keras, 2))
    history = fit(keras, pruned, accumulating_sgd(keras, 2), epochs=3, steps_per_execution=2)
    expected = [kernels(pruned)[0].settings.ramp.value_at(step) for step in (2, 4, 6)]
    assert history.history["sparsity"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "value, error, message",
    [
        ("12", TypeError, "num_train_steps must be an integer .* got '12'"),
        (12.5, TypeError, r"num_train_steps must be an integer .* got 12\.5"),
        (0, ValueError, "num_train_steps must be at least 1, got 0"),
        (-3, ValueError, "num_train_steps must be at least 1, got -3"),
    ],
)
def test_num_train_steps_out_of_range(value, error, message):
    with pytest.raises(error, match=message):
        tf_movprune.UpdatePruningStep(num_train_steps=value)


def test_classes_in_the_place_of_callbacks(keras):
    pruned = prune(mlp(keras))
    pruned.compile("sgd", "mse")
    for cls, call in (
        (tf_movprune.UpdatePruningStep, r"UpdatePruningStep\(\)"),
        (tf_movprune.OnceSparse, r"OnceSparse\(\.\.\.\)"),
    ):
        with pytest.raises(TypeError, match=rf"Pass {call}, not the class {cls.__name__}"):
            pruned.fit(X, X[:, :3], callbacks=[cls])


# ---- callbacks that wait until the model is sparse


def watching(keras):
    """A callback that keeps what it sees."""
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((f"epoch {epoch}", logs["sparsity"])),
        on_train_begin=lambda logs: seen.append("begin"),
        on_train_end=lambda logs: seen.append("end"),
    )
    watch.on_train_batch_end = lambda batch, logs=None: seen.append(batch)
    return watch, seen


def test_callbacks_that_wait_see_sparse_epochs_only(keras):
    """The ramp ends within the second of three epochs, whose end counts; its batches do not."""
    watch, seen = watching(keras)
    pruned = prune(mlp(keras))
    fit(keras, pruned, epochs=3, callbacks=[tf_movprune.OnceSparse(watch)])
    assert seen == ["begin", ("epoch 1", 0.75), 0, 1, 2, 3, ("epoch 2", 0.75), "end"]


def test_the_best_checkpoint_is_sparse_and_early_stopping_waits(keras, tmp_path):
    """The loss is lowest in the first epoch, which an ordinary ModelCheckpoint would keep."""

    class WorseAndWorse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = float(epoch)

    file = str(tmp_path / "best.weights.h5")
    checkpoint = keras.callbacks.ModelCheckpoint(file, save_best_only=True, save_weights_only=True)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2)
    pruned = prune(mlp(keras))
    waiting = [tf_movprune.OnceSparse(callback) for callback in (checkpoint, stop)]
    fit(keras, pruned, epochs=9, callbacks=[WorseAndWorse(), *waiting])
    assert checkpoint.best == 1.0 and stop.stopped_epoch == 3
    pruned.load_weights(file)
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.75


def waiting_in_a_loop(pruned, watch, **kwargs):
    pruned.compile("sgd", "mse")
    once = tf_movprune.OnceSparse(watch, **kwargs)
    once.set_model(pruned)
    return once


@pytest.mark.parametrize("min_sparsity, expected", [(0.5, [1]), (0.8, [])])
def test_callbacks_wait_in_loops_without_epochs(keras, min_sparsity, expected):
    watch, seen = watching(keras)
    pruned = prune(mlp(keras), CubicSparsity(0.75, begin_step=0, end_step=1))
    once = waiting_in_a_loop(pruned, watch, min_sparsity=min_sparsity)
    for step in (0, 1):
        pruned.optimizer.iterations.assign(step)
        refresh(pruned, step)
        once.on_train_begin()
        once.on_train_batch_begin(step)
        once.on_train_batch_end(step)
    assert seen == ["begin", "begin", *expected]
    message = rf"LambdaCallback has seen no epoch: .* {min_sparsity} sparsity; it is 0\.750\."
    with pytest.warns(UserWarning, match=message):
        once.on_train_end()
    assert seen[-1] == "end"


def test_nobody_waits_for_the_end_of_a_schedule_that_does_not_tell_it(keras):
    class Endless(tfmot.PruningSchedule):
        def __call__(self, step):
            return True, 0.75

        def get_config(self):
            return {}

    once = waiting_in_a_loop(prune(mlp(keras), Endless()), watching(keras)[0])
    with pytest.raises(ValueError, match=r"waits for every schedule to end, but Endless has no"):
        once.on_train_begin()


def test_arguments_of_callbacks_that_wait(keras):
    with pytest.raises(TypeError, match=r"must be a Keras callback .*, got 'best'"):
        tf_movprune.OnceSparse("best")
    watch, _ = watching(keras)
    with pytest.raises(ValueError, match=r"min_sparsity must be in \[0, 1\), got 1\.5"):
        tf_movprune.OnceSparse(watch, min_sparsity=1.5)
    with pytest.raises(TypeError, match=r"min_sparsity must be a number such as 0\.5, got 'x'"):
        tf_movprune.OnceSparse(watch, min_sparsity="x")


# ---- others


@pytest.mark.parametrize("block_size", [tf_movprune.BLOCKS_FLOAT32, tf_movprune.NEURONS], ids=str)
def test_a_penalty_is_not_all_that_there_is_to_learn(keras, block_size):
    threshold = tf_movprune.CubicThreshold(0.1, 0, 4)
    for regularizer in (None, "l2"):
        layers = [
            keras.layers.Dense(8),
            keras.layers.Dense(3, activity_regularizer=regularizer),
        ]
        pruned = tf_movprune.prune_low_movement(
            keras.Sequential([keras.Input([8]), *layers]),
            threshold,
            tf_movprune.SoftMovement(10.0),
            block_size=block_size,
        )
        pruned.compile(keras.optimizers.Adam())
        if regularizer is None:
            with pytest.raises(ValueError, match=r"compiled without a loss: nothing but the pen"):
                begin_fit(keras, pruned)
        else:
            begin_fit(keras, pruned)


def test_a_loop_of_ones_own_needs_no_compile(keras):
    """Its optimizer is that of the model, and its loss is its own."""
    pruned = prune(mlp(keras), CubicSparsity(0.75, begin_step=0, end_step=2))
    pruned.optimizer = keras.optimizers.SGD(0.1)
    callback = tf_movprune.UpdatePruningStep()
    callback.set_model(pruned)
    callback.on_train_begin()
    for batch in range(3):
        callback.on_train_batch_begin(batch)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(pruned(X, training=True) ** 2)
        variables = pruned.trainable_variables
        gradients = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
        pruned.optimizer.apply_gradients(zip(gradients, variables))
        callback.on_train_batch_end(batch)
    callback.on_train_end()
    assert set(sparsities(pruned)) == {0.75}
