"""Counts of the entries that remain in each weight of a tf_keras model."""

from __future__ import annotations

import numpy as np

from tf_movprune.core.remaining import Row, remaining_rows
from tf_movprune.keras2.compat import Layer, check_keras_object
from tf_movprune.keras2.kernel_attributes import prunable_weights, short_names
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.targets import default_targets

# Kernels that were not pruned have few zeros: the row of a padding token, among thousands.
_MOST_REMAINING = 0.99


def remaining_weights(model: Layer) -> list[Row]:
    """The path, shape, number of remaining entries and group of each prunable weight.

    Args:
      model: a pruned model, whose masks are counted, or a plain one, whose zeros are counted: in
        the layers that are pruned by default, and in others that have enough zeros to be pruned.
    """
    check_keras_object(model)
    tree = LayerTree(model)
    wrappers = tree.pruned_layers()
    if not wrappers:
        return _zeros(tree)
    return remaining_rows(
        {
            path: (wrapper.kernels, short_names(wrapper.get_prunable_weights()))
            for path, wrapper in wrappers.items()
        }
    )


def _zeros(tree: LayerTree) -> list[Row]:
    targets = {id(layer): path for path, layer in default_targets(tree).items()}
    rows: list[Row] = []
    for path, layer in tree.walk(is_prunable):
        if not is_prunable(layer) or not (id(layer) in targets or layer.built):
            continue
        kernels = [
            (name, weight, np.count_nonzero(weight))
            for name, weight in short_names(prunable_weights(layer))
        ]
        if id(layer) in targets or any(
            count <= _MOST_REMAINING * weight.shape.num_elements() for _, weight, count in kernels
        ):
            rows.extend(
                (f"{targets.get(id(layer), path)}.{name}", tuple(weight.shape), int(count), "zeros")
                for name, weight, count in kernels
            )
    return rows
