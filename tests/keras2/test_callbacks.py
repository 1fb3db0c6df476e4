"""UpdatePruningStep, PruningSummaries and update_masks: masks at every step of real training."""

import contextlib
import pathlib
import re
import sys
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune

STEPS = 6  # of one epoch of `data()`
FIRST, SECOND = 64, 32  # sizes of the pruned kernels


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def data(steps=STEPS, size=4):
    random = np.random.RandomState(1)
    inputs = random.standard_normal((steps * size, 8)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((inputs, inputs[:, :2] * 2)).batch(size)


def dense_model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", name="first"),
            keras.layers.Dense(4, activation="tanh", name="second"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def compiled(schedule, method=None, optimizer=None, **kwargs):
    model = tf_movprune.prune_low_movement(dense_model(), schedule, method)
    model.compile(optimizer or keras.optimizers.SGD(0.2), "mse", **kwargs)
    return model


def cubic(end_step=10, final_sparsity=0.75, begin_step=2, **kwargs):
    return tf_movprune.CubicSparsity(final_sparsity, begin_step, end_step, **kwargs)


def wrappers(model):
    return [layer for layer in model.layers if isinstance(layer, tf_movprune.PruneLowMovement)]


def masks(model):
    return [layer.masks[0].numpy() for layer in wrappers(model)]


def kept(model):
    return [int(mask.sum()) for mask in masks(model)]


def sparsity(model):
    return 1 - sum(kept(model)) / sum(mask.size for mask in masks(model))


def sparsity_at(schedule, step):
    """Eq. 5, written out for CubicSparsity and PolynomialDecay alike."""
    progress = (step - schedule.begin_step) / (schedule.end_step - schedule.begin_step)
    left = 1 - min(max(progress, 0.0), 1.0)
    power = getattr(schedule, "power", 3)
    return (
        schedule.final_sparsity
        + (schedule.initial_sparsity - schedule.final_sparsity) * left**power
    )


def kept_at(schedule, step):
    """Per matrix; 1e-5 because 1 - 0.9 is a little less than 0.1."""
    return [int(np.floor((1 - sparsity_at(schedule, step)) * n + 1e-5)) for n in (FIRST, SECOND)]


def top(scores, count):
    order = np.argsort(-scores.ravel(), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def assert_masks_are_top_of_scores(model, counts):
    for layer, count in zip(wrappers(model), counts):
        scores = layer.scores[0].numpy()
        assert len(np.unique(scores)) > scores.size // 2
        np.testing.assert_array_equal(layer.masks[0].numpy(), top(scores, count))


class Recorder(keras.callbacks.Callback):
    """What each step computed with; comes after UpdatePruningStep."""

    def __init__(self):
        super().__init__()
        self.steps, self.kept, self.epoch_sparsity = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(int(self.model.optimizer.iterations))
        self.kept.append(kept(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_sparsity.append(sparsity(self.model))


class StopAt(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_training = True


def fit(model, epochs=2, dataset=None, update=None, callbacks=(), **kwargs):
    """Trains with the callback and a recorder, which it returns together with the history."""
    recorder = Recorder()
    update = update or tf_movprune.UpdatePruningStep()
    kwargs.setdefault("verbose", 0)
    history = model.fit(
        data() if dataset is None else dataset,
        epochs=epochs,
        callbacks=[update, recorder, *callbacks],
        **kwargs,
    )
    return recorder, history


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
                np.array_equal(layer.masks[0].numpy(), top(layer.scores[0].numpy(), count))
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
            np.testing.assert_array_equal(layer.masks[0].numpy(), top(weights, count))
            assert not layer.scores


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


def test_pruning_step_is_the_optimizer_step(capsys):
    """A second fit goes on where the optimizer stands, and shows it."""
    schedule = cubic(begin_step=0, end_step=12)
    model = compiled(schedule)
    update = tf_movprune.UpdatePruningStep(num_train_steps=12)
    first, _ = fit(model, epochs=1, update=update)
    second, _ = fit(model, epochs=2, initial_epoch=1, update=update, verbose=2)
    assert first.steps + second.steps == list(range(12))
    assert first.kept + second.kept == [kept_at(schedule, step) for step in range(12)]
    assert kept(model) == [16, 8]
    shown = last_shown(capsys.readouterr().out, epochs=1)
    np.testing.assert_allclose(shown, second.epoch_sparsity, atol=6e-5)


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


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_refreshing_is_compiled_once(steps_per_execution):
    model = compiled(cubic(), steps_per_execution=steps_per_execution)
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
    for layer in tf_movprune.pruned_layers(model).values():
        layer.pruning_schedule = tf_movprune.CubicSparsity(0.875, begin_step=12, end_step=20)
    recorder, _ = fit(model, update=update)
    assert recorder.kept[-1] == [FIRST // 8, SECOND // 8]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_refreshing_is_compiled_before_the_first_batch(steps_per_execution):
    """Keras warns of callbacks that take longer than a batch."""
    model = compiled(cubic(), steps_per_execution=steps_per_execution, jit_compile=True)
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
    for mask in frozen[9:]:  # it stops after its end ...
        np.testing.assert_array_equal(mask, frozen[8])
    assert_masks_are_top_of_scores(model, [16, 8])  # ... and the last refresh sees final scores


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
            int(model.optimizer.iterations), (masks(model)[0], wrappers(model)[0].scores[0].numpy())
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


# ---- what is shown


def last_shown(text, epochs):
    """The last sparsity on the progress bar of each epoch."""
    parts = re.split(r"Epoch \d+/\d+", text)[1:] if epochs > 1 else [text]
    assert len(parts) == epochs
    return [float(re.findall(r"\bsparsity: ([\d.e+-]+)", part)[-1]) for part in parts]


@pytest.mark.parametrize("verbose, validated", [(1, False), (1, True), (2, True)])
def test_progress_bar_shows_the_current_sparsity(capsys, verbose, validated):
    model = compiled(cubic(begin_step=0, end_step=12))
    arguments = {"validation_data": data(2)} if validated else {}
    recorder, history = fit(model, verbose=verbose, **arguments)
    shown = last_shown(capsys.readouterr().out, epochs=2)
    np.testing.assert_allclose(shown, recorder.epoch_sparsity, atol=6e-5)
    np.testing.assert_allclose(history.history["sparsity"], recorder.epoch_sparsity, atol=1e-6)
    averages = [
        np.mean([1 - sum(counts) / 96 for counts in recorder.kept[start : start + STEPS]])
        for start in (0, STEPS)
    ]
    assert np.all(np.abs(np.array(averages) - shown) > 0.01)


def test_progress_bar_shows_the_current_sparsity_between_epochs_too(capsys):
    """Every value that the bar goes through is the sparsity of a step, not a running mean."""
    schedule = cubic(begin_step=0, end_step=12)
    fit(compiled(schedule), verbose=1)
    shown = re.findall(r"\bsparsity: ([\d.e+-]+)", capsys.readouterr().out)
    exact = {round(1 - sum(kept_at(schedule, step)) / 96, 4) for step in range(13)}
    assert len(shown) > 2
    assert {round(float(value), 4) for value in shown} <= exact


def test_ramp_is_announced_before_training(capsys):
    model = compiled(cubic(begin_step=0, end_step=6))
    fit(model, epochs=1, verbose=2)
    text = capsys.readouterr().out
    line = "Pruning 96 weights in 2 matrices. Sparsity by step: 0.00 at 0, 0.66 at 3, 0.75 at 6."
    assert text.count(line) == 1
    assert text.find(line) < text.find("loss:")


def test_history_and_validation(capsys):
    schedule = cubic(begin_step=0, end_step=12)
    model = compiled(schedule, metrics=["mae"])
    seen = []
    watch = keras.callbacks.LambdaCallback()
    watch.on_test_begin = lambda logs=None: seen.append(kept(model))
    _, history = fit(model, validation_data=data(2), callbacks=[watch])
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae", "sparsity"}
    assert [type(value) for value in history.history["sparsity"]] == [float, float]
    assert history.history["sparsity"][1] == 0.75
    assert seen == [kept_at(schedule, 6), kept_at(schedule, 12)]  # as of the steps just taken
    assert [metric.name for metric in model.metrics] == ["loss", "mae"]
    assert set(model.evaluate(data(2), return_dict=True, verbose=0)) == {"loss", "mae"}
    assert capsys.readouterr().out == ""


def test_evaluation_outside_of_training_changes_no_mask():
    model = compiled(cubic())
    update = tf_movprune.UpdatePruningStep()
    fit(model, update=update)
    for layer in wrappers(model):
        layer.masks[0].assign(tf.zeros_like(layer.masks[0]))
    model.evaluate(data(1), callbacks=[update], verbose=0)
    assert kept(model) == [0, 0]


# ---- runs that cannot work


def test_schedule_that_is_longer_than_the_run():
    model = compiled(cubic(begin_step=2, end_step=1800))
    before = [variable.numpy() for variable in model.variables]
    recorder = Recorder()
    with pytest.raises(
        ValueError,
        match=r"ends at step 1800, but this run has 12 steps \(6 × 2\): it would stop at "
        r"sparsity 0\.01\. Lower end_step or train longer.*num_train_steps",
    ):
        model.fit(
            data(), epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep(), recorder]
        )
    assert recorder.steps == []
    assert int(model.optimizer.iterations) == 0
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_schedule_that_is_one_step_longer_than_the_run():
    with pytest.raises(ValueError, match=r"ends at step 13, but this run has 12 steps"):
        fit(compiled(cubic(end_step=13)))


def test_each_schedule_of_a_model_is_checked():
    model = tf_movprune.prune_low_movement(
        dense_model(), {"first": cubic(end_step=10), "second": cubic(end_step=99)}
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"ends at step 99"):
        fit(model)


def test_later_fit_counts_from_the_optimizer():
    model = compiled(cubic(begin_step=0, end_step=10))
    fit(model)
    fit(model, epochs=1)  # from step 12 to 18, long after the end
    assert int(model.optimizer.iterations) == 18
    short = compiled(cubic(begin_step=0, end_step=20))
    short.optimizer.iterations.assign(4)
    with pytest.raises(
        ValueError, match=r"step 20, but this run has 12 steps \(6 × 2\) after the first 4"
    ):
        fit(short)


def test_several_calls_of_fit():
    schedule = cubic(begin_step=0, end_step=10)
    with pytest.raises(ValueError, match=r"this run has 6 steps"):
        fit(compiled(schedule), epochs=1)
    with pytest.raises(
        ValueError, match=r"ends at step 10, but num_train_steps is 8: it would stop"
    ):
        fit(compiled(schedule), update=tf_movprune.UpdatePruningStep(num_train_steps=8))
    model = compiled(schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(2):
            fit(model, epochs=1, update=tf_movprune.UpdatePruningStep(num_train_steps=12))
    assert kept(model) == [16, 8]


@pytest.mark.parametrize("scaled", [False, True])
def test_run_that_goes_on_when_the_learning_rate_is_zero(scaled):
    optimizer = tf_movprune.create_optimizer(0.01, 11, 0)
    if scaled:
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    model = compiled(cubic(), optimizer=optimizer)
    message = (
        r"learning rate is 0 from step 11 on.*this run has 12 steps \(6 × 2\): nothing would learn"
        r".*num_train_steps=12"
    )
    with pytest.warns(UserWarning, match=message):
        fit(model)


def test_later_run_that_goes_on_when_the_learning_rate_is_zero():
    model = compiled(cubic(), optimizer=tf_movprune.create_optimizer(0.01, 18, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model)
        fit(model, epochs=1)
    with pytest.warns(UserWarning, match=r"from step 18 on.*6 steps \(6 × 1\) after the first 18"):
        fit(model, epochs=1)
    model = compiled(cubic(), optimizer=tf_movprune.create_optimizer(0.01, 18, 0))
    with pytest.warns(UserWarning, match=r"from step 18 on.*num_train_steps is 24:"):
        fit(model, update=tf_movprune.UpdatePruningStep(num_train_steps=24))


@pytest.mark.parametrize("value", ["12", 12.5])
def test_num_train_steps_of_another_type(value):
    with pytest.raises(TypeError, match=rf"num_train_steps must be an integer .* got {value!r}"):
        tf_movprune.UpdatePruningStep(num_train_steps=value)


@pytest.mark.parametrize("value", [0, -3])
def test_num_train_steps_out_of_range(value):
    with pytest.raises(ValueError, match=rf"num_train_steps must be at least 1, got {value}"):
        tf_movprune.UpdatePruningStep(num_train_steps=value)


@pytest.mark.parametrize(
    "schedule, message",
    [
        (
            lambda: tfmot.PolynomialDecay(0.0, 0.5, 0, 10),
            r"PolynomialDecay never prunes.*begin_step 0 and frequency 100.*12 steps \(6 × 2\)",
        ),
        (
            lambda: tfmot.PolynomialDecay(0.0, 0.5, 4, 10, frequency=7),
            r"PolynomialDecay never prunes.*begin_step 4 and frequency 7.*12 steps \(6 × 2\)",
        ),
        (
            lambda: tfmot.ConstantSparsity(0.5, begin_step=12),
            r"ConstantSparsity never prunes.*begin_step 12 and frequency 100.*12 steps",
        ),
        (
            lambda: tfmot.ConstantSparsity(0.5, begin_step=500),
            r"ConstantSparsity never prunes.*begin_step 500",
        ),
    ],
)
def test_schedule_that_never_fires(schedule, message):
    model = compiled(schedule())
    with pytest.raises(ValueError, match=message):
        fit(model)
    assert int(model.optimizer.iterations) == 0


def test_schedule_that_fires_once_is_enough():
    model = compiled(tfmot.ConstantSparsity(0.5, begin_step=11, frequency=100))
    recorder, _ = fit(model)
    assert recorder.kept == [[FIRST, SECOND]] * 11 + [[32, 16]]


def generator():
    yield from data().as_numpy_iterator()


def unknown_length():
    return tf.data.Dataset.from_generator(
        generator,
        output_signature=(tf.TensorSpec([None, 8]), tf.TensorSpec([None, 2])),
    )


@pytest.mark.parametrize("make", [generator, unknown_length])
def test_unfinished_run_of_unknown_length_warns(make):
    schedule = cubic(begin_step=0, end_step=50)
    model = compiled(schedule)
    with pytest.warns(UserWarning, match="Training stopped") as caught:
        fit(model, dataset=make(), epochs=1)
    step = int(model.optimizer.iterations)  # Keras may count one more, in which the data ran out
    assert step in (6, 7)
    reached = 1 - sum(kept_at(schedule, step)) / 96
    assert len(caught) == 1
    assert (
        f"stopped at step {step}, before the schedule's end_step 50: sparsity is {reached:.3f}."
        in str(caught[0].message)
    )
    assert kept(model) == kept_at(schedule, step)


def test_finished_run_of_unknown_length_does_not_warn():
    model = compiled(cubic(end_step=10))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, dataset=unknown_length())
    assert kept(model) == [16, 8]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_without_the_callback(jit_compile):
    model = compiled(cubic(), jit_compile=jit_compile)
    with pytest.raises(RuntimeError, match=r"'prune_low_movement_first'.*UpdatePruningStep\(\)"):
        model.fit(data(), verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_without_the_callback_after_one_with_it(jit_compile):
    model = compiled(cubic())
    fit(model)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks of fit"):
        model.fit(data(), verbose=0)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks of fit"):
        model.fit(data(), verbose=0)


def test_second_fit_reuses_the_train_function():
    model = compiled(cubic())
    functions = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: functions.append(model.train_function)
    )
    fit(model, callbacks=[watch])
    fit(model, epochs=1, callbacks=[watch])
    assert functions[0] is functions[-1]
    assert functions[0].function.experimental_get_tracing_count() == 1
    model.compile(keras.optimizers.SGD(0.1), "mae")  # calls for another one
    fit(model, callbacks=[watch])
    assert functions[-1] is not functions[0]


class CountsTraces(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.traces = 0

    def call(self, inputs):
        self.traces += 1
        return inputs


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("distil", [False, True])
def test_the_train_step_is_traced_once(distil, jit_compile):
    """TensorFlow traces twice where the first time makes variables, as optimizers do."""
    counter = CountsTraces()
    layers = [keras.Input((8,)), counter, keras.layers.Dense(4), keras.layers.Dense(2)]
    model = tf_movprune.prune_low_movement(keras.Sequential(layers), cubic())
    if distil:
        model = tf_movprune.Distiller(model, dense_model())
    model.compile("adam", "mse", [keras.metrics.MeanSquaredError()], jit_compile=jit_compile)
    counter.traces = 0
    model.fit(data(), callbacks=[tf_movprune.UpdatePruningStep()], epochs=2, verbose=0)
    assert counter.traces == 1


class TrainsItsFirstLayer(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.head = keras.layers.Dense(4), keras.layers.Dense(2)

    def call(self, inputs):
        return self.head(self.first(inputs))

    def train_step(self, data):
        inputs, targets = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(inputs, training=True) - targets) ** 2)
        self.optimizer.minimize(loss, self.first.trainable_variables, tape)
        return {"loss": loss}


def test_a_train_step_of_its_own_may_train_fewer_variables():
    """An optimizer that was built for all of them refuses to."""
    model = TrainsItsFirstLayer()
    model(next(iter(data()))[0])
    tf_movprune.prune_low_movement(model, cubic())
    model.compile("adam")
    head = model.head.get_weights()
    fit(model)
    np.testing.assert_equal(model.head.get_weights(), head)
    assert int(model.optimizer.iterations) == 12


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_with_the_callback_after_one_without_it(jit_compile):
    """It needs no second call of compile."""
    trained = []
    for forgets in (False, True):
        keras.utils.set_random_seed(0)
        model = tf_movprune.prune_low_movement(dense_model(), cubic())
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit_compile)
        if forgets:
            with pytest.raises(RuntimeError, match="UpdatePruningStep"):
                model.fit(data(), verbose=0)
        fit(model)
        trained.append(model.get_weights())
    for expected, received in zip(*trained):
        np.testing.assert_array_equal(received, expected)


def test_fit_without_the_callback_after_one_that_failed():
    model = compiled(cubic(end_step=1800))
    with pytest.raises(ValueError, match="ends at step 1800"):
        fit(model)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(data(), verbose=0)


def test_fit_without_the_callback_after_one_that_was_interrupted():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(cubic())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(data(), verbose=0)
    fit(model)
    broken = data().map(lambda x, y: (x, tf.strings.as_string(y)))
    with pytest.raises(tf.errors.OpError, match="string"):
        fit(model, dataset=broken)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.train_on_batch(*next(iter(data())))
    tf_movprune.update_masks(model, model.optimizer.iterations)
    model.train_on_batch(*next(iter(data())))


def test_a_callback_that_fails_before_the_first_step_leaves_nothing_in_the_metrics():
    def fail(epoch, logs):
        raise KeyboardInterrupt

    model = compiled(cubic())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=fail)])
    fit(model)
    assert set(model.evaluate(data(), verbose=0, return_dict=True)) == {"loss"}


def test_inference_needs_no_callback():
    model = compiled(cubic())
    assert model.predict(data(), verbose=0).shape == (24, 2)
    assert np.isfinite(model.evaluate(data(), verbose=0))


def test_model_without_pruned_layers():
    model = dense_model()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        fit(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01),
        lambda: tf_movprune.create_optimizer(0.01, 12, 0),
        lambda: tf_movprune.create_optimizer(
            0.01, 12, 0, score_optimizer=keras.optimizers.SGD(1.0)
        ),
        lambda: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    ],
    ids=["adam", "ours", "ours-sgd_scores", "loss_scale"],
)
def test_optimizer_that_was_built_before_pruning(make):
    model, optimizer = dense_model(), make()
    getattr(optimizer, "inner_optimizer", optimizer).build(model.trainable_variables)
    model = tf_movprune.prune_low_movement(model, cubic())
    model.compile(optimizer, "mse")
    with pytest.raises(
        ValueError, match=r"built before the model was pruned.*'first/kernel/movement_scores:0'"
    ):
        fit(model)


def test_optimizer_that_was_built_after_pruning():
    scores = keras.optimizers.SGD(1.0)
    model = compiled(
        cubic(), optimizer=tf_movprune.create_optimizer(0.01, 12, 0, score_optimizer=scores)
    )
    model.optimizer.build(model.trainable_variables)
    fit(model)
    assert kept(model) == [16, 8]


def test_training_a_model_that_was_stripped():
    """It shares its layers with the plain one, and computes with folded weights."""
    model = compiled(cubic())
    fit(model)
    inputs = np.ones((2, 8), "float32")
    masked = model(inputs)
    tf_movprune.strip_pruning(model)
    message = r"'prune_low_movement_first' cannot be trained further.*strip_pruning"
    for train in (
        lambda: fit(model),
        lambda: model.fit(data(), verbose=0),
        lambda: tf_movprune.update_masks(model, 12),
        lambda: model(inputs, training=True),
    ):
        with pytest.raises(RuntimeError, match=message):
            train()
    assert int(model.optimizer.iterations) == 12
    np.testing.assert_array_equal(model(inputs), masked)
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.75


def test_stripped_model_is_trained_and_pruned_again():
    model = compiled(cubic())
    fit(model)
    plain = tf_movprune.strip_pruning(model)
    plain.compile("sgd", "mse")
    plain.fit(data(), verbose=0)
    pruned = tf_movprune.prune_low_movement(plain, cubic())
    pruned.compile("sgd", "mse")
    fit(pruned)


def test_nothing_of_the_training_stays_in_a_stripped_model(tmp_path):
    """Where a model is changed in place, checkpoints and files would hold its optimizer."""
    model = HasALossOfItsOwn()
    model(next(iter(data()))[0])
    tf_movprune.prune_low_movement(model, cubic())
    model.compile("adam")
    fit(model)
    model.predict(data(), verbose=0)
    tf_movprune.strip_pruning(model)
    checkpoint = tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(path)]
    variables = [name for name in names if name.endswith("VARIABLE_VALUE")]
    assert len(variables) == len(model.weights) + 1, variables  # and the checkpoint's counter


def test_layer_that_is_frozen():
    model = compiled(cubic())
    wrappers(model)[1].trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"second is frozen \(trainable=False\)"):
        fit(model)


def test_a_penalty_is_not_all_that_there_is_to_learn():
    method = tf_movprune.SoftMovement(10.0)
    threshold = tf_movprune.CubicThreshold(0.1, 2, 10)
    model = tf_movprune.prune_low_movement(dense_model(), threshold, method)
    model.compile("adam")
    with pytest.raises(ValueError, match=r"compiled without a loss: nothing but the penalty"):
        fit(model)
    model.add_loss(lambda: tf.reduce_sum(model.layers[-1].kernel ** 2))
    fit(model)


def test_a_loss_of_a_layer_is_one_beside_the_penalty_of_shared_masks():
    layers = [keras.layers.Dense(4, input_shape=[8]), keras.layers.Dense(2, name="output")]
    model = tf_movprune.prune_low_movement(
        keras.Sequential(layers),
        tf_movprune.CubicThreshold(0.1, 2, 10),
        tf_movprune.SoftMovement(10.0),
        block_size=tf_movprune.NEURONS,
    )
    model.compile("adam")
    with pytest.raises(ValueError, match=r"compiled without a loss"):
        fit(model)
    model.add_loss(lambda: tf.reduce_sum(layers[0].kernel ** 2))
    fit(model)


class HasALossOfItsOwn(TrainsItsFirstLayer):
    train_step = keras.Model.train_step

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return tf.reduce_mean((y_pred - y) ** 2)


def test_a_loss_may_be_computed_by_the_model():
    model = HasALossOfItsOwn()
    model(next(iter(data()))[0])
    threshold = tf_movprune.CubicThreshold(0.1, 2, 10)
    tf_movprune.prune_low_movement(model, threshold, tf_movprune.SoftMovement(10.0))
    model.compile("adam")
    fit(model)
    assert int(model.optimizer.iterations) == 12


def test_scores_that_are_nan_from_the_start():
    model = compiled(cubic())
    wrappers(model)[1].scores[0].assign(np.full((8, 4), np.nan))
    with pytest.raises(ValueError, match=r"scores of second contain NaN .*at step 0.*lower the"):
        fit(model)


def test_scores_that_become_nan():
    model = compiled(cubic())
    broken = data().map(lambda x, y: (x * np.nan, y))
    with pytest.raises(ValueError, match=r"scores of first contain NaN or infinity at step 6\."):
        fit(model, dataset=broken)


# ---- loops of one's own


def loop(model, schedule, steps, in_graph):
    """Keeps of every step, from scores that a step of gradient descent moves."""
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    def train_step(inputs, targets):
        overall = tf_movprune.update_masks(model, optimizer.iterations)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return overall

    step = tf.function(train_step) if in_graph else train_step
    seen = []
    for inputs, targets in data(steps):
        overall = step(inputs, targets)
        seen.append(kept(model))
        assert float(overall) == pytest.approx(sparsity(model), abs=1e-6)
    overall = tf_movprune.update_masks(model, optimizer.iterations, force=True)
    assert float(overall) == pytest.approx(sparsity(model), abs=1e-6)
    return seen


@pytest.mark.parametrize("in_graph", [False, True])
def test_custom_loop(in_graph):
    schedule = cubic(begin_step=2, end_step=8, frequency=4)
    model = tf_movprune.prune_low_movement(dense_model(), schedule)
    seen = loop(model, schedule, 7, in_graph)
    assert seen == [[FIRST, SECOND]] * 2 + [kept_at(schedule, 2)] * 4 + [kept_at(schedule, 6)]
    assert kept(model) == kept_at(schedule, 7) != kept_at(schedule, 6)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 7))


def with_distinct_scores(schedule):
    model = tf_movprune.prune_low_movement(dense_model(), schedule)
    for layer in wrappers(model):
        layer.scores[0].assign(
            np.random.RandomState(3)
            .permutation(layer.scores[0].shape[0] * layer.scores[0].shape[1])
            .reshape(layer.scores[0].shape)
        )
    return model


@pytest.mark.parametrize(
    "step", [7, np.int64(7), tf.constant(7), tf.constant(7, tf.int64), tf.Variable(7)]
)
def test_update_masks_takes_any_integer(step):
    schedule = cubic(begin_step=0, end_step=10)
    model = with_distinct_scores(schedule)
    result = tf_movprune.update_masks(model, step)
    assert result.dtype == tf.float32 and result.shape == ()
    assert float(result) == pytest.approx(1 - sum(kept_at(schedule, 7)) / 96, abs=1e-6)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 7))


def test_force():
    schedule = cubic(begin_step=4, end_step=10, initial_sparsity=0.25, frequency=5)
    model = with_distinct_scores(schedule)
    assert float(tf_movprune.update_masks(model, 3, force=True)) == 0  # has not begun
    assert float(tf_movprune.update_masks(model, 5)) == 0  # not due
    assert kept(model) == [FIRST, SECOND]
    tf_movprune.update_masks(model, 5, force=True)
    assert_masks_are_top_of_scores(model, kept_at(schedule, 5))
    tf_movprune.update_masks(model, 10)  # the end is due by itself
    assert_masks_are_top_of_scores(model, [16, 8])


def test_thresholds_are_the_lowest_score_that_is_kept():
    model = with_distinct_scores(cubic(begin_step=0, end_step=10))
    assert [float(layer.thresholds[0]) for layer in wrappers(model)] == [-np.inf] * 2
    tf_movprune.update_masks(model, 10)
    for layer in wrappers(model):
        kept_scores = layer.scores[0].numpy()[layer.masks[0].numpy()]
        assert float(layer.thresholds[0]) == kept_scores.min()


def test_update_masks_of_a_single_layer():
    layer = tf_movprune.prune_low_movement(keras.layers.Dense(4), cubic(begin_step=0))
    layer.build((None, 8))
    assert float(tf_movprune.update_masks(layer, 10)) == 0.75


@pytest.mark.parametrize("step", [-1, np.int64(-5)])
def test_negative_step(step):
    model = with_distinct_scores(cubic())
    with pytest.raises(ValueError, match=rf"step must be at least 0, got {step}"):
        tf_movprune.update_masks(model, step)


def test_update_masks_of_a_dense_model():
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        tf_movprune.update_masks(dense_model(), 0)


def test_model_that_is_not_built():
    model = keras.Sequential([keras.layers.Dense(8, name="first"), keras.layers.Dense(2)])
    model = tf_movprune.prune_low_movement(model, cubic())
    with pytest.raises(ValueError, match=r"'prune_low_movement_first' is not built yet.*Call it"):
        tf_movprune.update_masks(model, 0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"'prune_low_movement_first' is not built yet.*Call it"):
        fit(model)
    model(np.zeros((1, 8), "float32"))
    assert float(tf_movprune.update_masks(model, 10)) == 0.75


def test_own_loop_without_update_masks():
    model = tf_movprune.prune_low_movement(dense_model(), cubic())
    with pytest.raises(RuntimeError, match=r"update_masks\(model, step\)"):
        model(np.zeros((1, 8), "float32"), training=True)
    tf_movprune.update_masks(model, 0)
    model(np.zeros((1, 8), "float32"), training=True)


# ---- PruningSummaries


@pytest.fixture
def tensorboard(monkeypatch):
    """TensorBoard where it is not installed: what its plugin of scalars makes of a value."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:

        def scalar(name, data, step=None):
            metadata = tf.compat.v1.SummaryMetadata(
                plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
            )
            return tf.summary.write(name, tf.cast(data, tf.float32), step, metadata)

        monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
        monkeypatch.setattr(tf.summary, "scalar", scalar)


def test_tensorboard_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs TensorBoard.*pip install tensorboard"):
        tf_movprune.PruningSummaries(str(tmp_path))


def events(log_dir):
    """Values by tag and step, in the order in which they were written."""
    found = {}
    for file in sorted(pathlib.Path(log_dir, "pruning").iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                steps.setdefault(event.step, []).append(float(tf.make_ndarray(value.tensor)))
    return found


class MaskHistory(keras.callbacks.Callback):
    """Masks and thresholds after each step and epoch; -1 is before training, None after it."""

    def __init__(self):
        super().__init__()
        self.at = {}

    def record(self, key):
        thresholds = [float(layer.thresholds[0]) for layer in wrappers(self.model)]
        self.at[key] = (masks(self.model), thresholds)

    def on_train_begin(self, logs=None):
        self.record(-1)

    def on_train_batch_end(self, batch, logs=None):
        self.record(int(self.model.optimizer.iterations))

    def on_epoch_end(self, epoch, logs=None):
        self.record(f"epoch {epoch}")

    def on_train_end(self, logs=None):
        self.record(None)


def check_events(found, history, written):
    """`written` lists pairs of the step in the file and the key of the masks that it shows."""
    tags = {"sparsity", "churn"}
    tags |= {f"{kind}/{path}" for kind in ("sparsity", "churn", "threshold") for path in PATHS}
    assert set(found) == tags
    steps = sorted({step for step, _ in written})
    previous, _ = history.at[-1]
    taken = {tag: [] for tag in tags}
    for _, key in written:
        current, thresholds = history.at[key]
        flips = [int(np.sum(a != b)) for a, b in zip(current, previous)]
        taken["sparsity"].append(1 - sum(mask.sum() for mask in current) / (FIRST + SECOND))
        taken["churn"].append(sum(flips) / (FIRST + SECOND))
        for path, mask, flipped, threshold in zip(PATHS, current, flips, thresholds):
            taken[f"sparsity/{path}"].append(1 - mask.mean())
            taken[f"churn/{path}"].append(flipped / mask.size)
            taken[f"threshold/{path}"].append(threshold)
        previous = current
    for tag, expected in taken.items():
        assert sorted(found[tag]) == steps
        actual = [value for step in steps for value in found[tag][step]]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=tag)
    assert max(taken["churn"]) > 0 and taken["sparsity"][-1] == 0.75


PATHS = ("first", "second")


def fit_with_summaries(log_dir, schedule, **kwargs):
    model = compiled(schedule)
    history = MaskHistory()
    callbacks = [tf_movprune.PruningSummaries(str(log_dir), **kwargs), history]
    fit(model, callbacks=callbacks)
    return events(log_dir), history


def test_summaries_of_each_epoch(tmp_path, tensorboard):
    found, history = fit_with_summaries(tmp_path, cubic(begin_step=0, end_step=10))
    check_events(found, history, [(6, "epoch 0"), (12, "epoch 1"), (12, None)])


def test_summaries_every_few_steps(tmp_path, tensorboard):
    found, history = fit_with_summaries(
        tmp_path, cubic(begin_step=0, end_step=12, frequency=3), update_freq=5
    )
    check_events(found, history, [(5, 5), (10, 10), (12, None)])


def test_summaries_with_steps_per_execution(tmp_path, tensorboard):
    model = compiled(cubic(begin_step=0, end_step=10), steps_per_execution=4)
    fit(
        model,
        dataset=data(12),
        epochs=1,
        callbacks=[tf_movprune.PruningSummaries(str(tmp_path), update_freq=6)],
    )
    assert sorted(events(tmp_path)["sparsity"]) == [8, 12]


@pytest.mark.parametrize("update_freq", [0, -2, "batch", 2.5, None])
def test_update_freq_out_of_range(tmp_path, tensorboard, update_freq):
    message = rf'update_freq must be "epoch" or .* at least 1, got {re.escape(repr(update_freq))}'
    with pytest.raises(ValueError, match=message):
        tf_movprune.PruningSummaries(str(tmp_path), update_freq=update_freq)


def test_summaries_of_a_dense_model(tmp_path, tensorboard):
    model = dense_model()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        model.fit(data(), callbacks=[tf_movprune.PruningSummaries(str(tmp_path))], verbose=0)
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "pruning").iterdir())


def test_training_on_without_the_optimizer_warns():
    """As after loading weights from an H5 file, which does not hold the optimizer's step."""
    model = compiled(cubic(begin_step=0, end_step=6))
    fit(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, epochs=1)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    message = r"Masks have sparsity 0\.750, but training starts at step 0, .* says 0\.000"
    with pytest.warns(UserWarning, match=message):
        fit(model)
