"""Files and checkpoints of pruned models of either Keras: right, or refused without a change."""

import numpy as np
import pytest
from test_pruning import Block, mlp, subclassed

import tf_movprune
from tf_movprune import NEURONS, CubicSparsity, Magnitude

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
