"""Physical removal of the attention heads and neurons that pruning left empty."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.empty_units import (
    Cut,
    KeptUnits,
    Matrices,
    Matrix,
    blank,
    check_has_weights,
    fold_empty_units,
    removed_of_each_kind,
    warn_of_nothing_removed,
)
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.variable_names import plain_name
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, forget_compilation, keras
from tf_movprune.keras2.encoder_configs import keep_recorded, record_sizes, replace_config
from tf_movprune.keras2.kernel_attributes import build_attention
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.neurons import Neurons
from tf_movprune.keras2.replacement import replace_layers, unchanged, undone_on_error
from tf_movprune.keras2.saving import check_stripped
from tf_movprune.keras2.training_guard import unguard_training
from tf_movprune.keras2.units import Heads, find_units, heads_of


def compact(model: keras.Model, *, multiple_of: int = 1) -> keras.Model:
    """Removes empty heads and neurons; see `tf_movprune.compact`."""
    return compact_and_tell(model, multiple_of=multiple_of)[0]


def compact_and_tell(model: keras.Model, *, multiple_of: int = 1) -> tuple[keras.Model, Cut]:
    """Does `compact`, and tells how the weights were cut."""
    check_stripped(model)
    multiple_of = check_integer("multiple_of", multiple_of, example=8, minimum=1)
    check_has_weights(model)
    tree = LayerTree(model)
    units, weights = fold_empty_units(find_units(tree), multiple_of=multiple_of)
    if all(unit.keeps_all for unit in units):
        warn_of_nothing_removed(model.name)
        return model, Cut(units)
    with undone_on_error(model):
        record_sizes(tree, units)
        smaller = _rebuilt(model, units, weights)
        forget_compilation(smaller)
        LayerTree(smaller).forget_traces()
        unguard_training(smaller)  # nothing that could come back is left
    return smaller, Cut(units)


@contextlib.contextmanager
def compacted(
    model: keras.Model, rows: int = 1, min_sparsity: float = 0.0
) -> Iterator[tuple[keras.Model, dict[str, tuple[int, int]]]]:
    """Compacts a model for the duration of a context; changes in place are undone at its end.

    Args:
      model: built model without wrappers.
      rows: rows of a block. If at least `min_sparsity` of the blocks that are left in a kernel are
        zero, only whole blocks are removed from it, so that the other blocks stay what they are.
      min_sparsity: fraction of the blocks.

    Yields:
      The smaller model, and the numbers of removed and of all `"heads"` and `"neurons"`.
    """
    units, weights = fold_empty_units(find_units(LayerTree(model)), rows, min_sparsity)
    removed = removed_of_each_kind(units)
    if all(unit.keeps_all for unit in units):
        yield model, removed
        return
    with unchanged(model):
        yield _rebuilt(model, units, weights), removed


def load_compacted(
    path: str | os.PathLike[str], model_class: type[keras.Model] | None = None
) -> keras.Model:
    """Loads a compacted Hugging Face TF model from what its `save_pretrained` wrote.

    Args:
      path: folder that `save_pretrained` wrote.
      model_class: Hugging Face class of the model, if it is not one of `transformers`.

    Returns:
      The model, as it was saved.

    Raises:
      ValueError: no compacted TF model is there, its class is not known, or its weights are not
        those that its configuration describes.
    """
    config, weights, model_class = hugging_face.read_compacted(path, model_class)
    model = resized(model_class(config))
    hugging_face.load_weights(model, weights)
    return model


def check_model_class(model_class: Any) -> None:
    """Raises TypeError if a class is given and is none of Hugging Face's models."""
    hugging_face.check_compacted_class(model_class)


def resized(model: keras.Model) -> keras.Model:
    """Resizes a Hugging Face model to the heads and neurons of its configuration.

    Its weights are arbitrary thereafter.

    Raises:
      ValueError: the configuration leaves other heads and neurons than the model could have.
    """
    hugging_face.build(model)
    tree = LayerTree(model)
    groups = find_units(tree)
    units, weights = [KeptUnits(group) for group in groups], Matrices(groups)
    return _rebuilt(model, units, weights) if keep_recorded(tree, units, weights) else model


def in_sizes(
    model_class: type[keras.Model], config: Any, sizes: Sequence[EncoderSizes]
) -> keras.Model:
    """Makes a Hugging Face model with one encoder of some sizes, and arbitrary weights.

    Most of the memory of a model of full size is never taken.

    Args:
      model_class: class of the model.
      config: configuration of the model, which tells the sizes.
      sizes: what each encoder layer has.
    """
    narrow = hugging_face.with_one_neuron(config)
    model = model_class(narrow)
    hugging_face.build(model)
    groups = find_units(LayerTree(model))
    units, weights = [KeptUnits(group) for group in groups], Matrices(groups, blank)
    for heads, neurons, size in zip(units[::2], units[1::2], sizes, strict=True):
        heads.keep(np.array(size.heads), weights)
        neurons.resize(size.neurons, weights)
    resized = _rebuilt(model, units, weights)
    replace_config(LayerTree(resized), narrow, config)
    return resized


# ---- smaller layers


def _rebuilt(model: keras.Model, units: Sequence[KeptUnits], weights: Matrices) -> keras.Model:
    """The model with smaller layers; the layers that they replace are left as they were."""
    replacements: dict[int, Layer] = {}
    layers = {id(layer): layer for unit in units for layer in (*unit.sources, unit.reader)}
    for key, layer in layers.items():
        if isinstance(layer, keras.layers.Dense) and not weights[key].is_that_of(layer):
            replacements[key] = _smaller_dense(layer, weights[key])
    for unit in units:
        attention = unit.group
        if isinstance(attention, Neurons) or unit.keeps_all:
            continue
        owner = attention.owner
        if attention.attributes is None:
            replacements[id(owner)] = _smaller_attention(attention, len(unit.kept), weights)
        else:
            for name, per_head in attention.attributes.items():
                setattr(owner, name, per_head * len(unit.kept))
    rebuilt = replace_layers(model, replacements)
    if not rebuilt.built:  # a Sequential model that was made without an Input
        rebuilt.build((None, *compat.sequential_input_shape(model)[1:]))
    return rebuilt


def _smaller_dense(layer: keras.layers.Dense, matrix: Matrix) -> keras.layers.Dense:
    inputs, units = matrix.kernel.shape
    smaller = keras.layers.Dense.from_config({**layer.get_config(), "units": units})
    with _scope_of(layer.kernel, 1):
        smaller.build([None, inputs])
    matrix.write(smaller)
    return smaller


def _smaller_attention(
    attention: Heads, heads: int, weights: Matrices
) -> keras.layers.MultiHeadAttention:
    config = {**attention.owner.get_config(), "num_heads": heads}
    smaller = keras.layers.MultiHeadAttention.from_config(config)
    with _scope_of(attention.query.kernel, 3):
        build_attention(smaller)
    new = heads_of(smaller)
    pairs = zip((*attention.sources, attention.reader), (*new.sources, new.reader))
    for old_dense, dense in pairs:
        weights[id(old_dense)].write(dense)
        dense.trainable = old_dense.trainable
    return smaller


def _scope_of(variable: tf.Variable, levels: int) -> contextlib.AbstractContextManager[Any]:
    """The name scope a number of levels above a variable."""
    scope = "/".join(plain_name(variable.name).split("/")[:-levels])
    return tf.name_scope(scope + "/") if scope else contextlib.nullcontext()
