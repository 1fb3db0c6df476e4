"""Refusing to save pruned models in ways in which they would not load again."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_movprune.keras2.compat import Layer, keras, registered_name
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.tree import is_graph_network, pruned_layers, walk


def guard_saving(model: Layer) -> None:
    """Makes `save_pretrained`, and saving without what was changed in place, raise."""
    _guard_save_pretrained(model)
    _guard_shared_masks(model)
    _guard_configs(model)


def unguard_saving(model: Layer) -> None:
    """Undoes `guard_saving`."""
    vars(model).pop("save_pretrained", None)
    vars(model).pop("save", None)
    for layer in _unwrapped_layers(model):
        if getattr(vars(layer).get("get_config"), "func", None) is _complete_config:
            del vars(layer)["get_config"]


def _guard_save_pretrained(model: Layer) -> None:
    """Hugging Face would save the unmasked weights, and load them without a word."""
    if hasattr(type(model), "save_pretrained"):

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise ValueError(
                f"{model.name!r} still has pruning wrappers, and save_pretrained would write its "
                "unmasked weights. Save what tf_movprune.strip_pruning(model) returns; to go on "
                "training later, use save_weights or tf.train.Checkpoint."
            )

        vars(model)["save_pretrained"] = refuse


def _guard_shared_masks(model: Layer) -> None:
    """Refused before Keras opens the file, of which nothing would be left."""
    sharing = [layer for layer in pruned_layers(model).values() if layer.shared_masks]
    if sharing and isinstance(model, keras.Model):

        def refuse(*args: Any, **kwargs: Any) -> None:
            sharing[0].get_config()  # raises

        vars(model)["save"] = refuse


def _guard_configs(model: Layer) -> None:
    """Keras would save a layer that was changed in place as its class makes it: without wrappers.

    Such a file does not load, or loads another model.
    """
    for layer in _unwrapped_layers(model):
        if not is_graph_network(layer) and pruned_layers(layer):
            vars(layer)["get_config"] = functools.partial(_complete_config, layer)


def _unwrapped_layers(model: Layer) -> list[Layer]:
    """A model and all layers in it, down to its wrappers, which are left out."""
    layers = [model, *(layer for _, layer in walk(model, _is_wrapper))]
    return [layer for layer in layers if not _is_wrapper(layer)]


def _is_wrapper(value: Any) -> bool:
    return isinstance(value, PruneLowMovement)


def _complete_config(layer: Layer) -> dict[str, Any]:
    """The configuration of a layer, if the wrappers inside the layer are all in it."""
    config = type(layer).get_config(layer)
    leaves, name = tf.nest.flatten(config), registered_name(PruneLowMovement)
    found = sum(isinstance(leaf, str) and leaf == name for leaf in leaves)
    found += sum(len(pruned_layers(leaf)) for leaf in leaves if isinstance(leaf, Layer))
    inside = pruned_layers(layer).values()
    if found < len(inside):
        # To Keras NotImplementedError means a layer without configuration. SavedModels do without,
        # but do not bring back wrappers of attention.
        lost = any(isinstance(w.layer, keras.layers.MultiHeadAttention) for w in inside)
        raise (ValueError if lost else NotImplementedError)(
            f"{layer.name!r} ({type(layer).__name__}) has pruning wrappers inside that its "
            "get_config() does not tell of: a file of the whole model would not load. Use "
            "save_weights or tf.train.Checkpoint, and load into a fresh model that is pruned in "
            "the same way; or save what tf_movprune.strip_pruning returns."
        )
    return config
