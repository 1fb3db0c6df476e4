"""Pruned models through every way in which Keras and TensorFlow save."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from saved import (
    FORMATS,
    ZOO,
    assert_same_state,
    cubic,
    dense,
    dense_outputs_of,
    described,
    example,
    fresh,
    inputs_of,
    outputs_of,
    save,
)
from tensorflow_model_optimization.sparsity import keras as tfmot
from wrapped import Everything, wrappers

import tf_movprune
from tf_movprune.keras2.weight_files import holds_masks

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Files of the examples, each written once."""
    folder = tmp_path_factory.mktemp("saved")

    @functools.cache
    def path_of(kind, format_):
        path = folder / f"{kind}{FORMATS[format_]}"
        save(example(kind), path)
        return path

    return path_of


@pytest.fixture(scope="module")
def target_of():
    """Other models of the same kinds, each made once, whose weights are those they began with."""

    @functools.cache
    def made(kind):
        model = fresh(kind, seed=5)
        return model, model.get_weights()

    def target_of(kind):
        model, weights = made(kind)
        model.set_weights(weights)
        return model

    return target_of


@pytest.mark.parametrize("kind", ZOO)
def test_the_examples_are_worth_testing(kind, target_of):
    """Their masks change the outputs, and other seeds give other models."""
    assert np.max(np.abs(outputs_of(example(kind)) - dense_outputs_of(kind))) > 0.1
    assert np.max(np.abs(outputs_of(example(kind)) - outputs_of(target_of(kind)))) > 0.1
    for layer in wrappers(example(kind)):
        for mask in (kernel.mask for kernel in layer.kernels):
            assert np.count_nonzero(mask) == mask.shape.num_elements() // 4


# ---- ways to pass weights on


def through_save_weights(name):
    def pass_on(source, target, folder):
        source.save_weights(str(folder / name))
        status = target.load_weights(str(folder / name))
        if status is not None and hasattr(status, "assert_consumed"):
            status.assert_consumed()

    return pass_on


def through_h5_by_name(source, target, folder):
    source.save_weights(str(folder / "weights.h5"))
    target.load_weights(str(folder / "weights.h5"), by_name=True)


def through_checkpoint(source, target, folder):
    path = tf.train.Checkpoint(model=source).save(str(folder / "checkpoint"))
    tf.train.Checkpoint(model=target).restore(path).assert_consumed()


# ---- whole models


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ZOO)
def test_model_round_trip(saved, kind, format_):
    model = example(kind)
    loaded = keras.models.load_model(str(saved(kind, format_)))
    assert type(loaded) is type(model)
    assert len(wrappers(loaded)) == len(wrappers(model)) > 0
    for one, other in zip(wrappers(model), wrappers(loaded)):
        assert type(other) is tf_movprune.PruneLowMovement
        assert described(other) == described(one)
        assert type(other.settings.schedule) is type(one.settings.schedule)
        assert type(other.settings.method) is type(one.settings.method)
        start = getattr(one.settings.method, "score_initializer", None)
        assert type(getattr(other.settings.method, "score_initializer", None)) is type(start)
    assert_same_state(loaded, model)
    np.testing.assert_array_equal(outputs_of(loaded), outputs_of(model))


@pytest.mark.parametrize("format_", FORMATS)
def test_second_generation(saved, format_, tmp_path):
    """A loaded model saves like the one that it came from."""
    path = tmp_path / f"again{FORMATS[format_]}"
    save(keras.models.load_model(str(saved("functional", format_))), path)
    loaded = keras.models.load_model(str(path))
    model = example("functional")
    assert [described(layer) for layer in wrappers(loaded)] == [
        described(layer) for layer in wrappers(model)
    ]
    assert_same_state(loaded, model)


def test_a_loaded_saved_model_is_trained_and_stripped(saved):
    loaded = keras.models.load_model(str(saved("attention", "tf")))
    for layer in wrappers(loaded):
        for mask in (kernel.mask for kernel in layer.kernels):
            mask.assign(tf.ones_like(mask))
    optimizer = tf_movprune.create_optimizer(0.01, 12, 0, score_optimizer=keras.optimizers.SGD(1.0))
    loaded.compile(optimizer, "mse")
    scores = [v.numpy() for v in loaded.weights if "movement_scores" in v.name]
    inputs = np.repeat(inputs_of(loaded), 3, axis=0)
    loaded.fit(
        inputs,
        np.ones((48, *loaded.output_shape[1:])),
        batch_size=4,
        verbose=0,
        callbacks=[tf_movprune.UpdatePruningStep()],
    )
    for before, after in zip(
        scores, [v.numpy() for v in loaded.weights if "movement_scores" in v.name]
    ):
        assert not np.array_equal(before, after)
    assert tf_movprune.summarize_sparsity(loaded).sparsity == 0.75
    masked = outputs_of(loaded)
    np.testing.assert_array_equal(outputs_of(tf_movprune.strip_pruning(loaded)), masked)


def test_loaded_model_without_the_callback_raises(saved):
    for format_ in FORMATS:
        loaded = keras.models.load_model(str(saved("nested", format_)))
        loaded.compile("sgd", "mse")
        with pytest.raises(RuntimeError, match="UpdatePruningStep"):
            loaded.fit(inputs_of(loaded), np.ones((16, 2)), verbose=0)


@pytest.mark.parametrize("kind", ZOO)
def test_saved_model_without_keras_computes_with_masks(saved, kind):
    """The signature, and the restored object itself, called as a layer is, in evaluation."""
    model = example(kind)
    inputs = tf.constant(inputs_of(model))
    restored = tf.saved_model.load(str(saved(kind, "tf")))
    (outputs,) = restored.signatures["serving_default"](inputs).values()
    for found in (outputs, restored(inputs, training=False)):
        np.testing.assert_allclose(found, outputs_of(model), atol=1e-6)
    assert np.max(np.abs(outputs.numpy() - dense_outputs_of(kind))) > 0.1


def test_saving_changes_nothing(saved):
    """The model that was saved as a SavedModel still computes, and trains, with its masks."""
    model = fresh("attention")
    model.set_weights(example("attention").get_weights())
    before = outputs_of(model)
    names = [v.name for v in model.trainable_weights]
    model.compile("sgd", "mse")
    for format_ in FORMATS:
        saved("attention", format_)
    np.testing.assert_array_equal(outputs_of(example("attention")), before)
    assert [v.name for v in example("attention").trainable_weights] == names
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        example("attention")(inputs_of(model), training=True)


class Block(keras.layers.Layer):
    """Two layers within a layer of a user's own, as the encoder layers of most models are."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = dense(12, "inside")
        self.outside = dense(8, "outside")

    def call(self, inputs):
        return self.outside(self.inside(inputs))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.head = keras.layers.Dense(2)

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


def subclassed():
    keras.backend.reset_uids()  # names of layers are numbered alike
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    return model


def test_subclassed_model_as_a_saved_model(tmp_path):
    """Wrappers within layers and models that Keras revives without their classes."""
    model = tf_movprune.prune_low_movement(subclassed(), cubic())
    tf_movprune.update_masks(model, 10)
    inputs = np.random.RandomState(4).standard_normal((16, 8)).astype("float32")
    expected = model(inputs).numpy()
    model.predict(inputs, verbose=0)  # tells Keras the inputs to save
    save(model, tmp_path / "subclassed_saved_model")
    restored = tf.saved_model.load(str(tmp_path / "subclassed_saved_model"))
    (outputs,) = restored.signatures["serving_default"](tf.constant(inputs)).values()
    for found in (outputs, restored(inputs, training=False)):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(str(tmp_path / "subclassed_saved_model"))
    paths = list(tf_movprune.pruned_layers(model))
    assert sorted(tf_movprune.pruned_layers(loaded)) == sorted(paths) and len(paths) == 4
    stripped = tf_movprune.strip_pruning(loaded)
    np.testing.assert_allclose(stripped(inputs), expected, atol=1e-6)
    kernels = [w.numpy() for w in stripped.weights if len(w.shape) == 2]
    assert sorted(np.mean(kernel == 0) for kernel in kernels) == [0, 0.75, 0.75, 0.75, 0.75]


def with_composite(composite):
    model = keras.Sequential([keras.Input((3, 8)), composite, dense(2, "head")])
    return tf_movprune.prune_low_movement(model, cubic())


def test_composite_layers_have_no_configuration_while_they_are_pruned(tmp_path):
    model, path = with_composite(Block()), tmp_path / "model.keras"
    tf_movprune.update_masks(model, 10)
    for refused in (lambda: save(model, path), model.to_json):
        with pytest.raises(NotImplementedError, match=r"Block.* has pruning wrappers.*save_weigh"):
            refused()
    inputs = np.random.RandomState(4).standard_normal((4, 3, 8)).astype("float32")
    masked = model(inputs)
    save(tf_movprune.strip_pruning(model), path)
    loaded = keras.models.load_model(path, custom_objects={"Block": Block})
    np.testing.assert_array_equal(loaded(inputs), masked)


def test_composite_layers_in_a_saved_model(tmp_path):
    """Keras used to make them anew, with the weights of nothing in particular."""
    model = with_composite(Block())
    tf_movprune.update_masks(model, 10)
    save(model, tmp_path / "composite_saved_model")
    inputs = np.random.RandomState(4).standard_normal((4, 3, 8)).astype("float32")
    with keras.saving.custom_object_scope({"Block": Block}):
        loaded = keras.models.load_model(tmp_path / "composite_saved_model")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


def test_composite_layers_whose_configuration_is_complete(tmp_path):
    model = with_composite(keras.layers.TimeDistributed(dense(12, "inside")))
    tf_movprune.update_masks(model, 10)
    save(model, tmp_path / "model.keras")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert list(tf_movprune.pruned_layers(loaded)) == list(tf_movprune.pruned_layers(model))
    inputs = np.random.RandomState(4).standard_normal((4, 3, 8)).astype("float32")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_loads_in_the_scope_with_nothing_but_the_import(saved, tmp_path):
    """In a new process that imports the package and names nothing of it but the scope."""
    kinds = ["sequential", "functional"]  # with a schedule of ours, and one of tfmot
    paths = {
        f"{kind}/{format_}": str(saved(kind, format_)) for kind in kinds for format_ in FORMATS
    }
    (tmp_path / "paths.json").write_text(json.dumps(paths))
    for kind in kinds:
        np.save(tmp_path / f"{kind}.npy", inputs_of(example(kind)))
    program = """
        import json, pathlib, sys
        import numpy as np
        import tf_keras
        import tf_movprune
        folder = pathlib.Path(sys.argv[1])
        for name, path in json.loads((folder / "paths.json").read_text()).items():
            with tf_movprune.prune_scope():
                model = tf_keras.models.load_model(path)
            inputs = np.load(folder / (name.split("/")[0] + ".npy"))
            outputs = model(inputs, training=False).numpy()
            np.save(folder / (name.replace("/", "-") + "-outputs.npy"), outputs)
            types = sorted(type(layer).__name__ for layer in model.submodules)
            print(name, types.count("PruneLowMovement"))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("\n")[:-1] == [
        f"{name} {len(wrappers(example(name.split('/')[0])))}" for name in paths
    ]
    for name in paths:
        outputs = np.load(tmp_path / (name.replace("/", "-") + "-outputs.npy"))
        expected = outputs_of(example(name.split("/")[0]))
        np.testing.assert_allclose(outputs, expected, atol=1e-6, err_msg=name)


class Steps(tfmot.PruningSchedule):
    """A schedule of a user's own."""

    def __init__(self, sparsity):
        self.sparsity = sparsity

    def __call__(self, step):
        return tf.constant(True), tf.constant(self.sparsity)

    def get_config(self):
        return {"sparsity": self.sparsity}


@pytest.mark.parametrize("format_", FORMATS)
def test_schedule_of_ones_own(format_, tmp_path):
    model = keras.Sequential([keras.Input([8]), dense(8, "hidden"), dense(2, "out")])
    model = tf_movprune.prune_low_movement(model, Steps(0.25))
    path = tmp_path / f"model{FORMATS[format_]}"
    save(model, path)
    message = r"schedule of class 'Steps', which is not registered"
    # Keras goes on without a class that a SavedModel cannot make.
    is_heard = pytest.warns(UserWarning, match=message)
    with is_heard if format_ == "tf" else pytest.raises(ValueError, match=message):
        keras.models.load_model(str(path))
    with keras.saving.custom_object_scope({"Steps": Steps}):
        loaded = keras.models.load_model(str(path))
    for layer in wrappers(loaded):
        assert type(layer.settings.schedule) is Steps
        assert layer.settings.schedule.sparsity == 0.25


@pytest.mark.parametrize("kind", ZOO)
def test_configuration_round_trip(kind):
    """Of the architecture alone, as JSON; and `clone_model`."""
    model = example(kind)
    for copy in (keras.models.model_from_json(model.to_json()), keras.models.clone_model(model)):
        assert [described(layer) for layer in wrappers(copy)] == [
            described(layer) for layer in wrappers(model)
        ]
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(outputs_of(copy), outputs_of(model))


# ---- weights alone


@pytest.mark.parametrize(
    "pass_on",
    [
        through_save_weights("weights.h5"),
        through_save_weights("new.weights.h5"),
        through_save_weights("weights"),
        through_h5_by_name,
        through_checkpoint,
    ],
    ids=["h5", "weights.h5", "tf", "h5-by_name", "checkpoint"],
)
@pytest.mark.parametrize("kind", ZOO)
def test_weights_round_trip(kind, pass_on, target_of, tmp_path):
    target = target_of(kind)
    pass_on(example(kind), target, tmp_path)
    assert_same_state(target, example(kind))
    np.testing.assert_array_equal(outputs_of(target), outputs_of(example(kind)))


# ---- checkpoints of pruned and of plain models


def attention_chain():
    x = keras.Input([4, 8])
    h = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(x, keras.layers.Dense(2, name="out")(dense(8, "hidden")(h)))


def through_checkpoint_without_status(source, target, path):
    tf.train.Checkpoint(model=source).write(path)
    tf.train.Checkpoint(model=target).read(path)


class OnlyAttention(tfmot.PruningPolicy):
    def allow_pruning(self, layer):
        return isinstance(layer, keras.layers.MultiHeadAttention)

    def ensure_model_supports_pruning(self, model):
        pass


WAYS = {
    "tf": lambda a, b, path: (a.save_weights(path), b.load_weights(path)),
    "h5": lambda a, b, path: (a.save_weights(path + ".h5"), b.load_weights(path + ".h5")),
    "weights.h5": lambda a, b, path: (
        a.save_weights(path + ".weights.h5"),
        b.load_weights(path + ".weights.h5"),
    ),
    "checkpoint": through_checkpoint_without_status,
}


BETWEEN = np.random.RandomState(0).standard_normal([2, 4, 8]).astype("float32")


EVERY_LAYER = {"method": tf_movprune.Magnitude(), "pruning_policy": Everything()}


def pruned_chain(make, **kwargs):
    kwargs = kwargs or {"pruning_schedule": cubic(), "method": tf_movprune.Magnitude()}
    return tf_movprune.prune_low_movement(make(), **kwargs)


def stripped_chain(make):
    model = pruned_chain(make)
    tf_movprune.update_masks(model, 10)
    return tf_movprune.strip_pruning(model)


class Lazy(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(8), keras.layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


LAZY = {
    "subclassed": Lazy,
    "sequential": lambda: keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(2)]),
    "recurrent": lambda: keras.Sequential([keras.layers.GRU(4), keras.layers.Dense(2)]),
}


@pytest.mark.parametrize("kind", LAZY)
def test_checkpoints_that_wait_for_variables_do_not_cross_pruning(kind, tmp_path):
    plain, pruned = LAZY[kind](), pruned_chain(LAZY[kind], pruning_schedule=cubic(), **EVERY_LAYER)
    plain(BETWEEN)
    path = tf.train.Checkpoint(model=plain).save(str(tmp_path / "plain"))
    tf.train.Checkpoint(model=pruned).restore(path)
    for _ in range(2):  # the first refusal does not let the second pass
        with pytest.raises(ValueError, match=r"without masks.* Load dense weights before"):
            pruned(BETWEEN)


@pytest.mark.parametrize(
    "make, way",
    [
        *((attention_chain, way) for way in WAYS),
        *((subclassed, way) for way in ("tf", "weights.h5")),
        *(pytest.param(subclassed, way, marks=pytest.mark.slow) for way in ("h5", "checkpoint")),
    ],
)
def test_weights_of_plain_pruned_and_stripped_models_are_kept_apart(make, way, tmp_path):
    plain, source, target = make(), pruned_chain(make), pruned_chain(make)
    tf_movprune.update_masks(source, 10)
    x = BETWEEN if make is attention_chain else BETWEEN[0]
    pass_on, path = WAYS[way], str(tmp_path / "weights")
    with pytest.raises(ValueError, match=r"without masks|plain model, .* is pruned and takes"):
        pass_on(plain, target, path)
    with pytest.raises(ValueError):
        pass_on(source, plain, path)
    pass_on(source, target, path)
    masked = source(x)
    np.testing.assert_array_equal(target(x), masked)
    assert_same_state(target, source)
    if way == "checkpoint":
        return
    target = tf_movprune.strip_pruning(target)
    with pytest.raises(ValueError, match=r"holds weights of a pruned .* was stripped .* Load them"):
        pass_on(source, target, path)
    np.testing.assert_array_equal(target(x), masked)
    for other in (plain, tf_movprune.strip_pruning(source)):
        pass_on(other, target, path)
        np.testing.assert_array_equal(target(x), other(x))


def test_partial_loads_across_pruning_are_refused(tmp_path):
    """Keras would find no layer by its name, or skip what does not fit, and say nothing."""
    models = [pruned_chain(attention_chain), stripped_chain(attention_chain)]
    for source, target in (models, models[::-1]):
        source.save_weights(str(tmp_path / "a.h5"))
        source.save_weights(str(tmp_path / "a.weights.h5"))
        before = target(BETWEEN)
        with pytest.raises(ValueError, match="holds weights of a"):
            target.load_weights(tmp_path / "a.h5", by_name=True)
        with pytest.raises(ValueError, match="holds weights of a"):
            target.load_weights(str(tmp_path / "a.weights.h5"), skip_mismatch=True)
        np.testing.assert_array_equal(target(BETWEEN), before)


@pytest.mark.parametrize("way", ["tf", "h5"])
def test_a_stripped_model_keeps_its_weights_if_a_load_fails(way, tmp_path):
    def chain(sizes):
        return keras.Sequential([keras.Input([8]), *(keras.layers.Dense(n) for n in sizes)])

    target = tf_movprune.prune_low_movement(chain([8, 8, 8]), cubic(), tf_movprune.Magnitude())
    tf_movprune.update_masks(target, 10)
    target = tf_movprune.strip_pruning(target)
    before = [weight.numpy() for weight in target.weights]
    with pytest.raises(ValueError):
        WAYS[way](chain([8, 8, 2]), target, str(tmp_path / "weights"))
    for weight, value in zip(target.weights, before):
        np.testing.assert_array_equal(weight, value)
    with pytest.raises((OSError, ValueError, tf.errors.NotFoundError)):
        target.load_weights(str(tmp_path / "none.h5"))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"method": tf_movprune.L0()},
        {
            "pruning_schedule": cubic(),
            "method": tf_movprune.Magnitude(),
            "block_size": tf_movprune.HEADS,
            "pruning_policy": OnlyAttention(),
        },
    ],
    ids=["gates", "heads"],
)
def test_files_of_models_pruned_in_other_ways_are_known(kwargs, tmp_path):
    source, target = (pruned_chain(attention_chain, **kwargs) for _ in range(2))
    plain = attention_chain()
    for way in sorted(set(WAYS) - {"checkpoint"}):
        WAYS[way](source, target, str(tmp_path / way))
        name = way if way == "tf" else f"{way}.{way}"
        assert holds_masks(str(tmp_path / name)) is True
        plain.save_weights(str(tmp_path / f"plain.{name}"))
        assert holds_masks(str(tmp_path / f"plain.{name}")) is False


def test_weights_of_a_loaded_model_into_a_freshly_pruned_one(tmp_path):
    """Wrappers that a file brought do not know their place in the model."""
    example("sequential").save(tmp_path / "model.keras")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    target = fresh("sequential", seed=5)
    loaded.save_weights(str(tmp_path / "new.weights.h5"))
    target.load_weights(str(tmp_path / "new.weights.h5"))
    np.testing.assert_array_equal(outputs_of(target), outputs_of(loaded))


# ---- what the layers inside are


@keras.saving.register_keras_serializable("tests")
class OwnLayer(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight("w", (shape[-1], 3))
        super().build(shape)

    def call(self, x):
        return x @ self.w

    def get_prunable_weights(self):
        return [self.w]


@pytest.mark.parametrize("name, format_", [("soft", "keras"), ("L0", "h5")])
def test_layers_of_ones_own_and_in_wrappers_load_again(name, format_, tmp_path):
    methods = {"soft": tf_movprune.SoftMovement(10.0, target=True), "L0": tf_movprune.L0()}

    def prune(layer):
        ramp = None if name == "L0" else tf_movprune.CubicSparsity(0.5, 0, 2)
        return tf_movprune.prune_low_movement(layer, ramp, methods[name])

    x = keras.Input([5, 4])
    h = prune(OwnLayer())(x)
    h = keras.layers.TimeDistributed(prune(keras.layers.Dense(4)))(h)
    inner = keras.Input([5, 4])
    nested = keras.Model(inner, prune(keras.layers.Dense(3))(inner))
    model = keras.Model(x, nested(h))
    values = np.random.RandomState(0).standard_normal([2, 5, 4]).astype("float32")
    tf_movprune.update_masks(model, 2)
    expected = model(values)
    model.save(tmp_path / f"model.{format_}")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / f"model.{format_}")
    np.testing.assert_array_equal(loaded(values), expected)
    assert len(tf_movprune.pruned_layers(loaded)) == 3
    np.testing.assert_array_equal(tf_movprune.strip_pruning(loaded)(values), expected)


@keras.saving.register_keras_serializable(package="tests")
class TracedDense(keras.layers.Dense):
    call = tf.function(keras.layers.Dense.call)


@keras.saving.register_keras_serializable(package="tests")
class TracedPair(keras.layers.Layer):
    """A layer and the one inside it are functions of TensorFlow."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = TracedDense(4)

    def build(self, shape):
        self.direct = self.add_weight("direct", [shape[-1], 4])
        super().build(shape)

    def get_prunable_weights(self):
        return [self.direct]

    @tf.function
    def call(self, x):
        return self.inner(x) + x @ self.direct


WITH_CALLS_OF_THEIR_OWN = {
    "traced": lambda: TracedDense(4, name="r"),
    "traced, with a layer inside": lambda: TracedPair(name="r"),
    "LSTM": lambda: keras.layers.LSTM(4, name="r"),
    "cells": lambda: keras.layers.RNN(
        [keras.layers.SimpleRNNCell(4), keras.layers.LSTMCell(3)], name="r"
    ),
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(4), name="r"),
}


@pytest.mark.parametrize(
    "name",
    ["traced"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in WITH_CALLS_OF_THEIR_OWN
        if name != "traced"
    ],
)
def test_layers_whose_call_is_no_plain_method_in_saved_models(name, tmp_path):
    layer = WITH_CALLS_OF_THEIR_OWN[name]()
    model = keras.Sequential([keras.Input([5, 8]), layer, keras.layers.Dense(2)])
    pruned = tf_movprune.prune_low_movement(model, {"r*": cubic()}, tf_movprune.Magnitude())
    tf_movprune.update_masks(pruned, 100)
    x = np.random.RandomState(0).standard_normal([3, 5, 8]).astype("float32")
    expected = pruned(x)
    pruned.save(tmp_path / "keras")
    np.testing.assert_array_equal(pruned(x), expected)  # as before
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "keras")
    paths = [tmp_path / "keras"]
    if name != "LSTM":  # whose functions take seconds to trace
        paths.append(tmp_path / "tensorflow")
        tf.saved_model.save(pruned, str(paths[1]))
    restored = [tf.saved_model.load(str(path))(x, training=False) for path in paths]
    for outputs in (loaded(x), *restored):
        np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert tf_movprune.summarize_sparsity(loaded) == tf_movprune.summarize_sparsity(pruned)


def test_what_was_loaded_without_its_class_does_not_train(saved, monkeypatch):
    path = str(saved("sequential", "tf"))
    registered = keras.saving.get_custom_objects()
    name = keras.saving.get_registered_name(tf_movprune.PruneLowMovement)
    monkeypatch.delitem(registered, name)
    loaded = keras.models.load_model(path)
    assert not tf_movprune.pruned_layers(loaded)
    x = inputs_of(loaded)
    np.testing.assert_allclose(loaded(x), outputs_of(example("sequential")), atol=1e-6)
    loaded.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"prune_scope\(\)"):
        loaded.fit(x, loaded(x), verbose=0)
    train = tf.function(lambda x: loaded(x, training=True), jit_compile=True)
    assert np.all(np.isnan(train(x)))


def test_saved_by_tensorflow_itself(tmp_path):
    model = keras.Sequential([keras.Input([8]), dense(8, "hidden"), dense(2, "out")])
    model = tf_movprune.prune_low_movement(model, None, tf_movprune.L0())
    x = np.random.RandomState(0).standard_normal([2, 8]).astype("float32")
    tf.saved_model.save(model, str(tmp_path))
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path))(x), model(x), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_a_model_pruned_in_other_layers_are_refused(way, tmp_path):
    def pruned(name):
        names = ["a", "b", "c", "out"]
        model = keras.Sequential([keras.layers.Dense(8, name=n, input_shape=[8]) for n in names])
        return tf_movprune.prune_low_movement(model, {name: cubic()}, tf_movprune.Magnitude())

    source, target = pruned("a"), pruned("b")
    x = np.random.RandomState(0).standard_normal([2, 8]).astype("float32")
    before = target(x)
    with pytest.raises(ValueError):
        WAYS[way](source, target, str(tmp_path / "weights"))
    if way != "checkpoint":
        np.testing.assert_array_equal(target(x), before)


@pytest.mark.parametrize("way", ["checkpoint", "save_weights"])
def test_several_kernels_of_a_layer_come_back_before_it_is_built(way, tmp_path):
    """Values that a checkpoint gives later have names, which the kernels of a layer share."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = keras.layers.LSTM(4, name="rnn"), keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.rnn(x))

    x = np.random.RandomState(0).standard_normal([4, 5, 8]).astype("float32")
    saved, loaded = (
        tf_movprune.prune_low_movement(Net(), {"rnn": tf_movprune.CubicSparsity(0.5, 0, 4)})
        for _ in range(2)
    )
    saved(x)
    for scores in tf_movprune.pruned_layers(saved)["rnn"].scores:
        scores.assign(tf.random.normal(scores.shape))
    tf_movprune.update_masks(saved, 4)
    path = str(tmp_path / "w")
    if way == "checkpoint":
        tf.train.Checkpoint(model=saved).write(path)
        tf.train.Checkpoint(model=loaded).read(path)
    else:
        saved.save_weights(path)
        loaded.load_weights(path)
    np.testing.assert_array_equal(loaded(x), saved(x))
    for a, b in zip(saved.weights, loaded.weights):
        np.testing.assert_array_equal(a, b)


def test_layers_that_others_build_keep_the_names_of_their_weights(tmp_path):
    inner = keras.layers.Dense(8, name="inner")
    layers = [keras.layers.TimeDistributed(inner, name="outer"), keras.layers.Dense(3, name="out")]
    model = keras.Sequential([keras.Input([4, 8]), *layers])
    expected = [weight.name for weight in model.weights]
    pruned = tf_movprune.prune_low_movement(
        model, tf_movprune.CubicSparsity(0.5, 0, 1), tf_movprune.Magnitude()
    )
    tf_movprune.update_masks(pruned, 1)
    pruned.save(tmp_path / "pruned.keras")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert [weight.name for weight in loaded.weights] == [w.name for w in pruned.weights]
    assert [w.name for w in tf_movprune.strip_pruning(loaded).weights] == expected
