"""Counts of the entries that remain in each weight of a tf_keras model."""

from __future__ import annotations

from tf_movprune.core.remaining import Row, remaining_rows, zero_rows
from tf_movprune.keras2.compat import Layer, check_keras_object
from tf_movprune.keras2.kernel_attributes import prunable_weights, short_names
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, named_kernels
from tf_movprune.keras2.targets import default_targets


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
    return remaining_rows(named_kernels(wrappers))


def _zeros(tree: LayerTree) -> list[Row]:
    defaults = {id(layer): path for path, layer in default_targets(tree).items()}
    return zero_rows(
        (
            defaults.get(id(layer), path),
            id(layer) in defaults,
            short_names(prunable_weights(layer)),
        )
        for path, layer in tree.walk(is_prunable)
        if is_prunable(layer) and (id(layer) in defaults or layer.built)
    )
