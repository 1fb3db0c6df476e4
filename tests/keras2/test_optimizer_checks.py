"""Runs that cannot work, or not as meant, are named before or after them."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from runs import (
    FIRST,
    SECOND,
    HasALossOfItsOwn,
    Recorder,
    compiled,
    cubic,
    data,
    dense_model,
    fit,
    kept,
    kept_at,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import wrappers

import tf_movprune


def test_schedule_that_is_longer_than_the_run():
    model = compiled(cubic(begin_step=2, end_step=1800))
    before = [variable.numpy() for variable in model.variables]
    recorder = Recorder()
    with pytest.raises(
        ValueError,
        match=r"ends at step 1800, but this run has 12 steps \(6 × 2\): it would stop at "
        r"sparsity 0\.01\. Lower end_step .*which would be 12\) or train longer.*num_train_steps",
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
        fit(model, update=tf_movprune.UpdatePruningStep(18))
        fit(model, epochs=1)
    with pytest.warns(UserWarning, match=r"from step 18 on.*6 steps \(6 × 1\) after the first 18"):
        fit(model, epochs=1)
    model = compiled(cubic(), optimizer=tf_movprune.create_optimizer(0.01, 18, 0))
    with pytest.warns(
        UserWarning, match=r"made for num_train_steps=18, .* still be 33% of its peak"
    ):
        fit(model)
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


def test_layer_that_is_frozen():
    model = compiled(cubic())
    wrappers(model)[1].trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"second is frozen \(trainable=False\).*Unfreeze.*Magnitude"
    ):
        fit(model)


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
    wrappers(model)[1].kernels[0].scores.assign(np.full((8, 4), np.nan))
    with pytest.raises(ValueError, match=r"scores of second contain NaN .*at step 0.*lower the"):
        fit(model)


def test_scores_that_become_nan():
    model = compiled(cubic())
    broken = data().map(lambda x, y: (x * np.nan, y))
    with pytest.raises(ValueError, match=r"scores of first contain NaN or infinity at step 6\."):
        fit(model, dataset=broken)


def test_training_on_without_the_optimizer_warns():
    """Loads weights like those of an H5 file, which does not hold the optimizer's step."""
    model = compiled(cubic(begin_step=0, end_step=6))
    fit(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, epochs=1)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    message = r"Masks have sparsity 0\.750, but training starts at step 0, .* says 0\.000"
    with pytest.warns(UserWarning, match=message):
        fit(model)
