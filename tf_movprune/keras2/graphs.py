"""Graphs of layers, called again with other layers in them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, keras

_EARLIER = "_earlier_graph"  # attribute of a model that was built in the place of another graph


def layers_of_graph(model: keras.Model) -> list[Layer]:
    """The layers that compute a Sequential or Functional model, without its inputs."""
    nodes = compat.graph_nodes(model)
    layers = [node.layer for node in nodes] if nodes else model.layers
    unique = {id(layer): layer for layer in layers}
    return [x for x in unique.values() if not isinstance(x, keras.layers.InputLayer)]


def rebuild(
    model: keras.Model, replaced: Callable[[Any], Any], *, for_a_while: bool = False
) -> keras.Model:
    """A Sequential or Functional model that computes with other layers.

    A model of one of Keras's own classes is cloned, with its losses and attributes. Others keep
    their class and all that their class adds to it: they get the graph of the clone in place. Where
    a graph was rebuilt before, and its layers are those asked for now, it is put back, so that the
    tensors of its layers are those of before.

    Args:
      model: a Sequential or Functional model, or one of a subclass.
      replaced: gives what stands in the place of a layer, or of an attribute that holds layers.
      for_a_while: whether the graph is remembered.
    """
    earlier = vars(model).get(_EARLIER)
    if earlier is not None and earlier.has_layers(map(replaced, layers_of_graph(model))):
        _forget_calls(model)
        return earlier.put_back(model, replaced)
    clone = _clone(model, replaced)
    if _is_plain(model):
        _copy_attributes(model, clone, replaced)
        if for_a_while:
            vars(clone)[_EARLIER] = _Earlier(model, None)
        return clone
    layers, before = layers_of_graph(model), compat.graph_state(model)
    in_graph = {id(layer) for layer in layers}
    others = [
        item
        for item in compat.tracked_items(model)
        if id(item) not in in_graph and not isinstance(item, keras.layers.InputLayer)
    ]
    vars(model).update(compat.graph_state(clone))
    compat.reorder_tracked_items(model, [*compat.tracked_items(model), *others])
    vars(model).pop(_EARLIER, None)
    if for_a_while:
        vars(model)[_EARLIER] = _Earlier(model, (before, layers))
    return model


class _Earlier:
    """The graph in whose place another was built.

    Args:
      model: the model that had it.
      state: its state and its layers, if the model itself has another graph now; None if another
        model was made.
    """

    def __init__(self, model: keras.Model, state: tuple[dict[str, Any], list[Layer]] | None):
        self._model, self._state = model, state

    def has_layers(self, layers: Any) -> bool:
        own = layers_of_graph(self._model) if self._state is None else self._state[1]
        return {id(layer) for layer in layers} == {id(layer) for layer in own}

    def put_back(self, model: keras.Model, replaced: Callable[[Any], Any]) -> keras.Model:
        build = compat.builder_like(model)  # the earlier graph may not have been built yet
        if self._state is None:
            _copy_attributes(model, self._model, replaced)
        else:
            vars(model).update(self._state[0])
            del vars(model)[_EARLIER]
        build(self._model)
        return self._model


def _is_plain(model: keras.Model) -> bool:
    """Returns whether a model is nothing but its graph, its losses and attributes with values."""
    is_own = type(model) in (keras.Sequential, compat.Functional)
    return is_own and not any(hasattr(type(model), name) for name in compat.own_attributes(model))


def _clone(model: keras.Model, replaced: Callable[[Layer], Layer]) -> keras.Model:
    tensors: dict[int, Any] = {}

    def mapped(structure: Any) -> Any:
        return tf.nest.map_structure(lambda x: tensors.get(id(x), x), structure)

    def remember(old: Any, new: Any) -> None:
        for a, b in zip(tf.nest.flatten(old), tf.nest.flatten(new)):
            tensors[id(a)] = b

    def call(node: Any) -> Any:
        layer = replaced(node.layer)
        remember(node.outputs, layer(*mapped(node.call_args), **mapped(node.call_kwargs)))
        return compat.call_nodes(layer)[-1]

    calls = [node for node, depth in compat.calls_in_order(model) if depth >= 0]
    if isinstance(model, keras.Sequential):
        clone = keras.models.clone_model(compat.bare_sequence(model), clone_function=replaced)
        for node, (new, _) in zip(calls, compat.calls_in_order(clone)):
            remember(node.outputs, new.outputs)
    else:
        for tensor, layer in zip(model.inputs, compat.input_layers(model)):
            remember(tensor, keras.layers.InputLayer(**layer.get_config()).output)
        for node in calls:
            call(node)
        inputs, outputs = compat.graph_ends(model)
        clone = keras.Model(mapped(inputs), mapped(outputs), name=model.name)
    added = [call(node) for node, depth in compat.calls_in_order(model) if depth < 0]
    compat.insert_losses_and_metrics(clone, added, model.metrics_names)
    compat.copy_settings(model, clone)
    return clone


def _copy_attributes(
    model: keras.Model, clone: keras.Model, replaced: Callable[[Any], Any]
) -> None:
    """Gives a clone the losses and attributes that were added to a model."""
    losses = compat.callable_losses(clone)
    losses.extend(loss for loss in compat.callable_losses(model) if loss not in losses)
    for name in compat.own_attributes(model):
        if name == _EARLIER:
            continue
        value = getattr(model, name)
        if inspect.ismethod(value) and value.__self__ is model:
            value = types.MethodType(value.__func__, clone)
        setattr(clone, name, replaced(value))


def _forget_calls(model: keras.Model) -> None:
    """Removes the calls that a graph made from layers that other graphs share with it."""
    for call, _ in reversed(compat.calls_in_order(model)):
        if compat.call_nodes(call.layer)[-1:] == [call]:  # removing others would renumber calls
            compat.forget_last_call(call.layer)
