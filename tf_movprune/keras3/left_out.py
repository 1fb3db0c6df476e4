"""Words for the matrices that are trained, and that the default choice of layers leaves dense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tf_movprune.core.wording import unreachable
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.keras_hub import inside_blocks
from tf_movprune.keras3.kernel_places import is_prunable
from tf_movprune.keras3.layer_tree import walk
from tf_movprune.keras3.output_layers import Outputs, is_matrix


def describe(model: Layer, outputs: Outputs | None) -> str | None:
    """Says what is left out and how it would be pruned; None if that is what anyone expects.

    Args:
      model: a model or layer.
      outputs: where its outputs come from; None if the blocks of backbones are pruned alone.
    """
    if not model.built:
        return None
    if outputs is not None:
        unheld = _unheld_matrices(model, outputs)
        return unreachable(_shapes(unheld), _share(model, unheld)) if unheld else None
    banks = _banks(model)
    if not banks:
        return None
    return (
        f"leaves out banks of matrices with {_share(model, banks)} of the weights, which no "
        f"prunable layer holds, such as {_shapes(banks)[0]}. To prune them, give each of their "
        "layers a get_prunable_weights() that returns them; to keep them dense, go on."
    )


def _banks(model: Layer) -> dict[str, Any]:
    """Kernels in blocks of backbones that no prunable layer holds, such as experts', by name."""
    inside = inside_blocks(model, walk(model, is_prunable))
    return {
        f"{path}.{weight.name}": weight
        for path, layer in inside.items()
        if not is_prunable(layer) and not type(layer).__module__.startswith("keras.")
        for weight in compat.own_attributes(layer).values()
        if compat.is_variable(weight) and len(weight.shape) > 2 and is_matrix(weight)
    }


def _unheld_matrices(model: Layer, outputs: Outputs) -> dict[str, Any]:
    """Matrices that multiply data, are trained, and belong to no layer that `walk` finds, by name.

    Layers of Keras and KerasHub that have no kernels to prune are left alone: nobody expects that a
    `DepthwiseConv2D` is pruned. In a model that was not traced, trained weights with two axes and
    more are taken for matrices that multiply data.
    """
    layers = walk(model, is_prunable)
    paths = {id(layer): path for path, layer in layers.items()}
    reached = (layer for layer in (model, *layers.values()) if is_prunable(layer))
    held = {id(weight) for layer in reached for weight in layer.weights}
    found = {}
    for layer in compat.all_layers(model):
        is_own = type(layer).__module__.startswith(("keras.", "keras_hub."))
        if is_own and not is_prunable(layer):
            continue
        for weight in compat.direct_trainable_weights(layer):
            if outputs.other_kernels is None:
                is_kernel = is_matrix(weight) and id(weight) not in held
            else:
                is_kernel = id(weight) in outputs.other_kernels
            if is_kernel:
                known = id(layer) in paths
                found[f"{paths[id(layer)]}.{weight.name}" if known else weight.path] = weight
    return found


def _shapes(weights: Mapping[str, Any]) -> list[str]:
    return [f"{name} {tuple(weight.shape)}" for name, weight in weights.items()]


def _share(model: Layer, weights: Mapping[str, Any]) -> str:
    size = sum(math.prod(weight.shape) for weight in weights.values())
    return f"{size / max(model.count_params(), 1):.0%}"
