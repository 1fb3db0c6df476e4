"""The weights of a tf_keras model by name, read and assigned."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_movprune.core.named_weights import NamedWeight, renumbered, unique_names
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import check_keras_object, keras
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.saving import check_stripped
from tf_movprune.keras2.targets import default_targets


def named_weights(model: keras.Model) -> list[NamedWeight]:
    """The weights of a stripped model, in its order.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: `model` has pruning wrappers, or no weights.
    """
    check_stripped(model)
    if not (model.built and model.weights):
        raise ValueError(
            f"{model.name!r} has no weights. Call the model once on example inputs before "
            "exporting."
        )
    tree = LayerTree(model)
    parts: dict[int, str] = {}
    pruned = {id(layer) for layer in default_targets(tree).values()}
    for path, layer in tree.walk():
        part = None
        if hugging_face.is_in_encoder_layer(f"{path}.") or id(layer) in pruned:
            part = "encoder"
        elif isinstance(layer, keras.layers.Embedding) or "embeddings" in path.split("."):
            part = "embeddings"
        if part:
            for weight in layer.weights:
                parts.setdefault(id(weight), part)
    names = unique_names(weight.name for weight in model.weights)
    return [
        NamedWeight(name, parts.get(id(weight), "other"), weight.numpy())
        for name, weight in zip(names, model.weights)
    ]


def assign_weights(
    model: keras.Model, arrays: Mapping[str, np.ndarray], path: str | pathlib.Path
) -> None:
    """Gives a model the weights of a file.

    Names may differ in the numbers that Keras gives to layers, if their order is the same.

    Args:
      model: built model without wrappers.
      arrays: arrays by name.
      path: path of the file, for messages.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: `model` has pruning wrappers, or names or shapes are not those of its weights. No
        weight has changed then.
    """
    check_keras_object(model, keras.Model, "a built tf_keras model")
    check_stripped(model)
    variables = dict(zip(unique_names(weight.name for weight in model.weights), model.weights))
    if set(arrays) != set(variables):
        variables = dict(zip(renumbered(variables), variables.values()))
        arrays = dict(zip(renumbered(arrays), arrays.values()))
    missing = [name for name in variables if name not in arrays]
    extra = [name for name in arrays if name not in variables]
    if missing or extra:
        raise ValueError(
            f"The weights in {path} are not those of {model.name!r}. Missing in the file: "
            f"{_listed(missing)}. Missing in the model: {_listed(extra)}. (Numbers of layers are "
            "counted anew here.) Build the model that was written, and call it once."
        )
    pairs = [(variables[name], array) for name, array in arrays.items()]
    wrong = [
        f"{variable.name} {tuple(variable.shape)}, in the file {array.shape}"
        for variable, array in pairs
        if tuple(variable.shape) != array.shape
    ]
    if wrong:
        raise ValueError(f"Shapes in {path} are not those of {model.name!r}: {_listed(wrong)}.")
    for variable, array in pairs:
        variable.assign(tf.cast(array, variable.dtype))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more
