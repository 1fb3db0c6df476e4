"""Configurations of Hugging Face encoders, which tell what was removed from their layers."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.empty_units import KeptUnits, Matrices
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.units import Heads


@dataclasses.dataclass
class _Encoder:
    """The encoder layers that one configuration describes.

    Several encoders may be made from the same object. Each is described by its own from then on,
    unless a model around them has that object, too.

    Attributes:
      config: configuration of the layers.
      layers: heads and neurons of each layer, in order.
      holders: the layers with this configuration, outer ones first.
      inside: these and all layers below them.
    """

    config: Any
    layers: list[tuple[KeptUnits, KeptUnits]]
    holders: list[Layer]
    inside: list[Layer]

    def has_any_of(self, layers: Sequence[Layer]) -> bool:
        ids = {id(layer) for layer in self.holders}
        return any(id(layer) in ids for layer in layers)


def record_sizes(tree: LayerTree, units: Sequence[KeptUnits]) -> None:
    """Gives the encoders of a model configurations that tell what was removed from their layers.

    The configurations that they had stay as they are: other models may share them.

    Args:
      tree: layer tree of the model, which still has the heads and neurons of before.
      units: heads and neurons that are kept.

    Raises:
      ValueError: a configuration does not go with the layers that it describes. None is changed.
    """
    changes: list[tuple[Layer, str, Any]] = []
    replaced: dict[int, list[Any]] = {}
    encoders = _encoders(tree, units)
    for encoder in encoders:
        sizes = _recorded(encoder, tree)
        others = [layer for layer in tree.layers() if _is_alias(layer, encoder, encoders, tree)]
        old = [encoder.config, *map(_config, others)]
        new = {id(config): hugging_face.with_sizes(config, sizes) for config in old}
        changes += _replacements([*encoder.inside, *others], new)
        for key, config in new.items():
            replaced.setdefault(key, []).append(config)
    changes += _replacements(tree.layers(), _around(tree, replaced))
    for layer, name, config in changes:
        setattr(layer, name, config)


def keep_recorded(tree: LayerTree, units: Sequence[KeptUnits], weights: Matrices) -> bool:
    """Cuts a model of full size to the heads and neurons that its configurations tell.

    Returns:
      False if they tell of none.

    Raises:
      ValueError: a configuration does not go with the layers that it describes.
    """
    found = False
    for encoder in _encoders(tree, units):
        sizes = hugging_face.remaining_sizes(encoder.config, len(encoder.layers))
        for (heads, neurons), (kept, size) in zip(encoder.layers, sizes):
            found = True
            heads.keep(kept, weights)
            neurons.keep(np.arange(size), weights)
    return found


def replace_config(tree: LayerTree, old: Any, new: Any) -> None:
    """Puts a configuration in the place of another in all layers of a model."""
    for layer, name, config in list(_replacements(tree.layers(), {id(old): new})):
        setattr(layer, name, config)


def _encoders(tree: LayerTree, units: Sequence[KeptUnits]) -> list[_Encoder]:
    parts = {
        id(heads.group.owner): (heads, neurons)
        for heads, neurons in itertools.pairwise(units)
        if isinstance(heads.group, Heads) and heads.group.attributes
    }
    found: list[_Encoder] = []
    for root in tree.layers() if parts else ():
        config = _config(root)
        if config is None or any(encoder.has_any_of([root]) for encoder in found):
            continue
        inside = [root, *(layer for _, layer in tree.walk(start=root))]
        holders = [layer for layer in inside if _config(layer) is config]
        layers = [parts[id(layer)] for layer in holders if id(layer) in parts]
        if not layers:
            continue
        known = next((encoder for encoder in found if encoder.has_any_of(holders)), None)
        if known is None:
            found.append(_Encoder(config, layers, holders, inside))
        else:  # two models around the same encoder
            known.layers += [pair for pair in layers if pair not in known.layers]
            known.holders += holders
            known.inside += inside
    return found


def _recorded(encoder: _Encoder, tree: LayerTree) -> list[hugging_face.RemainingSizes]:
    """Lists what is left of each layer, checked against what its configuration told before."""
    paths = {id(layer): path for path, layer in tree.walk()}
    recorded = []
    for i, (heads, neurons) in enumerate(encoder.layers):
        path = paths.get(id(heads.group.owner), heads.group.owner.name)
        before = hugging_face.present_heads(encoder.config, i, heads.group.size, path)
        hugging_face.check_neurons(encoder.config, i, neurons.group.size, path)
        recorded.append((before[heads.kept], len(neurons.kept)))
    return recorded


def _is_alias(
    layer: Layer, encoder: _Encoder, encoders: Sequence[_Encoder], tree: LayerTree
) -> bool:
    """Returns whether the model around an encoder has a copy of its configuration."""
    config = _config(layer)
    if not hugging_face.are_alike(config, encoder.config):
        return False
    below = [inner for _, inner in tree.walk(start=layer)]
    inside = [other for other in encoders if other.has_any_of(below)]
    return len(inside) == 1 and inside[0] is encoder


def _config(layer: Layer) -> Any:
    return vars(layer).get("config")


def _replacements(layers: Sequence[Layer], new: dict[int, Any]) -> Iterator[tuple[Layer, str, Any]]:
    """The attributes that are configurations to be replaced, and the new ones."""
    for layer in layers:
        for name, value in vars(layer).items():
            if id(value) in new:
                yield layer, name, new[id(value)]


def _around(tree: LayerTree, replaced: dict[int, list[Any]]) -> dict[int, Any]:
    """Copies of configurations with new ones inside them, by the ids of the former.

    Args:
      tree: layer tree of a model.
      replaced: new configurations by the id of the old one. Which of several is meant is not known.
    """
    new = {key: configs[0] for key, configs in replaced.items() if len(configs) == 1}
    copies = {}
    for config in map(_config, tree.layers()):
        attributes = getattr(config, "__dict__", {})  # a layer's `config` may be anything
        inside = {name: new[id(x)] for name, x in attributes.items() if id(x) in new}
        if inside:
            copies[id(config)] = copy.copy(config)
            vars(copies[id(config)]).update(inside)
    return copies
