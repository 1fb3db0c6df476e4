"""The neurons between the dense layers of Sequential and Functional models."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_movprune.core.dense_chains import LayerKinds, chain_of, unbranched_paths
from tf_movprune.core.empty_units import Matrix
from tf_movprune.core.granularity import NEURONS, Units
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.layer_tree import LayerTree

_ELEMENTWISE = [
    getattr(keras.activations, name)
    for name in (
        *("elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu"),
        *("selu", "sigmoid", "softplus", "softsign", "swish", "tanh"),
    )
]
_KINDS = LayerKinds(
    dense=keras.layers.Dense,
    activation=keras.layers.Activation,
    elementwise=_ELEMENTWISE,
    elementwise_layers=(
        keras.layers.ELU,
        keras.layers.LeakyReLU,
        keras.layers.ReLU,
        keras.layers.ThresholdedReLU,
    ),
    noise_layers=(
        keras.layers.Dropout,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.SpatialDropout1D,
    ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons between two dense layers.

    Attributes:
      first: the layer whose outputs they are.
      second: the one layer that reads them.
      activations: elementwise functions that inference applies to them on the way, in order.
    """

    first: keras.layers.Dense
    second: keras.layers.Dense
    activations: Sequence[Callable[[tf.Tensor], tf.Tensor]]

    @property
    def kind(self) -> Units:
        return NEURONS

    @property
    def size(self) -> int:
        return self.first.units

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.first,)

    @property
    def reader(self) -> Layer:
        return self.second

    def constants(self, sources: Sequence[Matrix]) -> np.ndarray:
        values = tf.constant(sources[0].offsets)[None]
        for activation in self.activations:
            values = activation(values)
        return sources[0].constants(values[0].numpy())


def neurons_of(tree: LayerTree) -> dict[int, Neurons | str]:
    """The neurons of each layer in a Sequential or Functional model, or why it has none.

    Args:
      tree: layer tree of a built model without wrappers.

    Returns:
      Neurons, or words for what is in the way, by the id of the layer whose outputs they are.
    """
    uses = _uses(tree)
    found: dict[int, Neurons | str] = {}
    for model in tree.layers():
        if is_graph_network(model):
            paths = _in_chain if isinstance(model, keras.Sequential) else _in_graph
            found.update((id(path[0]), _neurons(path, uses)) for path in paths(model))
    return found


def _uses(tree: LayerTree) -> collections.Counter[int]:
    """Number of places in which each layer is used, by its id: in graphs, and as part of others."""
    uses: collections.Counter[int] = collections.Counter()
    for layer in tree.layers():
        if is_graph_network(layer) and not isinstance(layer, keras.Sequential):
            uses.update(id(node.layer) for node in compat.graph_nodes(layer))
        else:
            uses.update(id(child) for _, child in tree.children(layer))
    return uses


def _in_chain(model: keras.Sequential) -> Iterator[Sequence[Layer]]:
    """From each layer on, the layers that follow it."""
    for i in range(len(model.layers)):
        yield model.layers[i:]


def _in_graph(model: keras.Model) -> Iterator[Sequence[Layer]]:
    """From each layer on, the layers that follow as long as each has one reader."""
    outputs = {id(node.layer) for node in compat.output_nodes(model)}
    nodes = compat.graph_nodes(model)
    for path in unbranched_paths(nodes, lambda node: id(node.layer) in outputs):
        yield [node.layer for node in path]


def _neurons(path: Sequence[Layer], uses: Mapping[int, int]) -> Neurons | str:
    """The neurons of the first layer in a path of layers with one reader each, or why it has none.

    Words for that follow the name of the layer.
    """
    chain = chain_of(path, uses, _KINDS)
    if isinstance(chain, str):
        return chain
    return Neurons(path[0], path[chain.length], chain.activations)
