"""Runs that cannot work, or not as meant, are named before or after them, in either Keras."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from accumulating import accumulating_sgd
from shells import kernels, refresh, sparsities
from small_models import RAMP, X, Y, begin_fit, fit, mlp, prune, scaled

import tf_movprune
from tf_movprune import CubicSparsity, CubicThreshold, Magnitude, SoftMovement


def begin(keras, pruned, optimizer=None, **kwargs):
    """Compiles a model, and begins to train it."""
    pruned.compile(optimizer or keras.optimizers.SGD(0.1), "mse")
    begin_fit(keras, pruned, **kwargs)


def sgd_at(keras, step):
    """An optimizer that has taken some steps."""
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.iterations.assign(step)
    return optimizer


# ---- schedules and rates


def test_schedules_that_end_after_the_run(keras):
    pruned = prune(mlp(keras), {"first": RAMP, "second": CubicSparsity(0.75, 0, 1800)})
    before = pruned.get_weights()
    message = (
        r"ends at step 1800, but this run has 8 steps \(4 × 2\): it would stop at sparsity 0\.01\. "
        r"Lower end_step .*which would be 8\) or train longer.*num_train_steps"
    )
    with pytest.raises(ValueError, match=message):
        fit(keras, pruned)
    assert int(pruned.optimizer.iterations) == 0
    for old, new in zip(before, pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_runs_count_from_the_step_of_the_optimizer(keras):
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 10))
    with pytest.raises(
        ValueError, match=r"step 10, but this run has 8 steps \(4 × 2\) after the first 1:"
    ):
        begin(keras, pruned, sgd_at(keras, 1))
    with pytest.raises(
        ValueError, match=r"ends at step 10, but num_train_steps is 9 after the first 1: it"
    ):
        begin(keras, pruned, sgd_at(keras, 1), num_train_steps=9)
    begin(keras, pruned, sgd_at(keras, 2))
    begin(keras, pruned, sgd_at(keras, 12))  # long after the end


@pytest.mark.parametrize(
    "wrap",
    [pytest.param(lambda keras, optimizer: optimizer, marks=pytest.mark.slow), scaled],
    ids=["", "scaled"],
)
def test_rates_that_end_with_another_step_than_the_run(keras, wrap):
    pruned = prune(mlp(keras))

    def begin_at_rate(for_steps, step=0):
        optimizer = tf_movprune.create_optimizer(0.01, for_steps, 0, model=pruned)
        optimizer.iterations.assign(step)
        begin(keras, pruned, wrap(keras, optimizer))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin_at_rate(8)
    message = (
        r"learning rate is 0 from step 7 on.*this run has 8 steps \(4 × 2\): nothing would learn"
        r".*num_train_steps=8"
    )
    with pytest.warns(UserWarning, match=message):
        begin_at_rate(7)
    with pytest.warns(UserWarning, match=r"for num_train_steps=12, .* still be 33% of its peak"):
        begin_at_rate(12)
    with pytest.warns(UserWarning, match=r"from step 8 on.*8 steps \(4 × 2\) after the first 8"):
        begin_at_rate(8, step=8)


# ---- what is trained


def test_models_without_pruned_layers(keras):
    with pytest.raises(ValueError, match=r"no pruned layers.*prune_low_movement"):
        begin(keras, mlp(keras))


OPTIMIZERS = {
    "momentum": lambda keras, model: keras.optimizers.SGD(0.1, momentum=0.9),
    "paper": lambda keras, model: tf_movprune.create_optimizer(0.01, 8, 0, model=model),
    "paper and SGD": lambda keras, model: tf_movprune.create_optimizer(
        0.01, 8, 0, score_optimizer=keras.optimizers.SGD(1.0), model=model
    ),
    "scaled": lambda keras, model: scaled(keras, keras.optimizers.Adam(0.01)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_that_were_built_before_pruning_are_refused(keras, kind):
    model = mlp(keras)
    optimizer = OPTIMIZERS[kind](keras, model)
    getattr(optimizer, "inner_optimizer", optimizer).build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"built before the model was pruned.*first"):
        begin(keras, prune(model), optimizer)


def test_optimizers_that_were_built_after_pruning(keras):
    pruned = prune(mlp(keras))
    optimizer = OPTIMIZERS["paper and SGD"](keras, pruned)
    optimizer.build(pruned.trainable_variables)
    begin(keras, pruned, optimizer)


def test_scores_of_frozen_layers_cannot_learn(keras):
    model = mlp(keras)
    model.layers[-2].trainable = False
    with pytest.raises(
        ValueError, match=r"second is frozen \(trainable=False\).*Unfreeze.*Magnitude"
    ):
        begin(keras, prune(model))


def test_frozen_layers_are_pruned_by_magnitude(keras):
    """At a learning rate of 0 in the first step, by which nothing in a half-frozen model moves."""
    model = mlp(keras)
    model.layers[0].trainable = False
    pruned = prune(model, RAMP, Magnitude())
    fit(keras, pruned, tf_movprune.create_optimizer(1e-3, 8, 2, model=pruned))
    assert sparsities(pruned) == [0.75, 0.75]


def test_a_loss_may_be_computed_by_the_model(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.out = keras.layers.Dense(8), keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.first(x))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
            return tf.reduce_mean(y_pred**2)

    model = Own()
    model(X)
    pruned = prune(model, CubicThreshold(0.1, 0, 4), SoftMovement(10.0))
    pruned.compile("adam")
    begin_fit(keras, pruned)


def test_scores_that_are_not_finite(keras):
    pruned = prune(mlp(keras))
    score = kernels(pruned)[1].scores
    before = score.numpy()
    score.assign(np.full([16, 16], np.nan))
    message = r"NaN or infinity at step 0 in second \(movement scores\)\. .* lower the"
    with pytest.raises(ValueError, match=message):
        begin(keras, pruned)
    for hook in ("on_epoch_end", "on_train_end"):
        score.assign(before)
        update = tf_movprune.UpdatePruningStep(8)
        begin_fit(keras, pruned, update=update)
        score.assign(np.full([16, 16], np.inf))
        with pytest.raises(ValueError, match=message):
            getattr(update, hook)(*[0] * (hook == "on_epoch_end"))


def test_masks_that_are_ahead_of_the_optimizer_are_warned_of(keras):
    """A file that does not hold the optimizer's step brings masks that are ahead."""
    pruned = prune(mlp(keras))
    refresh(pruned, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin(keras, pruned, sgd_at(keras, 6))
    message = r"Masks have sparsity 0\.750, but training starts at step 0, .* says 0\.000"
    with pytest.warns(UserWarning, match=message):
        begin(keras, pruned)


# ---- steps


def test_an_optimizer_that_never_steps_is_an_error(keras):
    class OwnOptimizers(keras.Model):
        """Trains with two optimizers, neither of them `model.optimizer`."""

        def __init__(self):
            super().__init__()
            self.first, self.out = keras.layers.Dense(8, name="first"), keras.layers.Dense(2)
            self.own_optimizers = [keras.optimizers.SGD(1e-3), keras.optimizers.SGD(2e-3)]

        def call(self, x, training=False):
            return self.out(self.first(x))

        def train_step(self, batch):
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean(self(batch, training=True) ** 2)
            for optimizer, layer in zip(self.own_optimizers, (self.first, self.out)):
                weights = layer.trainable_weights
                optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            return {"loss": loss}

    model = OwnOptimizers()
    model(X)
    pruned = prune(model, RAMP, Magnitude())
    for optimizer, layer in zip(model.own_optimizers, (model.first, model.out)):
        optimizer.build(layer.trainable_variables)
    pruned.compile()
    for size, batches in ((5, 5), (80, 64)):
        before = int(model.own_optimizers[0].iterations)
        x = tf.data.Dataset.from_tensor_slices(np.resize(X, [size, 8])).batch(1)
        with pytest.raises(
            RuntimeError, match=rf"no step in {batches} batches.*update_masks\(model"
        ):
            pruned.fit(x, epochs=2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
        assert int(model.own_optimizers[0].iterations) == before + batches


def accumulating(keras, wrap=lambda keras, optimizer: optimizer):
    """A model that is trained over more batches for a step than others are given for their first.

    An epoch has fewer.
    """
    pruned = prune(mlp(keras), CubicSparsity(0.75, begin_step=0, end_step=1), Magnitude())
    pruned.compile(wrap(keras, accumulating_sgd(keras, 70)), "mse")
    return pruned, np.resize(X, [20, 8]), np.zeros([20, 3], np.float32)


def statically_scaled(keras, optimizer):
    kwargs = {"dynamic": False} if keras.__name__ == "tf_keras" else {}
    return scaled(keras, optimizer, initial_scale=8.0, **kwargs)


@pytest.mark.parametrize(
    "wrap",
    [pytest.param(lambda keras, optimizer: optimizer, marks=pytest.mark.slow), statically_scaled],
    ids=["", "scaled"],
)
def test_optimizers_say_over_how_many_batches_they_accumulate(keras, wrap):
    pruned, x, y = accumulating(keras, wrap)
    callbacks = [tf_movprune.UpdatePruningStep()]
    pruned.fit(x, y, batch_size=1, epochs=7, verbose=0, callbacks=callbacks)
    assert int(pruned.optimizer.iterations) == 2 and sparsities(pruned) == [0.75, 0.75]


def test_optimizers_that_accumulate_over_more_than_the_run(keras):
    pruned, x, y = accumulating(keras)
    callbacks = [tf_movprune.UpdatePruningStep(num_train_steps=2)]
    message = r"no step in 40 batches.* its attribute gradient_accumulation_steps"
    with pytest.raises(RuntimeError, match=message):
        pruned.fit(x, y, batch_size=1, epochs=2, verbose=0, callbacks=callbacks)


def test_half_precision_that_always_overflows(keras):
    pruned = prune(mlp(keras))
    optimizer = scaled(keras, keras.optimizers.SGD(0.1))
    pruned.compile(optimizer, lambda y, x: tf.reduce_mean(x) * np.inf)
    with pytest.raises(RuntimeError, match=r"no step in 8 batches.*overflow in half precision"):
        callbacks = [tf_movprune.UpdatePruningStep()]
        pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)


# ---- runs that end otherwise than was known


def test_runs_that_stop_early_or_have_no_known_length(keras):
    """Masks are refreshed a last time, and one warning says how far they are."""

    def batches():
        yield from zip(X.reshape([4, 8, 8]), Y.reshape([4, 8]))

    class Stopping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    for data, epochs, steps in ((X, 2, [2]), (batches(), 1, [4, 5])):
        pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 8, frequency=5))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        pruned.compile(keras.optimizers.SGD(0.1), loss)
        callbacks = [tf_movprune.UpdatePruningStep()]
        arguments = {"x": data, "epochs": epochs, "verbose": 0}
        if data is X:
            callbacks.append(Stopping())
            arguments |= {"y": Y, "batch_size": 8}
        with pytest.warns(UserWarning, match="Training stopped") as caught:
            pruned.fit(**arguments, callbacks=callbacks)
        step = int(pruned.optimizer.iterations)
        assert step in steps  # tf_keras counts one in which the data ran out
        reached = tf_movprune.summarize_sparsity(pruned).sparsity
        assert reached == pytest.approx(kernels(pruned)[0].settings.ramp.value_at(step), abs=0.01)
        said = f"at step {step}, before the schedule's end_step 8: sparsity is {reached:.3f}."
        messages = [str(warning.message) for warning in caught]
        assert [said in text for text in messages if "Training stopped" in text] == [True]
        for kernel in kernels(pruned):
            score, mask = kernel.scores.numpy(), kernel.mask.numpy()
            assert score[mask].min() >= score[~mask].max()
