"""One walk over the layers of a model: paths, children and owners."""

import numpy as np
import pytest
import tf_keras as keras
from wrapped import Everything

import tf_movprune
from tf_movprune.keras2.layer_tree import LayerTree

SCHEDULE = tf_movprune.CubicSparsity(0.5, 0, 1)


class Block(keras.layers.Layer):
    def __init__(self, shared):
        super().__init__()
        self.inner = [keras.layers.Dense(4), shared]
        self.by_name = {"last": keras.layers.Dense(4)}

    def build(self, shape):
        for layer in (*self.inner, *self.by_name.values()):
            layer.build([None, 4])

    def call(self, inputs):
        return self.by_name["last"](self.inner[1](self.inner[0](inputs)))


def model_of_blocks():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input([4])
    hidden = Block(shared)(shared(inputs))
    inner = keras.Sequential([keras.layers.Dense(4, name="deep", input_shape=[4])], name="inner")
    return keras.Model(inputs, keras.layers.Dense(2, name="output")(inner(hidden)))


def test_paths_children_and_owners():
    model = model_of_blocks()
    tree = LayerTree(model)
    paths = dict(tree.walk())
    block = next(layer for layer in model.layers if isinstance(layer, Block))
    assert [path for path in paths if not path.startswith("input")] == [
        "shared",
        block.name,
        f"{block.name}.inner.0",
        f"{block.name}.by_name.last",
        "inner",
        "inner.deep",
        "output",
    ]
    assert dict(tree.children(block))["inner.1"] is paths["shared"]
    assert tree.owners(paths["shared"]) == [model, block]
    assert tree.owners(model) == []
    assert list(dict(tree.walk(start=block))) == ["inner.0", "inner.1", "by_name.last"]
    leaves = [path for path, _ in tree.walk(lambda layer: isinstance(layer, Block))]
    assert f"{block.name}.inner.0" not in leaves and "inner.deep" in leaves


def test_holders_are_all_layers_above_a_wrapper():
    model = model_of_blocks()
    pruned = tf_movprune.prune_low_movement(model, {"inner.deep": SCHEDULE})
    tree = LayerTree(pruned)
    assert list(tree.pruned_layers()) == ["inner.deep"]
    assert {layer.name for layer in tree.holders()} == {pruned.name, "inner"}
    assert LayerTree(tf_movprune.strip_pruning(pruned)).holders() == []


def test_each_layer_is_read_once():
    reads = []

    class Counted(Block):
        def __getattribute__(self, name):
            if name == "__dict__":
                reads.append(id(self))
            return super().__getattribute__(name)

    block = Counted(keras.layers.Dense(4))
    outer = keras.layers.Layer()
    outer.chain = [block, block, block]
    reads.clear()
    LayerTree(outer)
    assert reads.count(id(block)) == 1


def dense(name=None):
    return keras.layers.Dense(4, name=name)


def nested_beside(first, second):
    """A nested model `inner` with a layer `x`, and a layer `inner.x` beside it."""
    inner = keras.Sequential([keras.Input([4]), first, dense("y")], name="inner")
    x = keras.Input([4])
    return keras.Model(x, dense("output")(second(inner(x))))


class Chain(keras.Model):
    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)
        self(np.zeros([1, 4]))

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


SAME_PATHS = {
    "names": lambda: nested_beside(dense("x"), dense("inner.x")),
    "keys": lambda: Chain(parts={"a.b": dense(), "a": {"b": dense()}}),
    "a list": lambda: Chain(**{"parts": [dense()], "parts.0": dense()}),
}


@pytest.mark.parametrize("block_size", [(1, 1), tf_movprune.NEURONS])
@pytest.mark.parametrize("kind", SAME_PATHS)
def test_two_layers_with_one_path_are_refused(kind, block_size):
    with pytest.raises(ValueError, match=r"Two layers, .* same path '[\w.]+'.* Rename"):
        tf_movprune.prune_low_movement(
            SAME_PATHS[kind](), SCHEDULE, pruning_policy=Everything(), block_size=block_size
        )


def test_two_pruned_layers_with_one_path_are_refused():
    layers = tf_movprune.prune_low_movement([dense("x"), dense("inner.x")], SCHEDULE)
    with pytest.raises(ValueError, match=r"Two layers, .* same path 'inner.x'"):
        tf_movprune.update_masks(nested_beside(*layers), 1)
