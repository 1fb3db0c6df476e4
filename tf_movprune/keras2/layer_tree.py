"""The layers of any Keras model by path, and their replacement by others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.layer import PruneLowMovement


class LayerTree:
    """The layers below a model or layer, read once: their paths, and which layer holds which.

    A path consists of layer names in Sequential and Functional models and of attribute names
    elsewhere. A wrapper stands under the name of the layer inside it.

    Args:
      root: a model or layer.
    """

    def __init__(self, root: Layer):
        self.root = root
        self._children: dict[int, list[tuple[str, Layer]]] = {}
        self._owners: dict[int, list[Layer]] = {id(root): []}
        pending = [root]
        while pending:
            layer = pending.pop()
            self._children[id(layer)] = list(children(layer))
            for _, child in self._children[id(layer)]:
                if id(child) not in self._owners:
                    self._owners[id(child)] = []
                    pending.append(child)
                self._owners[id(child)].append(layer)

    def children(self, layer: Layer) -> list[tuple[str, Layer]]:
        """The direct sublayers of a layer, by name."""
        return self._children[id(layer)]

    def owners(self, layer: Layer) -> list[Layer]:
        """The layers that hold a layer directly, once for each place in them."""
        return self._owners[id(layer)]

    def walk(
        self, leaf: Callable[[Layer], bool] = lambda _: False, start: Layer | None = None
    ) -> Iterator[tuple[str, Layer]]:
        """All layers below `start`, each once and under its first path, depth first.

        Args:
          leaf: predicate; nothing below a layer for which it is true is visited.
          start: a layer of the tree; the root unless given.
        """
        start = self.root if start is None else start
        seen = {id(start)}

        def visit(parent: Layer, prefix: str) -> Iterator[tuple[str, Layer]]:
            for name, child in self.children(parent):
                if id(child) not in seen:
                    seen.add(id(child))
                    yield prefix + name, child
                    if not leaf(child):
                        yield from visit(child, f"{prefix}{name}.")

        yield from visit(start, "")

    def layers(self) -> list[Layer]:
        """The root and all layers below it, depth first."""
        return [self.root, *(layer for _, layer in self.walk())]

    def pruned_layers(self) -> dict[str, PruneLowMovement]:
        """The pruning wrappers, by the paths of the layers that they wrap."""
        if isinstance(self.root, PruneLowMovement):
            return {self.root.layer.name: self.root}
        return {path: layer for path, layer in self.walk(is_wrapper) if is_wrapper(layer)}

    def holders(self) -> list[Layer]:
        """The root and layers below it that hold pruning wrappers, at whatever depth."""
        found: dict[int, Layer] = {}
        pending = list(self.pruned_layers().values())
        while pending:
            for owner in self.owners(pending.pop()):
                if id(owner) not in found:
                    found[id(owner)] = owner
                    pending.append(owner)
        return list(found.values())


def is_wrapper(layer: Any) -> bool:
    """Returns whether a layer is a pruning wrapper."""
    return isinstance(layer, PruneLowMovement)


def pruned_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The pruning wrappers of a model, by the paths of the layers that they wrap."""
    return LayerTree(model).pruned_layers()


def kernels_of(layers: Iterable[PruneLowMovement]) -> list[MaskedKernel]:
    """The masked kernels of built wrappers, each once, however many wrappers share it."""
    return list({id(kernel): kernel for layer in layers for kernel in layer.kernels}.values())


def built_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The pruning wrappers of a model by path.

    Raises:
      ValueError: there are none, or they are not built.
    """
    wrappers = pruned_layers(model)
    if not wrappers:
        raise ValueError(
            f"{model.name!r} has no pruned layers. Call tf_movprune.prune_low_movement on the "
            "model first, and train what it returns."
        )
    for wrapper in wrappers.values():
        _ = wrapper.kernels  # raises
    return wrappers


def children(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Direct sublayers with their names: layer names in a graph, attribute paths elsewhere."""
    if is_graph_network(layer):
        for child in layer.layers:
            yield (child.layer.name if is_wrapper(child) else child.name), child
        return
    # Bidirectional keeps the layer that it was given, and computes with copies of it.
    template = "layer" if isinstance(layer, keras.layers.Bidirectional) else None
    for name, value in vars(layer).items():
        if not compat.is_keras_attribute(name) and name != template:
            yield from _layers_in(name, value)


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Layer]]:
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{name}.{i}", item)


def replace_layers(root: Layer, replacements: Mapping[int, Layer]) -> Layer:
    """Puts layers in the place of others, wherever these are referenced.

    Sequential and Functional models are cloned around the same layers. Other layers are changed in
    place, and keep the order of their weights.

    Args:
      root: a model or layer.
      replacements: new layers by the `id` of the old ones.

    Returns:
      `root`, its clone, or its replacement.
    """
    done: dict[int, Layer] = dict(replacements)

    def replaced(layer: Layer) -> Layer:
        if id(layer) not in done:
            done[id(layer)] = layer  # ends cycles
            if is_graph_network(layer):
                done[id(layer)] = clone_if_needed(layer)
            else:
                change_in_place(layer)
        return done[id(layer)]

    def clone_if_needed(model: keras.Model) -> keras.Model:
        if all(replaced(layer) is layer for layer in model.layers):
            return model
        return keras.models.clone_model(model, clone_function=replaced)

    def change_in_place(layer: Layer) -> None:
        for name, value in list(vars(layer).items()):
            if compat.is_keras_attribute(name):
                continue
            olds = [child for _, child in _layers_in(name, value)]
            news = [replaced(child) for child in olds]
            if any(old is not new for old, new in zip(olds, news)):
                _set_attribute(layer, name, _rebuilt(value, replaced), olds)

    return replaced(root)


@contextlib.contextmanager
def unchanged(root: Layer) -> Iterator[None]:
    """Restores all attributes of all layers of a model at the end of a context."""
    layers = LayerTree(root).layers()
    states = [_state(layer) for layer in layers]
    try:
        yield
    finally:
        for layer, state in zip(layers, states):
            vars(layer).clear()
            vars(layer).update(state)


def _state(layer: Layer) -> dict[str, Any]:
    """The attributes of a layer, with copies of the lists and mappings in which Keras keeps books.

    Nodes are among them: a layer gets more of these when a graph is cloned around it.
    """
    return {
        name: compat.copy_of_books(value)
        if compat.is_keras_attribute(name) and isinstance(value, (list, dict, MutableMapping))
        else value
        for name, value in vars(layer).items()
    }


def _rebuilt(value: Any, replaced: Callable[[Layer], Layer]) -> Any:
    if isinstance(value, Layer):
        return replaced(value)
    if isinstance(value, dict):
        return {key: _rebuilt(item, replaced) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_rebuilt(item, replaced) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _set_attribute(layer: Layer, name: str, value: Any, olds: list) -> None:
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
