"""Dense layers that follow each other in a graph of layers, with neurons between them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tf_movprune.core.wording import counted, with_article


class LayerKinds(NamedTuple):
    """The layers and functions of a Keras that neurons may pass on their way.

    Attributes:
      dense: the class of dense layers.
      activation: the class of layers that apply a function.
      elementwise: functions that act on each neuron by itself.
      elementwise_layers: classes of layers that do.
      noise_layers: classes of layers that do nothing in inference.
    """

    dense: type[Any]
    activation: type[Any]
    elementwise: Collection[Any]
    elementwise_layers: Collection[type]
    noise_layers: Collection[type]

    def is_elementwise(self, layer: Any) -> bool:
        """Returns whether a layer acts on each neuron by itself."""
        if type(layer) is self.activation:
            return layer.activation in self.elementwise
        return type(layer) in self.elementwise_layers


class Chain(NamedTuple):
    """The way from a dense layer to the one that reads it.

    Attributes:
      length: number of layers before the reader, the first among them.
      activations: elementwise functions that inference applies on the way, in order.
    """

    length: int
    activations: list[Callable[[Any], Any]]


def unbranched_paths(nodes: Sequence[Any], is_output: Callable[[Any], bool]) -> Iterator[list[Any]]:
    """From each node of a graph on, the nodes that follow as long as each has one reader.

    Args:
      nodes: the nodes, each with its `parent_nodes`.
      is_output: returns whether the graph gives out what the layer of a node makes.
    """
    readers: dict[int, list[Any]] = collections.defaultdict(list)
    for node in nodes:
        for parent in node.parent_nodes:
            readers[id(parent)].append(node)
    for node in nodes:
        path = [node]
        while len(readers[id(path[-1])]) == 1 and not is_output(path[-1]):
            path.extend(readers[id(path[-1])])
        yield path


def chain_of(layers: Sequence[Any], uses: Mapping[int, int], kinds: LayerKinds) -> Chain | str:
    """The chain from the first layer of a path to a dense layer, or words for what is in the way.

    Args:
      layers: the first layer, and those that follow with one reader each.
      uses: number of places in which each layer is used, by its id.
      kinds: the layers of the Keras.

    Returns:
      The chain, or words that follow the name of the first layer.
    """
    first = layers[0]
    if type(first) is not kinds.dense:
        return f"is {with_article(type(first).__name__)}"
    if not first.built:
        return "is not built"
    if uses[id(first)] != 1:
        return f"is used in {counted(uses[id(first)], 'place')}"
    if first.activation not in kinds.elementwise:
        name = getattr(first.activation, "__name__", type(first.activation).__name__)
        return f"has the activation {name}"
    activations = [first.activation]
    for i, layer in enumerate(layers[1:], start=1):
        if type(layer) is kinds.dense and layer.built and uses[id(layer)] == 1:
            return Chain(i, activations)
        if kinds.is_elementwise(layer):
            activations.append(layer)
        elif type(layer) not in kinds.noise_layers:
            return f"is followed by {layer.name!r} ({type(layer).__name__})"
    return "is read by no dense layer, or by others too"
