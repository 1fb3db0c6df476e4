"""Training that goes on from a file is as if it had never stopped, in either Keras."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from shells import backup, interrupting, keras_of, sparsities
from small_models import X, Y, mlp, prune

import tf_movprune
from tf_movprune import CubicSparsity

SCORE_OPTIMIZERS = {
    "sgd": lambda keras: keras.optimizers.SGD(1.0, momentum=0.5),
    "adam": lambda keras: None,
}


def started(keras, scores, seed=99):
    """A model in training. Its masks are refreshed at steps 3 and 6 of 8, and it is saved at 4."""
    keras.utils.set_random_seed(seed)
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 7, frequency=3))
    score_optimizer = SCORE_OPTIMIZERS[scores](keras)
    optimizer = tf_movprune.create_optimizer(
        0.05, 8, 2, weight_decay=0.01, score_optimizer=score_optimizer, model=pruned
    )
    pruned.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return pruned


def train(pruned, first_epoch, epochs, callbacks=()):
    pruned.fit(
        X,
        Y,
        batch_size=8,
        initial_epoch=first_epoch,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[tf_movprune.UpdatePruningStep(num_train_steps=8), *callbacks],
    )


def state(model):
    return [np.array(variable) for variable in [*model.weights, *model.optimizer.variables]]


def assert_same_to_the_bit(actual, expected):
    for value, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, other)


@functools.cache
def straight(name, scores):
    """The state after all steps."""
    pruned = started(keras_of(name), scores, seed=3)
    train(pruned, 0, 2)
    assert sparsities(pruned) == [0.75, 0.75] and int(pruned.optimizer.iterations) == 8
    return state(pruned)


@functools.cache
def halfway(name, scores):
    """The model after half of the steps, to be saved and not to be trained further."""
    pruned = started(keras_of(name), scores, seed=3)
    train(pruned, 0, 1)
    assert 0.3 < sparsities(pruned)[0] < 0.75
    return pruned


def from_checkpoint(keras, scores, folder):
    """Restored right after `compile`, before the first step, as most training scripts do it."""
    half = halfway(keras.__name__, scores)
    path = tf.train.Checkpoint(model=half, optimizer=half.optimizer).save(str(folder / "half"))
    resumed = started(keras, scores)
    tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer).restore(path)
    return resumed


def from_built_checkpoint(keras, scores, folder):
    half = halfway(keras.__name__, scores)
    path = tf.train.Checkpoint(model=half, optimizer=half.optimizer).save(str(folder / "half"))
    resumed = started(keras, scores)
    resumed.optimizer.build(resumed.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=resumed, optimizer=resumed.optimizer)
    checkpoint.restore(path).assert_existing_objects_matched()
    return resumed


def from_file(suffix):
    def resumed(keras, scores, folder):
        if suffix == ".h5" and keras.__name__ == "keras":
            pytest.skip("H5 files of Keras 3 do not hold the optimizer's step")
        file = folder / f"half{suffix}"
        halfway(keras.__name__, scores).save(file)
        keras.backend.clear_session()
        keras.utils.set_random_seed(99)
        return keras.models.load_model(file)

    return resumed


every_score_optimizer = pytest.mark.parametrize(
    "scores", ["sgd", pytest.param("adam", marks=pytest.mark.slow)]
)


@every_score_optimizer
@pytest.mark.parametrize(
    "resume", [from_file(".keras"), from_checkpoint], ids=["file", "checkpoint"]
)
def test_resumed_training_is_exact(keras, scores, resume, tmp_path):
    resumed = resume(keras, scores, tmp_path)
    train(resumed, 1, 2)
    assert_same_to_the_bit(state(resumed), straight(keras.__name__, scores))


@every_score_optimizer
@pytest.mark.parametrize(
    "resume",
    [from_file(".h5"), from_built_checkpoint],
    ids=["h5", "checkpoint"],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_state_of_training_comes_back(keras, scores, resume, tmp_path):
    resumed, half = resume(keras, scores, tmp_path), halfway(keras.__name__, scores)
    assert resumed is not half and int(resumed.optimizer.iterations) == 4
    assert_same_to_the_bit(state(resumed), state(half))


@every_score_optimizer
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(keras, scores, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(started(keras, scores, seed=3), 0, 2, [backup(keras, tmp_path), interrupting(keras)])
    resumed = started(keras, scores)
    train(resumed, 0, 2, [backup(keras, tmp_path)])
    assert_same_to_the_bit(state(resumed), straight(keras.__name__, scores))
