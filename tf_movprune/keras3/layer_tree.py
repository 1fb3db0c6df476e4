"""The layers of any Keras 3 model by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.finite_check import by_innermost
from tf_movprune.core.masked_kernel import MaskedKernel, each_once
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import kernel_places
from tf_movprune.keras3.movement_mask import MovementMask
from tf_movprune.keras3.pruning_state import is_pruned, state_of


def walk(root: Layer, leaf: Callable[[Layer], bool] = lambda _: False) -> dict[str, Layer]:
    """All layers below a model or layer by path, each once and under its first path, depth first.

    A path consists of layer names in Sequential and Functional models and of attribute names
    elsewhere.

    Args:
      root: a model or layer.
      leaf: predicate; nothing below a layer for which it is true is visited.
    """
    found: dict[str, Layer] = {}
    seen = {id(root)}

    def visit(parent: Layer, prefix: str) -> None:
        for name, child in children(parent):
            if id(child) in seen:
                continue
            seen.add(id(child))
            path = prefix + name
            while path in found:
                path += "'"
            found[path] = child
            if not leaf(child):
                visit(child, f"{path}.")

    visit(root, "")
    return found


def pruned_layers(model: Layer) -> dict[str, Layer]:
    """The pruned layers of a model by path; a layer by itself has its own name."""
    compat.check_keras_object(model)
    if is_pruned(model):
        return {model.name: model}
    return {path: layer for path, layer in walk(model, is_pruned).items() if is_pruned(layer)}


def kernels_of(layers: Iterable[Layer]) -> list[MaskedKernel]:
    """The masked kernels of pruned layers, each once, however many layers share it."""
    return each_once(kernel for layer in layers for kernel in state_of(layer).kernels)


def kernels_by_path(layers: Mapping[str, Layer]) -> dict[str, list[MaskedKernel]]:
    """The masked kernels of each of the pruned layers."""
    return {path: state_of(layer).kernels for path, layer in layers.items()}


def named_kernels(
    layers: Mapping[str, Layer],
) -> dict[str, tuple[list[MaskedKernel], list[tuple[str, tf.Variable]]]]:
    """The masked kernels of each of the pruned layers, and its prunable weights by name."""
    return {path: (state_of(layer).kernels, named_weights(layer)) for path, layer in layers.items()}


def named_weights(layer: Layer) -> list[tuple[str, tf.Variable]]:
    """The prunable weights of a layer with their names."""
    return [(p.short_name, compat.tensorflow_variable(p.variable)) for p in kernel_places(layer)]


def trainable_weights(model: Layer) -> dict[str, list[tf.Variable]]:
    """The trainable weights of a model, by the path of the innermost layer that has them."""
    found = by_innermost(model, walk(model, is_pruned).items())
    return {path: [*map(compat.tensorflow_variable, weights)] for path, weights in found.items()}


def built_layers(model: Layer) -> dict[str, Layer]:
    """The pruned layers of a model by path.

    Raises:
      TypeError: `model` is not a Keras model or layer.
      ValueError: there are none.
    """
    layers = pruned_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name!r} has no pruned layers. Call tf_movprune.prune_low_movement on the "
            "model first."
        )
    return layers


def holders(model: Layer) -> list[Layer]:
    """The model and the layers below it that have pruned layers inside, at whatever depth."""
    layers = [model, *walk(model, is_pruned).values()]
    return [layer for layer in layers if not is_pruned(layer) and pruned_layers(layer)]


def children(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """The layers that a layer holds, by name: those of its graph if it has one."""
    if compat.is_graph_network(layer):
        yield from ((child.name, child) for child in layer.layers)
        return
    for name, value in compat.own_attributes(layer).items():
        # A bidirectional layer keeps the layer that it was given, and computes with copies of it.
        if not (isinstance(layer, keras.layers.Bidirectional) and name == "layer"):
            yield from _layers_in(name, value)


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Layer]]:
    """The layers that an attribute holds, in lists and mappings too, with their paths."""
    if isinstance(value, MovementMask):
        return
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _layers_in(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{name}.{i}", item)
