"""Guards against saving pruned models in ways in which they would not load again."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_movprune.core.granularity import Blocks
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import (
    Layer,
    PlainSGD,
    check_keras_object,
    is_graph_network,
    keras,
    registered_name,
)
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import LayerTree, pruned_layers
from tf_movprune.keras2.optimizers import LinearWarmupDecay, MovementAdamW
from tf_movprune.keras2.serialization import SERIALIZABLE


def guard_saving(tree: LayerTree) -> None:
    """Makes `save_pretrained` raise, and saving that would lose what was changed in place.

    Args:
      tree: layer tree of a pruned model.
    """
    hugging_face.refuse_saving(tree.root)
    _refuse_shared_kernels(tree)
    for layer in tree.holders():
        # Keras would save a layer that was changed in place as its class makes it, without
        # wrappers. The file would not load, or would load another model.
        if not is_graph_network(layer):
            vars(layer)["get_config"] = functools.partial(_complete_config, layer)


def unguard_saving(tree: LayerTree) -> None:
    """Undoes `guard_saving`."""
    hugging_face.allow_saving(tree.root)
    vars(tree.root).pop("save", None)
    for layer in tree.layers():
        if getattr(vars(layer).get("get_config"), "func", None) is _complete_config:
            del vars(layer)["get_config"]


def _refuse_shared_kernels(tree: LayerTree) -> None:
    """Refuses to save before Keras opens the file, which would be lost."""
    sharing = [
        layer
        for layer in tree.pruned_layers().values()
        if not isinstance(layer.settings.block_size, Blocks)
    ]
    if sharing and isinstance(tree.root, keras.Model):

        def refuse(*args: Any, **kwargs: Any) -> None:
            sharing[0].get_config()  # raises

        vars(tree.root)["save"] = refuse


def _complete_config(layer: Layer) -> dict[str, Any]:
    """The configuration of a layer, if it contains all wrappers inside the layer."""
    config = type(layer).get_config(layer)
    leaves, name = tf.nest.flatten(config), registered_name(PruneLowMovement)
    found = sum(isinstance(leaf, str) and leaf == name for leaf in leaves)
    found += sum(len(pruned_layers(leaf)) for leaf in leaves if isinstance(leaf, Layer))
    inside = pruned_layers(layer).values()
    if found < len(inside):
        # Keras takes NotImplementedError for a layer without configuration. SavedModels need none,
        # but do not bring back wrappers of attention.
        lost = any(isinstance(w.layer, keras.layers.MultiHeadAttention) for w in inside)
        raise (ValueError if lost else NotImplementedError)(
            f"{layer.name!r} ({type(layer).__name__}) has pruning wrappers inside that its "
            "get_config() does not tell of: a file of the whole model would not load. Use "
            "save_weights or tf.train.Checkpoint, and load into a fresh model that is pruned in "
            "the same way; or save what tf_movprune.strip_pruning returns."
        )
    return config


def prune_scope():
    """Returns a scope in which files of whole pruned models load, with their optimizers.

    with tf_movprune.prune_scope():
        model = tf_keras.models.load_model("pruned.keras")
    """
    classes = (PruneLowMovement, *SERIALIZABLE, MovementAdamW, LinearWarmupDecay, PlainSGD)
    return keras.saving.custom_object_scope({cls.__name__: cls for cls in classes})


def check_stripped(model: Any) -> None:
    """Raises TypeError if `model` is not a Keras model, ValueError if it is still pruned."""
    check_keras_object(model, keras.Model, "a tf_keras model")
    if pruned_layers(model):
        raise ValueError(
            f"{model.name!r} still has pruning wrappers. Use what "
            "tf_movprune.strip_pruning(model) returns."
        )
