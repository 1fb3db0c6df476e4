"""Heads and neurons of a model: their places, and the kernels that mask them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.settings import Settings
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.kernel_attributes import Attribute
from tf_movprune.keras2.kernel_variables import SharedKernel
from tf_movprune.keras2.layer_tree import LayerTree

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
    def size(self) -> int:
        return self.first.units

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.first,)

    @property
    def reader(self) -> Layer:
        return self.second


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """The heads of an attention layer.

    Attributes:
      owner: the layer that computes attention.
      query, key, value, output: `Dense` or `EinsumDense` layers with one block of columns for each
        head, in the output one of rows.
      size: the number of heads.
      attributes: attributes of the owner by name, and how much each head adds to them; None for
        Keras's own attention, which is made anew.
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


UnitGroup = Heads | Neurons


def find_units(tree: LayerTree, *, to_remove: bool = True) -> list[UnitGroup]:
    """Finds the heads and neurons of a model, for Hugging Face encoders in the order of layers.

    Args:
      tree: layer tree of a built model without wrappers.
      to_remove: whether to leave out those that can be masked but not removed.
    """
    layers = tree.layers()
    shows_scores = _layers_that_return_scores(layers) if to_remove else set()
    found: list[UnitGroup] = []
    for layer in layers:
        encoder = hugging_face.encoder_layer(layer)
        if type(layer) is keras.layers.MultiHeadAttention:
            if layer.built and id(layer) not in shows_scores:
                found.append(heads_of(layer))
        elif encoder is not None:
            found.append(
                Heads(encoder.attention, *encoder.projections, encoder.heads, encoder.per_head)
            )
            found.append(Neurons(encoder.intermediate, encoder.output, [encoder.activation]))
    uses = _uses(tree)
    for layer in layers:
        if isinstance(layer, keras.Sequential):
            found.extend(_in_chain(layer.layers, uses))
        elif is_graph_network(layer):
            found.extend(_in_graph(layer, uses))
    return found


def _layers_that_return_scores(layers: Sequence[Layer]) -> set[int]:
    """Ids of attention layers whose outputs, in a graph, show the number of heads."""
    return {
        id(node.layer)
        for layer in layers
        if is_graph_network(layer)
        for node in compat.graph_nodes(layer)
        if node.call_kwargs.get("return_attention_scores")
    }


def heads_of(layer: keras.layers.MultiHeadAttention) -> Heads:
    """The heads of a built attention layer of Keras."""
    return Heads(layer, *compat.attention_projections(layer), compat.head_count(layer))


def _uses(tree: LayerTree) -> collections.Counter[int]:
    """Number of places in which each layer is used, by its id: in graphs, and as part of others."""
    uses: collections.Counter[int] = collections.Counter()
    for layer in tree.layers():
        if is_graph_network(layer) and not isinstance(layer, keras.Sequential):
            uses.update(id(node.layer) for node in compat.graph_nodes(layer))
        else:
            uses.update(id(child) for _, child in tree.children(layer))
    return uses


def _in_chain(layers: Sequence[Layer], uses: Mapping[int, int]) -> Iterator[Neurons]:
    for i in range(len(layers)):
        neurons = _neurons(layers[i:], uses)
        if neurons is not None:
            yield neurons


def _in_graph(model: keras.Model, uses: Mapping[int, int]) -> Iterator[Neurons]:
    nodes = compat.graph_nodes(model)
    readers: dict[int, list[Any]] = collections.defaultdict(list)
    for node in nodes:
        for parent in node.parent_nodes:
            readers[id(parent)].append(node)
    outputs = {id(node.layer) for node in compat.output_nodes(model)}
    for node in nodes:
        path = [node]
        while len(readers[id(path[-1])]) == 1 and id(path[-1].layer) not in outputs:
            path.extend(readers[id(path[-1])])
        neurons = _neurons([node.layer for node in path], uses)
        if neurons is not None:
            yield neurons


def _neurons(path: Sequence[Layer], uses: Mapping[int, int]) -> Neurons | None:
    """The neurons of the first layer in a path of layers with one reader each, if it has any."""
    first = path[0]
    if not _is_dense(first, uses) or first.activation not in _ELEMENTWISE:
        return None
    activations = [first.activation]
    for layer in path[1:]:
        if _is_dense(layer, uses):
            return Neurons(first, layer, activations)
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


# ---- the kernels that mask them


@dataclasses.dataclass
class Member:
    """A layer with a part in heads or neurons that are to be pruned.

    Attributes:
      layer: the layer.
      settings: its own settings, or those of the layers that it shares heads or neurons with.
      kernels: its masked kernels; several if it reads some neurons and makes others.
    """

    layer: Layer
    settings: Settings
    kernels: list[SharedKernel] = dataclasses.field(default_factory=list)


def share_kernels(
    tree: LayerTree, settings: Mapping[str, Settings], targets: Mapping[str, Layer]
) -> dict[str, Member]:
    """The layers with a part in the heads or neurons that are to be pruned, by path.

    Some of them are not targets, such as the output layer that reads the last neurons.

    Args:
      tree: layer tree of a built model without wrappers.
      settings: settings of each layer to be pruned, by path.
      targets: target layers by path, at least those in `settings`.

    Raises:
      ValueError: a layer has no heads or neurons that can be told apart, or the layers of a head or
        neuron have different settings.
    """
    asked = [path for path, setting in settings.items() if isinstance(setting.block_size, Units)]
    if not asked:
        return {}
    paths = {id(layer): path for path, layer in ((tree.root.name, tree.root), *tree.walk())}
    paths.update((id(layer), path) for path, layer in targets.items())
    members: dict[str, Member] = {}
    for group in find_units(tree, to_remove=False):
        kind = HEADS if isinstance(group, Heads) else NEURONS
        layers = {paths[id(layer)]: layer for layer in _wrapped_layers(group)}
        asking = [p for p in layers if p in settings and settings[p].block_size == kind]
        if not asking:
            continue
        kernel = SharedKernel(group.size, list(_parts(group)))
        for path, layer in layers.items():
            setting = settings.get(path, settings[asking[0]])
            member = members.setdefault(path, Member(layer, setting))
            _check_equal(asking[0], settings[asking[0]], path, member.settings)
            member.kernels.append(kernel)
    for path in asked:
        if path not in members:
            raise ValueError(_not_found(path, settings[path].block_size))
    return members


def _check_equal(path: str, setting: Settings, other_path: str, other: Settings) -> None:
    if setting.key != other.key:
        raise ValueError(
            f"{path} is pruned by {setting}, and {other_path} has a part in the same "
            f"{setting.block_size}, but is pruned by {other}. Give both the same block_size, "
            f"schedule and method; or leave {other_path} out of the schedules, to prune just the "
            f"{setting.block_size} of which it has a part."
        )


def _wrapped_layers(group: UnitGroup) -> Iterator[Layer]:
    """The layers to wrap: Keras attention as a whole, elsewhere the dense layers."""
    if isinstance(group, Heads) and group.attributes is None:
        yield group.owner
    else:
        yield from (*group.sources, group.reader)


def _parts(group: UnitGroup) -> Iterator[tuple[Attribute, int]]:
    for layer in group.sources:
        yield Attribute.of(layer, "kernel"), 1
        if layer.bias is not None:
            yield Attribute.of(layer, "bias"), 0
    yield Attribute.of(group.reader, "kernel"), 0


def _not_found(path: str, kind: Units) -> str:
    if kind is HEADS:
        what = (
            "Known are Keras's own MultiHeadAttention, and the attention of Hugging Face's BERT, "
            "RoBERTa, ELECTRA and DistilBERT encoders"
        )
    else:
        what = (
            "Known are the feed-forward layers of Hugging Face's BERT, RoBERTa, ELECTRA and "
            "DistilBERT encoders, and dense layers that follow each other in a Sequential or "
            "Functional model with nothing between them but activations and dropout"
        )
    return (
        f"block_size of {path} is {kind!r}, but it has no {kind} that can be told apart. {what}; "
        "the model must be built. Give other layers block sizes of two integers, with a mapping "
        "of path patterns."
    )
