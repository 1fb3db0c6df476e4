"""Where a model has heads and neurons that can be removed without touching anything else."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.tree import children, is_graph_network, walk

_ELEMENTWISE = [
    getattr(keras.activations, name)
    for name in (
        *("elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu"),
        *("selu", "sigmoid", "softplus", "softsign", "swish", "tanh"),
    )
]
_ELEMENTWISE_LAYERS = (
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.ReLU,
    keras.layers.ThresholdedReLU,
)
_NOISE_LAYERS = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.SpatialDropout1D,
)
# Encoder layers of Hugging Face that are laid out as in BERT, or in DistilBERT. Others resemble
# them and compute something else.
_LIKE_BERT = {
    f"TF{name}Layer" for name in ("Bert", "Camembert", "Electra", "Roberta", "XLMRoberta")
}
_LIKE_DISTILBERT = {"TFTransformerBlock"}


@dataclasses.dataclass(frozen=True, eq=False)
class Hidden:
    """The neurons between two dense layers.

    Attributes:
      first: the layer whose outputs they are.
      second: the one layer that reads them.
      activations: what happens to them on the way in inference, one after the other, to each by
        itself.
    """

    first: keras.layers.Dense
    second: keras.layers.Dense
    activations: Sequence[Callable[[tf.Tensor], tf.Tensor]]

    @property
    def size(self) -> int:
        return self.first.units

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.first,)

    @property
    def reader(self) -> Layer:
        return self.second


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """The heads of an attention layer.

    Attributes:
      owner: the layer that computes attention.
      query, key, value, output: `Dense` or `EinsumDense`, with one block of columns, and of the
        output rows, to each head.
      size: the number of heads.
      attributes: of the owner, by name, how much each head adds to them. None for Keras's own
        attention, which is made anew.
    """

    owner: Layer
    query: Layer
    key: Layer
    value: Layer
    output: Layer
    size: int
    attributes: Mapping[str, int] | None = None

    @property
    def sources(self) -> tuple[Layer, ...]:
        return self.query, self.key, self.value

    @property
    def reader(self) -> Layer:
        return self.output


Junction = Attention | Hidden


def find(model: Layer, *, to_remove: bool = True) -> list[Junction]:
    """The junctions of a model; those of Hugging Face encoders in the order of their layers.

    Args:
      model: built, without wrappers.
      to_remove: leave out those in which something cannot be removed, but for masking.
    """
    layers = [model, *(layer for _, layer in walk(model))]
    shows_scores = _layers_that_return_scores(layers) if to_remove else set()
    found: list[Junction] = []
    for layer in layers:
        if type(layer) is keras.layers.MultiHeadAttention:
            if layer.built and id(layer) not in shows_scores:
                found.append(of_keras_attention(layer))
        elif type(layer).__module__.startswith("transformers."):
            found.extend(_of_encoder_layer(layer))
    uses = _uses(layers)
    for layer in layers:
        if isinstance(layer, keras.Sequential):
            found.extend(_of_chain(layer.layers, uses))
        elif is_graph_network(layer):
            found.extend(_of_graph(layer, uses))
    return found


def _layers_that_return_scores(layers: list[Layer]) -> set[int]:
    """Ids of attention layers in whose outputs, in a graph, the number of heads shows."""
    return {
        id(node.layer)
        for layer in layers
        if is_graph_network(layer)
        for node in _nodes(layer)
        if node.call_kwargs.get("return_attention_scores")
    }


def of_keras_attention(layer: keras.layers.MultiHeadAttention) -> Attention:
    """The heads of a built layer."""
    dense = (layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense)
    return Attention(layer, *dense, layer._num_heads)


# ---- Hugging Face


def _of_encoder_layer(layer: Layer) -> tuple[Attention, Hidden] | tuple[()]:
    """Of a built encoder layer of a known kind; else nothing."""
    kind = type(layer).__name__
    attention: Any = getattr(layer, "attention", None)
    if kind in _LIKE_BERT and layer.bert_output.dense.built:
        inner = attention.self_attention
        per_head = {"num_attention_heads": 1, "all_head_size": inner.attention_head_size}
        dense = (inner.query, inner.key, inner.value, attention.dense_output.dense)
        heads = Attention(inner, *dense, inner.num_attention_heads, per_head)
        hidden = Hidden(
            layer.intermediate.dense,
            layer.bert_output.dense,
            [layer.intermediate.intermediate_act_fn],
        )
    elif kind in _LIKE_DISTILBERT and layer.ffn.lin2.built:
        per_head = {"n_heads": 1, "dim": attention.dim // attention.n_heads}
        dense = (attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin)
        heads = Attention(attention, *dense, attention.n_heads, per_head)
        hidden = Hidden(layer.ffn.lin1, layer.ffn.lin2, [layer.ffn.activation])
    else:
        return ()
    is_gated = hidden.second.kernel.shape[0] != hidden.size  # such as "glu": neurons act in pairs
    return () if is_gated else (heads, hidden)


# ---- Sequential and Functional models


def _uses(layers: list[Layer]) -> collections.Counter[int]:
    """In how many places each layer is used, by its id: in graphs, and as part of others."""
    uses: collections.Counter[int] = collections.Counter()
    for layer in layers:
        if is_graph_network(layer) and not isinstance(layer, keras.Sequential):
            uses.update(id(node.layer) for node in _nodes(layer))
        else:
            uses.update(id(child) for _, child in children(layer))
    return uses


def _of_chain(layers: list[Layer], uses: Mapping[int, int]) -> Iterator[Hidden]:
    for i in range(len(layers)):
        hidden = _hidden(layers[i:], uses)
        if hidden is not None:
            yield hidden


def _of_graph(model: keras.Model, uses: Mapping[int, int]) -> Iterator[Hidden]:
    readers: dict[int, list[Any]] = collections.defaultdict(list)
    for node in _nodes(model):
        for parent in node.parent_nodes:
            readers[id(parent)].append(node)
    outputs = {id(layer) for layer, *_ in model._output_coordinates}
    for node in _nodes(model):
        path = [node]
        while len(readers[id(path[-1])]) == 1 and id(path[-1].layer) not in outputs:
            path.extend(readers[id(path[-1])])
        hidden = _hidden([node.layer for node in path], uses)
        if hidden is not None:
            yield hidden


def _hidden(path: list[Layer], uses: Mapping[int, int]) -> Hidden | None:
    """The neurons of a dense layer, by the layers that follow it with one reader each."""
    first = path[0]
    if not _is_dense(first, uses) or first.activation not in _ELEMENTWISE:
        return None
    activations = [first.activation]
    for layer in path[1:]:
        if _is_dense(layer, uses):
            return Hidden(first, layer, activations)
        if _is_elementwise(layer):
            activations.append(layer)
        elif type(layer) not in _NOISE_LAYERS:
            return None
    return None


def _is_dense(layer: Layer, uses: Mapping[int, int]) -> bool:
    return type(layer) is keras.layers.Dense and layer.built and uses[id(layer)] == 1


def _is_elementwise(layer: Layer) -> bool:
    if type(layer) is keras.layers.Activation:
        return layer.activation in _ELEMENTWISE
    return type(layer) in _ELEMENTWISE_LAYERS


def _nodes(model: keras.Model) -> list[Any]:
    # A Sequential model without a known input shape has none yet.
    by_depth = getattr(model, "_nodes_by_depth", {})
    return [node for nodes in by_depth.values() for node in nodes]
