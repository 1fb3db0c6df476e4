"""Files and checkpoints of pruned models of either Keras: right, or refused without a change."""

import numpy as np
import pytest
from test_pruning import Block, mlp, subclassed

import tf_movprune
from tf_movprune import NEURONS, CubicSparsity, HardMovement, Magnitude

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
    "shared masks": (lambda keras: prune(mlp(keras), block_size=NEURONS), ["keras", "h5"]),
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
