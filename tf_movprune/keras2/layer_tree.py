"""The layers of any Keras model by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.finite_check import by_innermost
from tf_movprune.core.masked_kernel import MaskedKernel, each_once
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.kernel_attributes import short_names
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

    def forget_traces(self) -> None:
        """Forgets what the layers traced, compiled functions too."""
        for layer in self.layers():
            compat.forget_traces(layer)
            compat.forget_functions(layer)

    def pruned_layers(self) -> dict[str, PruneLowMovement]:
        """The pruning wrappers, by the paths of the layers that they wrap.

        Raises:
          ValueError: two have the same path.
        """
        if isinstance(self.root, PruneLowMovement):
            return {self.root.layer.name: self.root}
        return by_path((path, layer) for path, layer in self.walk(is_wrapper) if is_wrapper(layer))

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


def by_path(layers: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of pairs of paths and layers, such as those of a walk.

    Raises:
      ValueError: two layers have the same path, so that only one of them would be in it.
    """
    found: dict[str, Any] = {}
    for path, layer in layers:
        if path in found:
            raise ValueError(
                f"Two layers, {found[path].name!r} and {layer.name!r}, have the same path "
                f"{path!r}: one of their names or keys, or of the layers that hold them, has a dot "
                "in it. Rename it, so that patterns and reports tell the two apart."
            )
        found[path] = layer
    return found


def is_wrapper(layer: Any) -> bool:
    """Returns whether a layer is a pruning wrapper."""
    return isinstance(layer, PruneLowMovement)


def pruned_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The pruning wrappers of a model, by the paths of the layers that they wrap.

    Raises:
      TypeError: `model` is not a Keras model or layer.
      ValueError: two have the same path.
    """
    compat.check_keras_object(model)
    return LayerTree(model).pruned_layers()


def kernels_of(layers: Iterable[PruneLowMovement]) -> list[MaskedKernel]:
    """The masked kernels of built wrappers, each once, however many wrappers share it."""
    return each_once(kernel for layer in layers for kernel in layer.kernels)


def named_kernels(
    wrappers: Mapping[str, PruneLowMovement],
) -> dict[str, tuple[list[MaskedKernel], list[tuple[str, tf.Variable]]]]:
    """The masked kernels of each of the built wrappers, and its prunable weights by name."""
    return {
        path: (wrapper.kernels, short_names(wrapper.get_prunable_weights()))
        for path, wrapper in wrappers.items()
    }


def trainable_weights(model: Layer) -> dict[str, list[tf.Variable]]:
    """The trainable weights of a model, by the path of the innermost layer that has them."""
    return by_innermost(model, LayerTree(model).walk(is_wrapper))


def built_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The pruning wrappers of a model by path.

    Raises:
      TypeError: `model` is not a Keras model or layer.
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
        if not compat.is_keras_attribute(layer, name) and name != template:
            yield from layers_in(name, value)


def layers_in(name: str, value: Any) -> Iterator[tuple[str, Layer]]:
    """The layers that an attribute holds, in lists and mappings too, with their paths."""
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from layers_in(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from layers_in(f"{name}.{i}", item)
