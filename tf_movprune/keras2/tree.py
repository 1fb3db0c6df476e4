"""Walking the layers of any Keras model by path, and putting other layers in their places."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.layer import PruneLowMovement


def is_graph_network(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model, which is changed by cloning."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and layer._is_graph_network
    )


def children(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Direct sublayers with their names: layer names in a graph, attribute paths elsewhere."""
    if is_graph_network(layer):
        yield from ((_original_name(child), child) for child in layer.layers)
        return
    # Bidirectional keeps the layer that it was given, and computes with copies of it.
    template = "layer" if isinstance(layer, keras.layers.Bidirectional) else None
    for name, value in vars(layer).items():
        if not _is_keras_internal(name) and name != template:
            yield from _layers_in(name, value)


def _original_name(layer: Layer) -> str:
    return layer.layer.name if isinstance(layer, PruneLowMovement) else layer.name


_KERAS_ATTRIBUTES = frozenset(vars(Layer())) | frozenset(vars(keras.Model()))


def _is_keras_internal(attribute: str) -> bool:
    """Whether Keras keeps its own books under a name: what any layer has, or gets later."""
    return attribute in _KERAS_ATTRIBUTES or attribute.startswith(
        ("_self_unconditional", "_self_name_based", "_obj_reference_counts")
    )


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Layer]]:
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{name}.{i}", item)


def walk(
    root: Layer, leaf: Callable[[Layer], bool] = lambda layer: False
) -> Iterator[tuple[str, Layer]]:
    """All layers below `root`, each once and under its first path, depth first.

    Nothing below a layer for which `leaf` is true is visited.
    """
    seen = {id(root)}

    def visit(parent: Layer, prefix: str) -> Iterator[tuple[str, Layer]]:
        for name, child in children(parent):
            if id(child) not in seen:
                seen.add(id(child))
                yield prefix + name, child
                if not leaf(child):
                    yield from visit(child, f"{prefix}{name}.")

    yield from visit(root, "")


def pruned_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The pruning wrappers of a model, by the paths of the layers that they wrap."""

    def is_wrapper(layer: Layer) -> bool:
        return isinstance(layer, PruneLowMovement)

    if is_wrapper(model):
        return {model.layer.name: model}
    return {path: layer for path, layer in walk(model, is_wrapper) if is_wrapper(layer)}


def replace_layers(root: Layer, replacements: dict[int, Layer]) -> Layer:
    """Puts layers in the place of others, wherever these are referenced.

    Sequential and Functional models are cloned around the same layers. Everything else is changed
    in place, and keeps the order of its weights.

    Args:
      root: a model or layer.
      replacements: the new layer for the `id` of the old one.

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
            if _is_keras_internal(name):
                continue
            olds = [child for _, child in _layers_in(name, value)]
            news = [replaced(child) for child in olds]
            if any(old is not new for old, new in zip(olds, news)):
                _set_attribute(layer, name, _rebuilt(value, replaced), olds)

    return replaced(root)


@contextlib.contextmanager
def unchanged(root: Layer) -> Iterator[None]:
    """Puts all attributes of all layers of a model back, at the end, to what they are now."""
    layers = [root, *(layer for _, layer in walk(root))]
    states = [_state(layer) for layer in layers]
    try:
        yield
    finally:
        for layer, state in zip(layers, states):
            vars(layer).clear()
            vars(layer).update(state)


def _state(layer: Layer) -> dict[str, Any]:
    """The attributes of a layer, with copies of the lists and mappings in which Keras keeps books.

    Nodes are among these: a layer gets more of them where a graph is cloned around it.
    """
    state = dict(vars(layer))
    for name, value in state.items():
        if _is_keras_internal(name) and isinstance(value, (list, dict, MutableMapping)):
            copied: Any = copy.copy(value)
            storage = getattr(value, "_storage", None)
            if isinstance(storage, dict):  # mappings by identity copy no deeper
                copied._storage = dict(storage)
            state[name] = copied
    return state


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
    """Assigns an attribute; it, and what Keras tracks for it, keep their places in their lists."""
    later_names = list(vars(layer))[list(vars(layer)).index(name) + 1 :]
    order = {id(item): i for i, item in enumerate(layer._self_tracked_trackables)}
    container = getattr(layer, name)
    place = min(
        (order[id(item)] for item in (container, *olds) if id(item) in order), default=len(order)
    )
    setattr(layer, name, value)
    tracked = layer._self_tracked_trackables
    new = [item for item in tracked if id(item) not in order]
    kept = [item for item in tracked if id(item) in order]
    place = sum(order[id(item)] < place for item in kept)
    layer._self_tracked_trackables = kept[:place] + new + kept[place:]
    for later in later_names:
        vars(layer)[later] = vars(layer).pop(later)


def forget_compilation(model: Layer) -> None:
    """Compiled functions were traced before the change, and the optimizer knows other variables."""
    if isinstance(model, keras.Model):
        model._reset_compile_cache()
        model._is_compiled = False
        model.optimizer = None
        functions = ("train_function", "train_tf_function", "test_function", "predict_function")
        for name in ("optimizer", *functions):
            model._delete_tracking(name)  # checkpoints would hold what the attribute was before
