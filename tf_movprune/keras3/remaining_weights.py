"""Counts of the entries that remain in each weight of a Keras 3 model."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_movprune.core.remaining import Row, remaining_rows
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import kernel_places
from tf_movprune.keras3.layer_tree import pruned_layers
from tf_movprune.keras3.pruning_state import state_of
from tf_movprune.keras3.targets import default_targets, prunable_layers

# Kernels that were not pruned have few zeros: the row of a padding token, among thousands.
_MOST_REMAINING = 0.99


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
    return remaining_rows(
        {path: (state_of(layer).kernels, _named(layer)) for path, layer in layers.items()}
    )


def _named(layer: Layer) -> list[tuple[str, tf.Variable]]:
    """The prunable weights of a layer with their names."""
    return [(p.short_name, compat.tensorflow_variable(p.variable)) for p in kernel_places(layer)]


def _zeros(model: Layer) -> list[Row]:
    targets = {id(layer) for layer in default_targets(model).values()}
    rows: list[Row] = []
    for path, layer in prunable_layers(model).items():
        if not layer.built:
            continue
        arrays = [(f"{path}.{name}", np.array(variable)) for name, variable in _named(layer)]
        if id(layer) in targets or any(
            np.count_nonzero(array) <= _MOST_REMAINING * array.size for _, array in arrays
        ):
            rows += [(name, a.shape, int(np.count_nonzero(a)), "zeros") for name, a in arrays]
    return rows
