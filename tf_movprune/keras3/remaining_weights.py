"""Counts of the entries that remain in each weight of a Keras 3 model."""

from __future__ import annotations

from tf_movprune.core.remaining import Row, remaining_rows, zero_rows
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.layer_tree import named_kernels, named_weights, pruned_layers
from tf_movprune.keras3.targets import default_targets, prunable_layers


def remaining_weights(model: Layer) -> list[Row]:
    """The path, shape, number of remaining entries and group of each prunable weight.

    Args:
      model: a pruned model, whose masks are counted, or a plain one, whose zeros are counted: in
        the layers that are pruned by default, and in others that have enough zeros to be pruned.
    """
    compat.check_keras_object(model)
    layers = pruned_layers(model)
    if not layers:
        return _zeros(model)
    return remaining_rows(named_kernels(layers))


def _zeros(model: Layer) -> list[Row]:
    defaults = {id(layer) for layer in default_targets(model).values()}
    return zero_rows(
        (path, id(layer) in defaults, named_weights(layer))
        for path, layer in prunable_layers(model).items()
        if layer.built
    )
