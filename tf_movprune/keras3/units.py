"""Heads and neurons of Keras 3 models."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_movprune.core.dense_chains import LayerKinds, chain_of, unbranched_paths
from tf_movprune.core.empty_units import Matrix
from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.matrix_layout import layout_of
from tf_movprune.keras3 import attention, compat, keras_hub
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.layer_tree import children, walk

_ELEMENTWISE = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu"),
        *("linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("softplus", "softsign", "tanh"),
    )
    if hasattr(module, name)
]
_KINDS = LayerKinds(
    dense=keras.layers.Dense,
    activation=keras.layers.Activation,
    elementwise=_ELEMENTWISE,
    elementwise_layers=(keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU),
    noise_layers=(
        keras.layers.AlphaDropout,
        keras.layers.Dropout,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.SpatialDropout1D,
    ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class UnitGroup:
    """Heads or neurons.

    Attributes:
      kind: `HEADS` or `NEURONS`.
      size: their number; of heads that share keys and values, the number of groups.
      sources: layers whose outputs they are: query, key and value of heads; one layer of neurons,
        or two whose outputs are multiplied, the one with the activation first.
      reader: the one layer that reads them.
      activations: elementwise functions that inference applies to the outputs of the first source.
      owner: the attention layer of heads.
      tensors: symbolic tensors of a graph whose last dimension is the number of neurons.
    """

    kind: Units
    size: int
    sources: Sequence[Layer]
    reader: Layer
    activations: Sequence[Callable[[Any], Any]] = ()
    owner: Layer | None = None
    tensors: Sequence[Any] = ()

    @property
    def axes(self) -> list[tuple[Layer, int]]:
        """The layers, each with the axis of its kernel along which unit follows unit."""
        found = [(layer, layout_of(layer).columns[0]) for layer in self.sources]
        return [*found, (self.reader, layout_of(self.reader).rows[0])]

    def constants(self, sources: Sequence[Matrix]) -> np.ndarray:
        if self.kind == HEADS:
            # The weights of each head's attention sum to one: its output is the bias of its values.
            values = sources[-1].constants()
            _, columns = layout_of(self.sources[-1]).shape(self.sources[-1].kernel.shape)
            repeats = attention.query_heads_of_group(self.owner)
            return np.repeat(values.reshape(-1, 1, columns // self.size), repeats, axis=1).ravel()
        values = keras.ops.convert_to_tensor(sources[0].offsets)[None]
        for activation in self.activations:
            values = activation(values)
        first = sources[0].constants(keras.ops.convert_to_numpy(values)[0])
        if len(sources) == 1:
            return first
        second = sources[1].constants()
        return np.where((first == 0) | (second == 0), 0, first * second)


def find_units(model: Layer, *, to_remove: bool = True) -> list[UnitGroup]:
    """Finds the heads and neurons of a built model without pruned layers.

    Left out are the heads of attention with a gate, and of classes other than those of Keras and
    KerasHub that `attention` knows.

    Args:
      model: a model or layer.
      to_remove: whether to leave out those that can be masked but not removed: the heads of layers
        whose attention scores a graph asks for, and whatever is quantized or has LoRA.
    """
    layers = [model, *walk(model).values()]
    found = []
    for layer in layers:
        if attention.has_known_heads(layer):
            *sources, reader = attention.projections(layer)
            size = attention.group_count(layer)
            found.append(UnitGroup(HEADS, size, sources, reader, owner=layer))
        elif (parts := keras_hub.feed_forward(layer)) is not None and parts.sources[0].built:
            *_, size = parts.sources[0].kernel.shape
            if all(map(_is_elementwise_function, parts.activations)):
                found.append(
                    UnitGroup(NEURONS, size, parts.sources, parts.reader, parts.activations)
                )
    found.extend(x for x in neurons_in_graphs(layers).values() if isinstance(x, UnitGroup))
    if not to_remove:
        return found
    shows_scores = _layers_that_return_scores(layers)
    return [
        unit
        for unit in found
        if id(unit.owner) not in shows_scores
        and (unit.owner is None or attention.can_lose_heads(unit.owner))
        and not any(map(_is_special, (*unit.sources, unit.reader)))
    ]


def _is_special(layer: Any) -> bool:
    return compat.is_quantized(layer) or getattr(layer, "lora_enabled", False)


def _is_elementwise_function(function: Any) -> bool:
    return function in _ELEMENTWISE or keras_hub.is_elementwise(function)


def _layers_that_return_scores(layers: Sequence[Layer]) -> set[int]:
    """Ids of layers whose outputs, in a graph, show the number of heads, and of those inside."""
    return {
        id(inner)
        for layer in layers
        if compat.is_graph_network(layer)
        for node in compat.graph_nodes(layer)
        if node.arguments.kwargs.get("return_attention_scores")
        for inner in compat.all_layers(node.operation)
    }


# ---- dense layers that follow each other in a graph


def neurons_in_graphs(layers: Sequence[Layer]) -> dict[int, UnitGroup | str]:
    """The neurons of each layer in a graph, or words for what is in the way, by the layer's id.

    Args:
      layers: a model and all layers inside it.
    """
    uses = _uses(layers)
    return {
        id(path[0].operation): _neurons(path, uses)
        for model in layers
        if compat.runs_its_graph(model)
        for path in _paths(model)
    }


def _uses(layers: Sequence[Layer]) -> Mapping[int, int]:
    """Number of places in which each layer is used, by its id: in graphs, and as part of others."""
    uses: collections.Counter[int] = collections.Counter()
    for layer in layers:
        if compat.runs_its_graph(layer):
            uses.update(id(node.operation) for node in compat.graph_nodes(layer))
        else:
            uses.update(id(child) for _, child in children(layer))
    return uses


def _paths(model: keras.Model) -> Iterator[Sequence[Any]]:
    """From each node of a graph on, the nodes that follow as long as each has one reader."""
    outputs = {id(operation) for operation in compat.output_operations(model)}
    nodes = compat.graph_nodes(model)
    return unbranched_paths(nodes, lambda node: id(node.operation) in outputs)


def _neurons(path: Sequence[Any], uses: Mapping[int, int]) -> UnitGroup | str:
    """The neurons of the first layer in a path, if a dense layer reads them, or why it has none.

    Words for that follow the name of the layer.
    """
    layers = [node.operation for node in path]
    chain = chain_of(layers, uses, _KINDS)
    if isinstance(chain, str):
        return chain
    first, reader = layers[0], layers[chain.length]
    tensors = [tensor for node in path[: chain.length] for tensor in node.output_tensors]
    return UnitGroup(NEURONS, first.units, [first], reader, chain.activations, tensors=tensors)
