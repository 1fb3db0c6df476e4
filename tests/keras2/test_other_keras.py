"""Objects of Keras 3 that are given to models of tf_keras, and the reverse."""

import inspect

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras
from runs import compiled, cubic, data

import tf_movprune


@pytest.mark.parametrize(
    "arguments, name",
    [
        (dict(optimizer=keras3.optimizers.Adam()), "tf_keras.optimizers.Adam"),
        (dict(loss=keras3.losses.MeanSquaredError()), "tf_keras.losses.MeanSquaredError"),
        (dict(metrics=[[keras3.metrics.Accuracy()]]), "tf_keras.metrics.Accuracy"),
    ],
    ids=["optimizer", "loss", "metric"],
)
def test_compile_names_what_is_of_keras_3(arguments, name):
    model = compiled(cubic())
    with pytest.raises(TypeError, match=rf"of Keras 3, .* is a model of tf_keras.* {name}\."):
        model.compile(**{"optimizer": "sgd", "loss": "mse", **arguments})


@pytest.mark.parametrize("named", ["optimizer", "own optimizer", "loss", "callbacks"])
def test_models_of_keras_3_name_what_is_of_tf_keras(named):
    model = keras3.Sequential([keras3.Input([2]), *(keras3.layers.Dense(2) for _ in range(2))])
    pruned = tf_movprune.prune_low_movement(model, method=tf_movprune.L0())
    given = {
        "optimizer": (keras.optimizers.Adam(), r"keras\.optimizers\.Adam\."),
        "own optimizer": (tf_movprune.create_optimizer(1e-3, 9, 0), "Pass model=model to"),
        "loss": (keras.losses.MeanSquaredError(), r"keras\.losses\.MeanSquaredError\."),
        "callbacks": ([keras.callbacks.EarlyStopping()], r"keras\.callbacks\.EarlyStopping\."),
    }
    value, remedy = given[named]
    method = pruned.fit if named == "callbacks" else pruned.compile
    with pytest.raises(TypeError, match=rf"of tf_keras, .* is a model of Keras 3\. .*{remedy}"):
        method(**{named.split()[-1]: value})
    pruned.compile("sgd", keras3.losses.MeanSquaredError())
    assert not {"compile", "fit"} & set(vars(tf_movprune.strip_pruning(pruned)))


def test_fit_names_what_is_of_keras_3():
    model = compiled(cubic())
    callbacks = [tf_movprune.UpdatePruningStep(), keras3.callbacks.EarlyStopping()]
    with pytest.raises(TypeError, match=r"EarlyStopping .* tf_keras\.callbacks\.EarlyStopping\."):
        model.fit(data(), callbacks=callbacks)


def test_a_stripped_model_is_as_keras_made_it():
    stripped = tf_movprune.strip_pruning(
        tf_movprune.prune_low_movement(
            keras.Sequential([keras.layers.Dense(2, input_shape=[2]), keras.layers.Dense(2)]),
            cubic(),
            tf_movprune.Magnitude(),
        )
    )
    assert not {"compile", "fit", "save"} & set(vars(stripped))


def test_models_of_keras_3_are_named():
    model = keras3.Sequential([keras3.layers.Dense(2)])
    model.compile("sgd", "mse")
    callback = tf_movprune.OnceSparse(keras.callbacks.Callback())
    with pytest.raises(TypeError, match="Callback is not a callback of the Keras of"):
        model.fit(np.ones([4, 2]), np.ones([4, 2]), verbose=0, callbacks=[callback])


def test_classes_of_ones_own_and_schedules_are_named():
    class Mine(keras3.callbacks.Callback):
        pass

    model = compiled(cubic())
    with pytest.raises(TypeError, match=r"got Mine, a subclass of Callback, of Keras 3"):
        model.fit(data(), callbacks=[tf_movprune.UpdatePruningStep(), Mine()])
    assert "callbacks" in inspect.signature(model.fit).parameters
