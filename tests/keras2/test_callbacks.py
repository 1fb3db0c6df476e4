"""UpdatePruningStep: masks at every step of real training, refreshed under XLA as users' are."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from runs import (
    FIRST,
    SECOND,
    assert_masks_are_top_of_scores,
    compiled,
    cubic,
    data,
    dense_model,
    fit,
    kept,
    kept_at,
    masks,
    top,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import mask_of, scores_of, wrappers

import tf_movprune


class StopAt(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_training = True


# ---- masks along the way


def test_masks_follow_the_schedule_at_every_step():
    schedule = cubic(begin_step=2, end_step=10, initial_sparsity=0.25)
    model = compiled(schedule)
    recorder, _ = fit(model)
    assert recorder.steps == list(range(12))
    expected = [kept_at(schedule, step) for step in range(12)]  # the initial sparsity from 0 on
    assert recorder.kept == expected
    assert expected[:3] == [[48, 24]] * 3 and expected[10:] == [[16, 8]] * 2
    assert kept(model) == [16, 8]


def test_refreshes_on_after_the_end_of_the_schedule():
    """In the cool-down the target stays, and the masks follow the scores."""
    model = compiled(cubic(begin_step=0, end_step=3), optimizer=keras.optimizers.SGD(0.5))
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            [
                np.array_equal(mask_of(layer), top(scores_of(layer), count))
                for layer, count in zip(wrappers(model), kept(model))
            ]
        )
    )
    recorder, _ = fit(model, epochs=3, callbacks=[watch])
    assert recorder.kept[3:] == [[16, 8]] * 15
    assert seen == [[True, True]] * 18


def test_frequency():
    schedule = cubic(begin_step=1, end_step=11, frequency=4)
    recorder, _ = fit(compiled(schedule))
    expected = [
        [FIRST, SECOND],
        *[kept_at(schedule, 1)] * 4,
        *[kept_at(schedule, 5)] * 4,
        *[kept_at(schedule, 9)] * 2,
        kept_at(schedule, 11),  # the end is always due
    ]
    assert recorder.kept == expected


@pytest.mark.parametrize("make", [tf_movprune.HardMovement, tf_movprune.Magnitude])
def test_final_masks_come_from_the_final_state(make):
    schedule = cubic(end_step=12, begin_step=0, frequency=7)
    model = compiled(schedule, make())
    recorder, _ = fit(model)
    assert recorder.kept[-1] == kept_at(schedule, 7) != [16, 8]
    assert kept(model) == [16, 8]
    if make is tf_movprune.HardMovement:
        assert_masks_are_top_of_scores(model, [16, 8])
    for layer, count in zip(wrappers(model), [16, 8]):
        if make is tf_movprune.Magnitude:
            weights = np.abs(layer.layer.kernel.numpy())
            np.testing.assert_array_equal(mask_of(layer), top(weights, count))
            assert layer.kernels[0].scores is None


def test_scores_learn_before_pruning_begins():
    model = compiled(cubic(begin_step=8, end_step=12))
    fit(model)
    assert_masks_are_top_of_scores(model, [16, 8])


def test_early_stopping_refreshes_the_masks():
    schedule = cubic(begin_step=0, end_step=12, frequency=6)
    model = compiled(schedule)
    with pytest.warns(UserWarning, match=r"stopped at step 4, before .* end_step 12: sparsity is"):
        recorder, history = fit(model, callbacks=[StopAt(3)])
    assert recorder.steps == [0, 1, 2, 3]
    assert recorder.kept == [[FIRST, SECOND]] * 4
    assert len(history.history["sparsity"]) == 1
    assert kept(model) == kept_at(schedule, 4) != [FIRST, SECOND]
    assert_masks_are_top_of_scores(model, kept_at(schedule, 4))


def test_schedules_by_layer():
    slow, fast = cubic(begin_step=4, end_step=12), cubic(0 + 6, 0.5, begin_step=0)
    model = tf_movprune.prune_low_movement(dense_model(), {"first": slow, "*": fast})
    model.compile("adam", "mse")
    recorder, _ = fit(model)
    for step, counts in enumerate(recorder.kept):
        first = kept_at(slow, step)[0] if step >= 4 else FIRST
        assert counts == [first, kept_at(fast, step)[1]]
    assert kept(model) == [16, 16]


# ---- execution


@pytest.mark.xla_refresh
def test_steps_per_execution_under_xla():
    schedule = cubic(begin_step=0, end_step=20)
    model = compiled(schedule, steps_per_execution=4, jit_compile=True)
    recorder, history = fit(model, dataset=data(12), epochs=2)
    assert recorder.steps == [0, 4, 8, 12, 16, 20]
    assert recorder.kept == [kept_at(schedule, step) for step in recorder.steps]
    assert history.history["sparsity"] == pytest.approx(
        [1 - sum(kept_at(schedule, step)) / 96 for step in (12, 24)]
    )
    assert kept(model) == [16, 8]
    assert_masks_are_top_of_scores(model, [16, 8])


def test_frequency_that_steps_per_execution_jumps_over():
    schedule = cubic(begin_step=0, end_step=12, frequency=3)
    model = compiled(schedule, steps_per_execution=2)
    recorder, _ = fit(model, dataset=data(12), epochs=1)
    assert recorder.steps == [0, 2, 4, 6, 8, 10]
    # Due at 0, 3, 6 and 9: refreshed at the first step seen from there on, at its own sparsity.
    refreshed_at = [0, 0, 4, 6, 6, 10]
    assert recorder.kept == [kept_at(schedule, step) for step in refreshed_at]
    assert kept(model) == [16, 8]


def test_end_step_that_steps_per_execution_jumps_over():
    schedule = tfmot.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=5, frequency=3)
    model = compiled(schedule, steps_per_execution=4)
    recorder, _ = fit(model, dataset=data(12), epochs=1)
    assert recorder.steps == [0, 4, 8]
    assert recorder.kept == [[FIRST, SECOND], kept_at(schedule, 4), [16, 8]]


def test_refreshing_is_compiled_once():
    model = compiled(cubic(), steps_per_execution=3)
    update = tf_movprune.UpdatePruningStep()
    fit(model, update=update, validation_data=data(2))
    refresh = update._compiled_refresh
    assert refresh.experimental_get_tracing_count() == 1
    fit(model, update=update)  # and not again where training goes on
    assert update._compiled_refresh is refresh
    assert refresh.experimental_get_tracing_count() == 1
    model.compile("sgd", "mse")  # brings an optimizer with a step of its own
    with pytest.warns(UserWarning, match="weights will come back"):
        recorder, _ = fit(model, update=update)
    assert update._compiled_refresh is not refresh
    assert recorder.steps[0] == 0 and recorder.kept[-1] == [16, 8]


def test_another_schedule_is_compiled_anew():
    model = compiled(cubic())
    update = tf_movprune.UpdatePruningStep()
    fit(model, update=update)
    later = tf_movprune.CubicSparsity(0.875, begin_step=12, end_step=20)
    for layer in tf_movprune.pruned_layers(model).values():
        layer.pruning_schedule = later
        assert layer.get_config()["pruning_schedule"]["config"]["final_sparsity"] == 0.875
    recorder, _ = fit(model, update=update)
    assert recorder.kept[-1] == [FIRST // 8, SECOND // 8]


@pytest.mark.xla_refresh
def test_refreshing_is_compiled_before_the_first_batch():
    """Keras warns of callbacks that take longer than a batch."""
    model = compiled(cubic(), jit_compile=True)
    update = tf_movprune.UpdatePruningStep()
    counts = []

    def count(*args):
        counts.append(update._compiled_refresh.experimental_get_tracing_count())

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=count, on_train_batch_end=count)
    for _ in range(2):  # the second time the train function is there already
        fit(model, update=update, callbacks=[watch])
    assert set(counts) == {1}


# ---- tfmot's schedules


def test_polynomial_decay_is_honoured_as_it_is():
    schedule = tfmot.PolynomialDecay(0.25, 0.75, begin_step=2, end_step=8, power=2, frequency=4)
    model = compiled(schedule)
    frozen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: frozen.append(masks(model)[0])
    )
    recorder, _ = fit(model, callbacks=[watch])
    expected = [
        *[[FIRST, SECOND]] * 2,
        *[kept_at(schedule, 2)] * 4,
        *[kept_at(schedule, 6)] * 2,
        *[kept_at(schedule, 8)] * 4,  # its end_step is due though 8 - 2 is no multiple of 4
    ]
    assert recorder.kept == expected
    assert expected[2] == [48, 24] and expected[8] == [16, 8]
    for mask in [*frozen[9:], masks(model)[0]]:  # after its end, masks are fixed
        np.testing.assert_array_equal(mask, frozen[8])


def test_constant_sparsity_is_honoured_as_it_is():
    model = compiled(tfmot.ConstantSparsity(0.5, begin_step=3, frequency=100))
    recorder, _ = fit(model)
    assert recorder.kept == [[FIRST, SECOND]] * 3 + [[32, 16]] * 9
    assert_masks_are_top_of_scores(model, [32, 16])


def test_constant_sparsity_refreshes_at_its_end_step():
    model = compiled(
        tfmot.ConstantSparsity(0.5, begin_step=3, end_step=8, frequency=100),
        optimizer=keras.optimizers.SGD(0.5),
    )
    at = {}
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: at.setdefault(
            int(model.optimizer.iterations), (masks(model)[0], scores_of(wrappers(model)[0]))
        )
    )
    fit(model, callbacks=[watch])
    assert not np.array_equal(at[7][0], at[8][0])
    np.testing.assert_array_equal(at[8][0], top(at[8][1], 32))
    np.testing.assert_array_equal(at[9][0], at[8][0])


def test_schedule_of_ones_own():
    class TwoStages(tfmot.PruningSchedule):
        def __call__(self, step):
            return tf.equal(step % 5, 0), tf.where(step < 5, 0.25, 0.5)

        def get_config(self):
            return {}

    recorder, _ = fit(compiled(TwoStages()))
    assert recorder.kept == [[48, 24]] * 5 + [[32, 16]] * 7


@pytest.mark.parametrize("step", [1.5, None, tf.constant(1.5)])
def test_steps_that_are_no_integers_are_refused(step):
    with pytest.raises(TypeError, match=r"step must be an integer.* got .*Pass model\.optimizer"):
        tf_movprune.update_masks(compiled(cubic()), step)


@pytest.mark.parametrize(
    "make", [int, np.int64, np.array, tf.constant, tf.Variable, lambda x: tf.constant(x, tf.int64)]
)
def test_steps_of_every_integer_type(make):
    model = compiled(cubic(begin_step=0, end_step=6))
    assert float(tf_movprune.update_masks(model, make(6))) == 0.75


# ---- evaluation


def test_evaluation_outside_of_training_changes_no_mask():
    model = compiled(cubic())
    update = tf_movprune.UpdatePruningStep()
    fit(model, update=update)
    for layer in wrappers(model):
        layer.kernels[0].mask.assign(tf.zeros_like(layer.kernels[0].mask))
    model.evaluate(data(1), callbacks=[update], verbose=0)
    assert kept(model) == [0, 0]
