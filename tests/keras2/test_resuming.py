"""Training that resumes from every kind of file goes on as if it had never stopped."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from saved import (
    cubic,
    inputs_of,
    outputs_of,
    polynomial,
    save,
    sequential,
)

import tf_movprune

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def test_trained_model_serves_its_masks(tmp_path):
    """With compiled functions, an optimizer and a bound callback, as after `fit`."""
    model, _ = trained_straight("sgd")
    expected = outputs_of(model)
    save(model, tmp_path / "trained_saved_model")
    restored = tf.saved_model.load(str(tmp_path / "trained_saved_model"))
    (outputs,) = restored.signatures["serving_default"](tf.constant(inputs_of(model))).values()
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)
    loaded = keras.models.load_model(str(tmp_path / "trained_saved_model"))
    assert tf_movprune.summarize_sparsity(loaded).sparsity == 0.75
    np.testing.assert_array_equal(outputs_of(loaded), expected)


STEPS = 12


SCORE_OPTIMIZERS = {
    "adam": lambda: None,
    "sgd": lambda: keras.optimizers.SGD(1.0, momentum=0.5),
}


def sequential_in_training(scores, schedule=None, seed=6):
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = tf_movprune.prune_low_movement(sequential(), schedule or cubic())
    optimizer = tf_movprune.create_optimizer(
        0.05, STEPS, 2, weight_decay=0.01, score_optimizer=SCORE_OPTIMIZERS[scores]()
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, batches, callbacks=()):
    random = np.random.RandomState(7)
    inputs = random.standard_normal((STEPS, 4, 8)).astype("float32")
    targets = inputs[..., :2] * 2
    model.fit(
        inputs[batches].reshape(-1, 8),
        targets[batches].reshape(-1, 2),
        batch_size=4,
        shuffle=False,
        verbose=0,
        callbacks=[tf_movprune.UpdatePruningStep(num_train_steps=STEPS), *callbacks],
    )


def state(model):
    variables = [*model.weights, *model.optimizer.variables]
    return [(variable.name, variable.numpy()) for variable in variables]


def assert_same_to_the_bit(actual, expected):
    assert [name for name, _ in actual] == [name for name, _ in expected]
    for (name, value), (_, other) in zip(actual, expected):
        np.testing.assert_array_equal(value, other, err_msg=name)


@functools.cache
def trained_straight(scores):
    """The model after all steps, and its state."""
    model = sequential_in_training(scores)
    fit(model, slice(0, STEPS))
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.75
    assert int(model.optimizer.iterations) == STEPS
    return model, state(model)


@functools.cache
def trained_halfway(scores):
    """The model after half of the steps, to be saved and not to be trained further."""
    model = sequential_in_training(scores)
    fit(model, slice(0, STEPS // 2))
    assert 0.3 < tf_movprune.summarize_sparsity(model).sparsity < 0.75
    return model, state(model)


def resumed_from_checkpoint(model, scores, folder):
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / "half"))
    resumed = sequential_in_training(scores, seed=99)
    status = tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(path)
    resumed.optimizer.build(resumed.trainable_variables)
    status.assert_existing_objects_matched()
    return resumed


def resumed_from_file(name):
    def resumed(model, scores, folder):
        model.save(str(folder / name))
        keras.backend.clear_session()
        keras.utils.set_random_seed(99)
        return keras.models.load_model(str(folder / name))

    return resumed


@pytest.mark.parametrize(
    "resume",
    [resumed_from_checkpoint, resumed_from_file("half.keras"), resumed_from_file("half.h5")],
    ids=["checkpoint", "keras", "h5"],
)
@pytest.mark.parametrize("scores", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_resumed_training_is_exact(scores, resume, tmp_path):
    _, expected = trained_straight(scores)
    model, half = trained_halfway(scores)
    resumed = resume(model, scores, tmp_path)
    assert resumed is not model
    assert_same_to_the_bit(state(resumed), half)
    assert int(resumed.optimizer.iterations) == STEPS // 2
    fit(resumed, slice(STEPS // 2, STEPS))
    assert_same_to_the_bit(state(resumed), expected)


def test_unbuilt_optimizer_is_restored_when_training_goes_on(tmp_path):
    """Restores right after compile, before the first step, like most training scripts."""
    _, expected = trained_straight("sgd")
    model, _ = trained_halfway("sgd")
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "half"))
    resumed = sequential_in_training("sgd", seed=99)
    tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(path)
    fit(resumed, slice(STEPS // 2, STEPS))
    assert_same_to_the_bit(state(resumed), expected)


def test_resuming_between_two_refreshes_is_exact(tmp_path):
    """From a checkpoint written while training ran, with masks that were computed steps before."""

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 8:
                checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
                self.path = checkpoint.save(str(tmp_path / "checkpoint"))

    straight, save_at = sequential_in_training("sgd", polynomial()), Save()
    fit(straight, slice(0, STEPS), [save_at])
    expected = state(straight)

    resumed = sequential_in_training("sgd", polynomial(), seed=99)
    tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(save_at.path)
    fit(resumed, slice(8, STEPS))
    assert_same_to_the_bit(state(resumed), expected)
