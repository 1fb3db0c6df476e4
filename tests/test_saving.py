"""Files and checkpoints of pruned models of either Keras: right, or refused without a change."""

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from test_pruning import Block, mlp, subclassed

import tf_movprune
from tf_movprune import NEURONS, CubicSparsity, HardMovement, Magnitude, SoftMovement

X = np.random.RandomState(0).standard_normal([4, 8]).astype("float32")
RAMP = CubicSparsity(0.75, begin_step=0, end_step=4)


def prune(model, method=None, **kwargs):
    return tf_movprune.prune_low_movement(model, RAMP, method or Magnitude(), **kwargs)


def in_blocks(keras):
    return keras.Sequential([keras.Input([8]), Block(keras), keras.layers.Dense(3)])


def attention(keras):
    class Attending(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention, self.out = keras.layers.MultiHeadAttention(2, 4), keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.attention(x, x))

    x = keras.Input([2, 8])
    return keras.Model(x, Attending()(x))


# ---- files of whole models that are refused

REFUSED = {  # with the formats in which no model of Keras 3 and none of tf_keras keeps its masks
    "subclassed": (lambda keras: prune(subclassed(keras)), ["keras", "h5"]),
    "own layer": (lambda keras: prune(in_blocks(keras)), ["keras", "h5"]),
    "own attention": (lambda keras: prune(attention(keras)), ["keras", "h5", "folder"]),
    "shared masks": (
        lambda keras: prune(mlp(keras), block_size=NEURONS),
        ["keras", "h5", "folder"],
    ),
}


def contents(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_file_leaves_what_was_in_its_place(keras, kind, tmp_path):
    make, formats = REFUSED[kind]
    pruned = make(keras)
    for suffix in formats:
        if suffix == "folder" and keras.__version__ >= "3":
            continue  # has no SavedModels of whole models
        good, new = tmp_path / f"good.{suffix}", tmp_path / f"new.{suffix}"
        mlp(keras).save(good)
        before = contents(good)
        for path in (good, new):
            with pytest.raises((ValueError, NotImplementedError), match="Use save_weights"):
                pruned.save(path)
        assert contents(good) == before
        assert not new.exists()


def around(keras, inner):
    """A model around another, whose configuration does not tell of it."""

    class Around(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = inner, keras.layers.Dense(2)

        def call(self, x):
            return self.out(self.inner(x))

        def get_config(self):
            return {}

    model = Around()
    model(X)
    return model


def test_a_model_around_a_pruned_one_does_not_lose_its_masks(keras, tmp_path):
    model = around(keras, prune(mlp(keras)))
    with pytest.raises(ValueError, match=r"'around.* that its get_config\(\) does not tell of"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    tf_movprune.strip_pruning(model).save(tmp_path / "model.keras")
    inputs = keras.Input([8])
    told = keras.Model(inputs, keras.layers.Dense(2)(prune(mlp(keras))(inputs)))
    told.save(tmp_path / "told.keras")


def test_a_model_that_trains_around_a_pruned_one_keeps_its_file(tmp_path):
    keras = pytest.importorskip("keras")
    model = around(keras, prune(mlp(keras)))
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, X[:, :2], 1, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    with pytest.raises(ValueError, match=r"does not tell of"):
        model.save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_h5_files_of_models_that_are_not_compiled(keras, tmp_path):
    pruned = prune(mlp(keras))
    tf_movprune.update_masks(pruned, 4)
    pruned.save(tmp_path / "pruned.h5")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "pruned.h5")
    np.testing.assert_array_equal(loaded(X), pruned(X))
    expected = pruned(X)
    tf_movprune.strip_pruning(pruned).save(tmp_path / "plain.h5")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "plain.h5")(X), expected)


# ---- weights that are refused


def square(keras, units=8):
    names = ["first", "second", "third"]
    layers = [keras.layers.Dense(8, name=name) for name in names]
    return keras.Sequential([keras.Input([8]), *layers, keras.layers.Dense(units, name="out")])


def nested(keras):
    """A model that holds one with the pruned layers."""
    return keras.Sequential([keras.Input([8]), square(keras)])


def trained(pruned, keras):
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    pruned.optimizer.build(pruned.trainable_variables)
    return pruned


WEIGHTS = {
    "plain": square,
    "another head": lambda keras: prune(square(keras, 4)),
    "another method": lambda keras: prune(square(keras), HardMovement("zeros")),
    "another method, with the optimizer": lambda keras: trained(
        prune(square(keras), HardMovement("ones")), keras
    ),
}


def values(model):
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.weights, *(optimizer.variables if optimizer else ())]
    return [np.array(variable) for variable in variables]


@pytest.mark.filterwarnings("ignore:The masks of .* were never refreshed")
@pytest.mark.parametrize("is_stripped", [False, True])
def test_refused_weights_leave_the_model_as_it_was(keras, is_stripped, tmp_path):
    path = str(tmp_path / "file.weights.h5")
    target = trained(
        prune(square(keras), HardMovement("ones"), score_learning_rate_multiplier=3.0), keras
    )
    if is_stripped:
        target = tf_movprune.strip_pruning(target)
    before = values(target)
    sources = [make(keras) for name, make in WEIGHTS.items() if not is_stripped or name != "plain"]
    for source in sources:
        for layer in source.layers:  # others in every layer, whichever Keras loads first
            layer.set_weights([np.ones_like(weight) for weight in layer.get_weights()])
        source.save_weights(path)
        with pytest.raises(ValueError):
            target.load_weights(path)
        for value, old in zip(values(target), before, strict=True):
            np.testing.assert_array_equal(value, old)


def test_refused_weights_leave_a_model_inside_as_it_was(keras, tmp_path):
    target = prune(nested(keras))
    inner = next(layer for layer in target.layers if isinstance(layer, keras.Model))
    before = values(inner)
    source = prune(square(keras, 4))
    source.save_weights(str(tmp_path / "file.weights.h5"))
    with pytest.raises(ValueError):
        inner.load_weights(str(tmp_path / "file.weights.h5"))
    for value, old in zip(values(inner), before, strict=True):
        np.testing.assert_array_equal(value, old)


# ---- scores that mean something else


def through_checkpoint(source, target, path):
    path = tf.train.Checkpoint(model=source).save(path)
    tf.train.Checkpoint(model=target).restore(path).assert_consumed()


def through_weights(suffix):
    def pass_on(source, target, path):
        source.save_weights(path + suffix)
        target.load_weights(path + suffix)

    return pass_on


def through_whole_h5(source, target, path):
    source.save(path + ".h5")
    target.load_weights(path + ".h5")


WAYS = {
    "checkpoint": through_checkpoint,
    ".weights.h5": through_weights(".weights.h5"),
    ".h5 of whole models": through_whole_h5,
    ".h5 of tf_keras": through_weights(".h5"),
    "TF format of tf_keras": through_weights(""),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("way", WAYS)
def test_scores_that_mean_something_else_are_refused_and_change_nothing(keras, way, tmp_path):
    if way.endswith("tf_keras") and keras.__version__ >= "3":
        pytest.skip("Keras 3 has no such files")
    pass_on, path = WAYS[way], str(tmp_path / "file")
    settings = {"method": HardMovement("ones"), "score_learning_rate_multiplier": 10.0}
    source, same = (prune(square(keras), **settings) for _ in range(2))
    pass_on(source, same, path)
    np.testing.assert_array_equal(same(X), source(X))
    others = {
        "by Magnitude": {"method": Magnitude()},
        "by HardMovement at .* 1": {**settings, "score_learning_rate_multiplier": 1.0},
        "by SoftMovement": {**settings, "method": SoftMovement(target=True)},
    }
    for words, other in others.items():
        target = prune(square(keras), **other)
        before = values(target)
        with pytest.raises(ValueError, match=rf"multiplier 10 for the layer 'first', .* {words}"):
            pass_on(source, target, path)
        for value, old in zip(values(target), before, strict=True):
            np.testing.assert_array_equal(value, old)


def test_checkpoints_are_consumed_by_models_that_are_built_later(tmp_path):
    class Lazy(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = tf_keras.layers.LSTM(4, name="rnn"), tf_keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.rnn(x[:, tf.newaxis]))

    source, target = (
        tf_movprune.prune_low_movement(Lazy(), {"rnn": RAMP}, HardMovement("ones"))
        for _ in range(2)
    )
    source(X)
    path = tf.train.Checkpoint(model=source).save(str(tmp_path / "file"))
    status = tf.train.Checkpoint(model=target).restore(path)
    np.testing.assert_array_equal(target(X), source(X))
    status.assert_consumed()
    other = tf_movprune.prune_low_movement(Lazy(), {"rnn": RAMP}, Magnitude())
    with pytest.raises(ValueError, match="layer 'rnn', which is pruned by Magnitude"):
        tf.train.Checkpoint(model=other).restore(path)  # before it is built


def recurrent(keras):
    """Its kernels are those of cells inside the pruned layers."""
    lstm = keras.layers.Bidirectional(keras.layers.LSTM(3), name="both")
    layers = [keras.layers.Reshape([4, 2]), lstm, keras.layers.Dense(3)]
    return keras.Sequential([keras.Input([8]), *layers])


@pytest.mark.parametrize("kind", ["square", "recurrent"])
def test_checkpoints_of_plain_and_pruned_models_are_kept_apart(keras, kind, tmp_path):
    make = {"square": square, "recurrent": recurrent}[kind]
    patterns = {"both*": RAMP} if kind == "recurrent" else RAMP
    plain, pruned, other = (
        make(keras),
        *(tf_movprune.prune_low_movement(make(keras), patterns, Magnitude()) for _ in range(2)),
    )
    with pytest.raises(ValueError, match="without masks, and the model is pruned"):
        through_checkpoint(plain, pruned, str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="incompatible"):
        through_checkpoint(pruned, plain, str(tmp_path / "pruned"))
    tf_movprune.update_masks(pruned, 4)
    expected = pruned(X)
    through_checkpoint(pruned, other, str(tmp_path / "same"))
    np.testing.assert_array_equal(other(X), expected)
    through_checkpoint(tf_movprune.strip_pruning(pruned), plain, str(tmp_path / "stripped"))
    np.testing.assert_array_equal(plain(X), expected)


def test_checkpoints_keep_cells_in_stacks_of_pruned_layers(tmp_path):
    def stacked():
        layers = keras3.layers
        cells = [layers.LSTMCell(3), layers.StackedRNNCells([layers.GRUCell(3)])]
        stack = layers.RNN(cells, name="stack")
        return keras3.Sequential([keras3.Input([4, 2]), stack, layers.Dense(3)])

    source, target = (
        tf_movprune.prune_low_movement(stacked(), {"stack": RAMP}, Magnitude()) for _ in range(2)
    )
    tf_movprune.update_masks(source, 4)
    through_checkpoint(source, target, str(tmp_path / "pruned"))
    for value, expected in zip(target.weights, source.weights, strict=True):
        np.testing.assert_array_equal(value, expected)
    plain = stacked()
    with pytest.raises(AssertionError):
        through_checkpoint(source, plain, str(tmp_path / "to_plain"))
    with pytest.raises(AssertionError):
        through_checkpoint(plain, source, str(tmp_path / "plain"))
    children = tf_movprune.strip_pruning(target).get_layer("stack").cell._trackable_children()
    assert children == stacked().get_layer("stack").cell._trackable_children()
