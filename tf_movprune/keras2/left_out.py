"""Words for the matrices that are trained, and that the default choice of layers leaves dense."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable
from typing import Any

import tensorflow as tf

from tf_movprune.core.variable_names import last_name
from tf_movprune.core.wording import counted, listed, unreachable
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.output_layers import Outputs, is_matrix
from tf_movprune.keras2.policies import blocks_of


def describe(tree: LayerTree, chosen: Collection[Layer], outputs: Outputs) -> str | None:
    """Says what is left out and how it would be pruned; None if that is what anyone expects.

    Embeddings, recurrent layers and output layers are expected. Not expected are layers of
    transformer blocks, and matrices that no prunable layer holds.

    Args:
      tree: layer tree of a model.
      chosen: the layers that are pruned.
      outputs: where its outputs come from.
    """
    model = tree.root
    if not model.built:
        return None
    parts = []
    ids = {id(layer) for layer in chosen}
    blocks = blocks_of(tree)
    dense = {path: v for path, v in blocks.items() if id(v) not in ids and v.built}
    if dense:
        pruned = _share(model, [w for layer in chosen for w in prunable_weights(layer)])
        share = _share(model, [w for layer in dense.values() for w in prunable_weights(layer)])
        patterns = listed(_patterns(dense, blocks.keys() - dense.keys()))
        parts.append(
            f"prunes {pruned} of the weights, and leaves out {counted(len(dense), 'layer')} of "
            f"transformer blocks with {share} of the weights: {patterns}. To prune them too, pass "
            "pruning_policy=tf_movprune.PruneTransformerBlocks()."
        )
    unheld = unheld_matrices(tree, outputs)
    if unheld:
        names = [f"{name} {tuple(weight.shape)}" for name, weight in unheld.items()]
        is_own_code = not hugging_face.is_of_transformers(model)
        parts.append(unreachable(names, _share(model, unheld.values()), can_be_held=is_own_code))
    return " It ".join(parts) or None


def unheld_matrices(tree: LayerTree, outputs: Outputs) -> dict[str, tf.Variable]:
    """Matrices that multiply data, are trained, and belong to no prunable layer, by name.

    Keras's own layers are left alone: nobody expects that a `DepthwiseConv2D` is pruned. In a model
    that was not traced, and in the transformer blocks of Hugging Face models, trained weights with
    two axes and more are taken for matrices that multiply data.
    """
    holders: dict[int, tuple[str, Layer]] = {}
    held: set[int] = set()
    for path, layer in tree.walk(is_prunable):  # deeper layers come later
        holders.update((id(weight), (path, layer)) for weight in layer.trainable_weights)
        if is_prunable(layer):
            held.update(id(weight) for weight in layer.weights)
    weights: Iterable[Any] = outputs.other_kernels or ()
    if outputs.other_kernels is None:
        weights = (w for w in tree.root.trainable_weights if is_matrix(w) and id(w) not in held)
    found = {}
    for weight in weights:
        path, holder = holders.get(id(weight), ("", tree.root))
        name = last_name(weight.name)
        if hugging_face.is_of_transformers(tree.root):
            is_kernel = hugging_face.is_kernel(path, name)
        else:
            is_kernel = not compat.is_own_layer(holder)
        if is_kernel:
            found[f"{path}.{name}".lstrip(".")] = weight
    return found


def _share(model: Layer, weights: Iterable[Any]) -> str:
    sizes = {id(weight): weight.shape.num_elements() for weight in weights}
    return f"{sum(sizes.values()) / max(model.count_params(), 1):.0%}"


def _patterns(paths: Iterable[str], others: Collection[str]) -> list[str]:
    """Patterns that match paths, and none of the others: of whole blocks if possible."""
    found: dict[str, None] = {}
    for path in paths:
        pattern = re.sub(r"\.\d+\..*", ".*", path)
        if any(fnmatch.fnmatchcase(other, pattern) for other in others):
            pattern = re.sub(r"\.\d+\.", ".*.", path)
        found[pattern] = None
    return list(found)
