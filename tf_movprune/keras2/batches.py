"""What tf_keras models and losses tell and take in distillation: final activations, masks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_movprune.core.distillation_batches import Target, packed
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.layer import PruneLowMovement


def ends_in_probabilities(model: keras.Model) -> bool:
    """Returns whether all outputs of a graph of layers come out of a softmax or sigmoid."""
    if isinstance(model, keras.Sequential):
        ends = model.layers[-1:]
    elif is_graph_network(model):
        ends = [node.layer for node in compat.output_nodes(model)]
    else:
        return False
    return all(map(_gives_probabilities, ends))


def _gives_probabilities(layer: Layer) -> bool:
    layer = layer.layer if isinstance(layer, PruneLowMovement) else layer
    if isinstance(layer, keras.Model):
        return ends_in_probabilities(layer)
    activation = getattr(layer, "activation", None)
    if type(layer) is keras.layers.Activation and activation is keras.activations.linear:
        # Linear activations are casts under mixed precision.
        parents = [p.layer for node in compat.call_nodes(layer) for p in node.parent_nodes]
        return bool(parents) and all(map(_gives_probabilities, parents))
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(layer, keras.layers.Softmax) or activation in probabilities


def keras_arguments(
    outputs: Any, logits: dict[str, tf.Tensor], targets: dict[str, Target], fill: bool = False
) -> tuple[Any, Any, Any]:
    """Labels, logits and weights for Keras's losses and metrics, which honour masks.

    With `fill`, a mask without valid positions becomes one in which all are valid, with weight 0:
    Keras's losses divide by the number of valid positions.
    """

    def mask(target: Target) -> tf.Tensor | None:
        if target.valid is None or not fill:
            return target.valid
        return target.valid | ~tf.reduce_any(target.valid)

    return (
        packed({name: target.labels for name, target in targets.items()}, outputs),
        packed({name: _with_mask(logits[name], mask(t)) for name, t in targets.items()}, outputs),
        packed({name: target.weights for name, target in targets.items()}, outputs),
    )


def _with_mask(logits: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """A copy in float32 that carries a mask where Keras looks for it."""
    return compat.attach_keras_mask(tf.identity(tf.cast(logits, tf.float32)), mask)
