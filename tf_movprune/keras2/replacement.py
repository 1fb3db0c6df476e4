"""Replacement of layers in any Keras model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from tf_movprune.keras2 import compat, graphs
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.layer_tree import LayerTree, layers_in


def replace_layers(
    root: Layer, replacements: Mapping[int, Layer], *, for_a_while: bool = False
) -> Layer:
    """Puts layers in the place of others, wherever these are referenced.

    Sequential and Functional models are cloned around the same layers, unless they are of a
    subclass. These and all other layers are changed in place, and keep the order of their weights.

    Args:
      root: a model or layer.
      replacements: new layers by the `id` of the old ones.
      for_a_while: whether graphs are remembered, so that they can be put back as they were.

    Returns:
      `root`, its clone, or its replacement.
    """
    done: dict[int, Layer] = dict(replacements)

    def replaced(value: Any) -> Any:
        """Returns the replacement of a layer, or of a list or mapping of layers."""
        if isinstance(value, Layer):
            return replaced_layer(value)
        value = getattr(value, "__wrapped__", value)  # Keras tracks mappings and tuples in others
        if isinstance(value, dict):
            new = copy.copy(value)
            new.update((key, replaced(item)) for key, item in value.items())
            return new
        if isinstance(value, (list, tuple)):
            items = [replaced(item) for item in value]
            return getattr(type(value), "_make", tuple if isinstance(value, tuple) else list)(items)
        return value

    def replaced_layer(layer: Layer) -> Layer:
        if id(layer) not in done:
            done[id(layer)] = layer  # ends cycles
            if is_graph_network(layer):
                done[id(layer)] = replace_in_graph(layer)
            else:
                change_in_place(layer)
        return done[id(layer)]

    def replace_in_graph(model: keras.Model) -> keras.Model:
        if all([replaced_layer(layer) is layer for layer in graphs.layers_of_graph(model)]):
            change_in_place(model)
            return model
        rebuilt = graphs.rebuild(model, replaced, for_a_while=for_a_while)
        if rebuilt is model:
            change_in_place(model)
        return rebuilt

    def change_in_place(layer: Layer) -> None:
        for name in compat.own_attributes(layer):
            value = getattr(layer, name)
            olds = [child for _, child in layers_in(name, value)]
            news = [replaced_layer(child) for child in olds]
            if any(old is not new for old, new in zip(olds, news)):
                _set_attribute(layer, name, replaced(value), olds)

    return replaced_layer(root)


@contextlib.contextmanager
def unchanged(root: Layer) -> Iterator[None]:
    """Restores all attributes of all layers of a model at the end of a context."""
    restore = _restorer(root)
    try:
        yield
    finally:
        restore()


@contextlib.contextmanager
def undone_on_error(root: Layer) -> Iterator[None]:
    """Restores all attributes of all layers of a model if the context raises."""
    restore = _restorer(root)
    try:
        yield
    except BaseException:
        restore()
        raise


def _restorer(root: Layer) -> Callable[[], None]:
    layers = LayerTree(root).layers()
    states = [_state(layer) for layer in layers]

    def restore() -> None:
        for layer, state in zip(layers, states):
            vars(layer).clear()
            vars(layer).update(state)

    return restore


def _state(layer: Layer) -> dict[str, Any]:
    """The attributes of a layer, with copies of the lists and mappings in which Keras keeps books.

    Nodes are among them: a layer gets more of these when a graph is cloned around it.
    """
    books = (list, dict, MutableMapping)
    return {
        name: compat.copy_of_books(value)
        if isinstance(value, books) and compat.is_keras_attribute(layer, name)
        else value
        for name, value in vars(layer).items()
    }


def _set_attribute(layer: Layer, name: str, value: Any, olds: list[Any]) -> None:
    """Assigns an attribute, which keeps its place, as do the items that Keras tracks for it."""
    later_names = list(vars(layer))[list(vars(layer)).index(name) + 1 :]
    order = {id(item): i for i, item in enumerate(compat.tracked_items(layer))}
    container = getattr(layer, name)
    place = min(
        (order[id(item)] for item in (container, *olds) if id(item) in order), default=len(order)
    )
    setattr(layer, name, value)
    tracked = compat.tracked_items(layer)
    new = [item for item in tracked if id(item) not in order]
    kept = [item for item in tracked if id(item) in order]
    place = sum(order[id(item)] < place for item in kept)
    compat.reorder_tracked_items(layer, kept[:place] + new + kept[place:])
    for later in later_names:
        vars(layer)[later] = vars(layer).pop(later)
