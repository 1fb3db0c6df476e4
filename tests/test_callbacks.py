"""Callbacks of `fit` in either Keras."""

import pytest
from accumulating import accumulating_sgd
from shells import kernels, refresh
from small_models import X, Y, fit, mlp, prune

import tf_movprune
from tf_movprune import CubicSparsity


def test_several_fits_and_steps_per_execution(keras):
    """What is due between executions is refreshed at the next; the end of a fit forces nothing."""
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 12, frequency=3))
    update = tf_movprune.UpdatePruningStep(num_train_steps=12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss, steps_per_execution=2)
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


def test_classes_in_the_place_of_callbacks(keras):
    pruned = prune(mlp(keras))
    pruned.compile("sgd", "mse")
    for cls, call in (
        (tf_movprune.UpdatePruningStep, r"UpdatePruningStep\(\)"),
        (tf_movprune.OnceSparse, r"OnceSparse\(\.\.\.\)"),
    ):
        with pytest.raises(TypeError, match=rf"Pass {call}, not the class {cls.__name__}"):
            pruned.fit(X, X[:, :3], callbacks=[cls])


def test_callbacks_that_wait_see_sparse_epochs_only(keras):
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["sparsity"])
    )
    pruned = prune(mlp(keras))
    fit(keras, pruned, epochs=3, callbacks=[tf_movprune.OnceSparse(watch)])
    assert seen == pytest.approx([0.75, 0.75])  # the first of three epochs is not sparse yet


def test_callbacks_wait_in_loops_without_epochs(keras):
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    pruned = prune(mlp(keras), CubicSparsity(0.75, begin_step=0, end_step=1))
    pruned.compile(keras.optimizers.SGD(0.1), "mse")
    once = tf_movprune.OnceSparse(watch)
    once.set_model(pruned)
    for step in (0, 1):
        pruned.optimizer.iterations.assign(step)
        refresh(pruned, step)
        once.on_train_begin()
        once.on_train_batch_begin(step)
        once.on_train_batch_end(step)
    assert seen == [1]


@pytest.mark.parametrize("block_size", [tf_movprune.BLOCKS_FLOAT32, tf_movprune.NEURONS], ids=str)
def test_a_penalty_is_not_all_that_there_is_to_learn(keras, block_size):
    threshold = tf_movprune.CubicThreshold(0.1, 0, 4)
    callbacks = [tf_movprune.UpdatePruningStep()]
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
                pruned.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)
        else:
            pruned.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)
