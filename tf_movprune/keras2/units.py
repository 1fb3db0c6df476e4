"""Heads and neurons of a model: their places, and the kernels that mask them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.chosen_units import choose_units
from tf_movprune.core.empty_units import Matrix
from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.settings import Settings
from tf_movprune.core.wording import with_article
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.kernel_attributes import Attribute
from tf_movprune.keras2.kernel_variables import SharedKernel
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.neurons import Neurons, neurons_of


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
    def kind(self) -> Units:
        return HEADS

    @property
    def sources(self) -> tuple[Layer, ...]:
        return self.query, self.key, self.value

    @property
    def reader(self) -> Layer:
        return self.output

    def constants(self, sources: Sequence[Matrix]) -> np.ndarray:
        # The weights of each head's attention sum to one: its output is the bias of its values.
        return sources[-1].constants()


UnitGroup = Heads | Neurons


def find_units(tree: LayerTree, *, to_remove: bool = True) -> list[UnitGroup]:
    """Finds the heads and neurons of a model, for Hugging Face encoders in the order of layers.

    Args:
      tree: layer tree of a built model without wrappers.
      to_remove: whether to leave out those that can be masked but not removed.
    """
    layers = tree.layers()
    shows_heads = _layers_that_show_heads(layers) if to_remove else set()
    found: list[UnitGroup] = []
    for layer in layers:
        encoder = hugging_face.encoder_layer(layer)
        if type(layer) is keras.layers.MultiHeadAttention:
            if layer.built and id(layer) not in shows_heads:
                found.append(heads_of(layer))
        elif encoder is not None:
            found.append(
                Heads(encoder.attention, *encoder.projections, encoder.heads, encoder.per_head)
            )
            found.append(Neurons(encoder.intermediate, encoder.output, [encoder.activation]))
    found.extend(unit for unit in neurons_of(tree).values() if isinstance(unit, Neurons))
    return found


def _layers_that_show_heads(layers: Sequence[Layer]) -> set[int]:
    """Ids of attention layers that, in a graph, have to have as many heads as they have.

    Their outputs have the attention scores of each head, or they take a mask for each.
    """
    return {
        id(node.layer)
        for layer in layers
        if is_graph_network(layer)
        for node in compat.graph_nodes(layer)
        if node.call_kwargs.get("return_attention_scores") or _has_mask_of_heads(node)
    }


def _has_mask_of_heads(node: Any) -> bool:
    """Returns whether a call of an attention layer has a mask with an axis of heads."""
    mask = node.call_kwargs.get("attention_mask", next(iter(node.call_args[3:]), None))
    return len(getattr(mask, "shape", ())) > 3 and mask.shape[1] != 1


def heads_of(layer: keras.layers.MultiHeadAttention) -> Heads:
    """The heads of a built attention layer of Keras."""
    return Heads(layer, *compat.attention_projections(layer), compat.head_count(layer))


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
    if not any(isinstance(setting.block_size, Units) for setting in settings.values()):
        return {}
    layers = {tree.root.name: tree.root, **dict(tree.walk()), **targets}
    paths = {id(layer): path for path, layer in layers.items()}
    groups = [
        (group, [paths[id(layer)] for layer in _wrapped_layers(group)])
        for group in find_units(tree, to_remove=False)
    ]
    neurons = neurons_of(tree)

    def obstacle(path: str, kind: Units) -> str:
        return _obstacle(targets[path], kind, neurons)

    chosen, found = choose_units(groups, settings, obstacle, _KNOWN)
    members = {path: Member(layers[path], setting) for path, setting in found.items()}
    for group, those in chosen:
        kernel = SharedKernel(group.size, list(_parts(group)))
        for path in those:
            members[path].kernels.append(kernel)
    return members


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


_KNOWN = {
    HEADS: "Known are Keras's own MultiHeadAttention, and the attention of Hugging Face's BERT, "
    "RoBERTa, ELECTRA and DistilBERT encoders",
    NEURONS: "Known are the feed-forward layers of Hugging Face's BERT, RoBERTa, ELECTRA and "
    "DistilBERT encoders, and dense layers that follow each other in a Sequential or Functional "
    "model with nothing between them but activations and dropout",
}


def _obstacle(layer: Layer, kind: Units, neurons: Mapping[int, Neurons | str]) -> str:
    """Why a layer has no part in heads or neurons, in words that follow its name."""
    if kind is HEADS and type(layer) is not keras.layers.MultiHeadAttention:
        return f"is {with_article(type(layer).__name__)}, and in no attention that is known"
    if kind is NEURONS and type(layer) is not keras.layers.Dense:
        return f"is {with_article(type(layer).__name__)}"
    if not layer.built:
        return "is not built"
    if id(layer) in neurons:
        return str(neurons[id(layer)])
    return "is in no Sequential or Functional model, so that what reads it is not known"
