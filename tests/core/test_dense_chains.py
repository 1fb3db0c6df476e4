"""Chains of dense layers, of classes that stand for those of a Keras."""

import types

import pytest

from tf_movprune.core.dense_chains import Chain, LayerKinds, chain_of, unbranched_paths


class Dense(types.SimpleNamespace):
    built = True
    activation = "relu"


class Activation(types.SimpleNamespace):
    pass


class Scale(types.SimpleNamespace):
    pass


class Noise(types.SimpleNamespace):
    pass


class Norm(types.SimpleNamespace):
    pass


KINDS = LayerKinds(Dense, Activation, {"relu", "tanh"}, {Scale}, {Noise})


def chain(*layers, uses=()):
    counts = {id(layer): 1 for layer in layers}
    counts.update({id(layers[i]): 2 for i in uses})
    return chain_of(layers, counts, KINDS)


def test_a_chain_passes_what_acts_on_each_neuron_by_itself():
    layers = Dense(), Noise(), Activation(activation="tanh"), Scale(), Dense()
    assert chain(*layers) == Chain(4, ["relu", layers[2], layers[3]])


@pytest.mark.parametrize(
    "layers, uses, words",
    [
        ([Scale()], [], "is a Scale"),
        ([Dense(built=False), Dense()], [], "is not built"),
        ([Dense(), Dense()], [0], "is used in 2 places"),
        ([Dense(activation="softmax"), Dense()], [], "has the activation str"),
        ([Dense(), Norm(name="norm"), Dense()], [], "is followed by 'norm' (Norm)"),
        ([Dense(), Activation(activation="softmax", name="a"), Dense()], [], "is followed by 'a'"),
        ([Dense(), Dense(name="reader")], [1], "is followed by 'reader' (Dense)"),
        ([Dense(), Dense(name="reader", built=False)], [], "is followed by 'reader' (Dense)"),
        ([Dense(), Scale()], [], "is read by no dense layer, or by others too"),
    ],
)
def test_what_is_in_the_way(layers, uses, words):
    assert chain(*layers, uses=uses).startswith(words)


def test_paths_end_where_they_branch_and_at_outputs():
    """a - b - c, which two read, and d - e, an output that f reads."""
    node = {name: types.SimpleNamespace(name=name) for name in "abcdefgh"}
    parents = {"a": "", "b": "a", "c": "b", "d": "", "e": "d", "f": "e", "g": "c", "h": "c"}
    for name, above in parents.items():
        node[name].parent_nodes = [node[x] for x in above]
    paths = unbranched_paths(list(node.values()), lambda x: x.name == "e")
    found = ["".join(x.name for x in path) for path in paths]
    assert found == ["abc", "bc", "c", "de", "e", "f", "g", "h"]
