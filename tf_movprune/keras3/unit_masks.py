"""Masks of heads and neurons, which several layers of a Keras 3 model share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import keras

from tf_movprune.core.chosen_units import choose_units
from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.settings import Settings
from tf_movprune.core.wording import with_article
from tf_movprune.keras3 import compat
from tf_movprune.keras3.attention import names_of
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import Place
from tf_movprune.keras3.layer_tree import children, walk
from tf_movprune.keras3.movement_mask import MovementMask
from tf_movprune.keras3.pruned_layer import add_mask, begin, watch
from tf_movprune.keras3.pruning_state import MaskedPlace, state_of
from tf_movprune.keras3.units import UnitGroup, find_units, neurons_in_graphs

_KNOWN = {
    HEADS: "Known are Keras's own MultiHeadAttention and GroupQueryAttention without a gate, and "
    "the attention of KerasHub's TransformerEncoder and TransformerDecoder, and of the blocks of "
    "DeBERTaV3, Gemma, Llama, Mistral, Mixtral, Phi3, Qwen, T5, ViT and Whisper",
    NEURONS: "Known are the feed-forward layers of KerasHub's TransformerEncoder and "
    "TransformerDecoder, and of the blocks of DeBERTaV3, FNet, Gemma, Llama, Mistral, Phi3, Qwen, "
    "T5, ViT and Whisper, and "
    "dense layers that follow each other in a Sequential or Functional model with nothing between "
    "them but activations and dropout",
}


class SharedMask(NamedTuple):
    """A mask that is to be made: one score to each head or neuron.

    Attributes:
      units: the heads or neurons.
      settings: how they are pruned.
    """

    units: UnitGroup
    settings: Settings


def share_masks(
    model: Layer | None, layers: Mapping[str, Layer], settings: Mapping[str, Settings]
) -> tuple[list[SharedMask], dict[str, Layer]]:
    """The masks of heads and neurons that are to be pruned, and the layers that share them.

    Some of these are not to be pruned by themselves, such as the output layer that reads the last
    neurons.

    Args:
      model: a built model without pruned layers; None if the layers are in none.
      layers: the layers to be pruned, by path.
      settings: their settings.

    Returns:
      The masks, and all their layers by path.

    Raises:
      ValueError: a layer has no heads or neurons that can be told apart, or the layers of a head or
        neuron have different settings.
    """
    if not any(isinstance(setting.block_size, Units) for setting in settings.values()):
        return [], {}
    inside = {} if model is None else walk(model)
    groups = [] if model is None else find_units(model, to_remove=False)
    everything = {**inside, **layers}
    paths = {id(layer): path for path, layer in everything.items()}
    in_graphs = {} if model is None else neurons_in_graphs([model, *inside.values()])
    holders = {id(child): holder for holder in inside.values() for _, child in children(holder)}

    def obstacle(path: str, kind: Units) -> str:
        layer = layers[path]
        if kind is HEADS:
            return _obstacle_to_heads(layer, holders.get(id(layer)))
        return _obstacle_to_neurons(layer, in_graphs)

    def paths_of(units: UnitGroup) -> list[str]:
        return [paths[id(layer)] for layer in (*units.sources, units.reader)]

    with_paths = [(units, paths_of(units)) for units in groups]
    chosen, members = choose_units(with_paths, settings, obstacle, _KNOWN)
    masks = [SharedMask(units, members[those[0]]) for units, those in chosen]
    return masks, {path: everything[path] for path in members}


def _obstacle_to_heads(layer: Layer, holder: Layer | None) -> str:
    """Why a layer, which another one may hold, has no heads, in words that follow its name."""
    if holder is None:
        return f"is {with_article(type(layer).__name__)}, and in no attention that is known"
    which = "whose heads have a gate" if names_of(holder) else "which is no attention that is known"
    return (
        f"is {with_article(type(layer).__name__)} in {with_article(type(holder).__name__)}, {which}"
    )


def _obstacle_to_neurons(layer: Layer, in_graphs: Mapping[int, UnitGroup | str]) -> str:
    """Why a layer has no neurons, in words that follow its name."""
    if not isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense)):
        return f"is {with_article(type(layer).__name__)}"
    found = in_graphs.get(id(layer))
    return (
        found
        if isinstance(found, str)
        else ("is in no Sequential or Functional model, so that what reads it is not known")
    )


def attach_shared(layers: Sequence[Layer], masks: Sequence[SharedMask]) -> None:
    """Prunes built layers in place with masks that they share.

    Each mask is a sublayer of one of its layers, which has its variables: of a trained one, if
    there is any.
    """
    for layer in layers:
        begin(layer)
    masked: dict[Place, list[tuple[MovementMask, Part]]] = {}
    for units, settings in masks:
        parts = dict(_parts(units))
        owner = min((*units.sources, units.reader), key=lambda layer: not layer.trainable)
        name = f"{units.kind}_read" if owner is units.reader else str(units.kind)
        mask = add_mask(owner, name, settings, list(parts.values()), (units.size,))
        for place, part in parts.items():
            masked.setdefault(place, []).append((mask, part))
    for place, masked_by in masked.items():
        state_of(place.owner).places.append(MaskedPlace(place, masked_by, place.variable))
    for layer in layers:
        watch(layer)


def _parts(units: UnitGroup) -> Iterator[tuple[Place, Part]]:
    """The weights that heads or neurons are made of, with their places."""

    def at(layer: Layer, name: str, axis: int) -> tuple[Place, Part]:
        place = Place(layer, name)
        weight = compat.tensorflow_variable(place.variable)
        return place, Part(weight, axis, is_bias=name == "bias")

    for layer, axis in units.axes:
        yield at(layer, "_kernel", axis)
        if layer is not units.reader and layer.bias is not None:
            yield at(layer, "bias", 0)
