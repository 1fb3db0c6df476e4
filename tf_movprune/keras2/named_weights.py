"""The weights of a tf_keras model by name, read and assigned."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.named_weights import NamedWeight, renumbered, unique_names
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import check_keras_object, keras
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.saving import check_stripped
from tf_movprune.keras2.targets import default_targets
from tf_movprune.keras2.vocabularies import (
    PreprocessingLayer,
    Vocabulary,
    recompute_constants,
    vocabulary_of,
)


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
    exact: set[int] = set()
    pruned = {id(layer) for layer in default_targets(tree).values()}
    is_in_block = hugging_face.is_in_encoder_layer
    if hugging_face.is_hugging_face(model):
        is_in_block = hugging_face.is_in_block  # of decoders too
    for path, layer in tree.walk():
        part = None
        if isinstance(layer, PreprocessingLayer):
            exact |= {id(weight) for weight in layer.weights}
        if id(layer) in pruned or is_in_block(f"{path}."):
            part = "layers"
        elif isinstance(layer, keras.layers.Embedding) or "embeddings" in path.split("."):
            part = "embeddings"
        if part:
            for weight in layer.weights:
                parts.setdefault(id(weight), part)
    return [
        NamedWeight(name, parts.get(id(weight), "other"), weight.numpy(), id(weight) in exact)
        for name, weight in _weights_by_name(tree).items()
    ]


def _weights_by_name(tree: LayerTree) -> dict[str, tf.Variable | Vocabulary]:
    weights = [
        weight if isinstance(weight, tf.Variable) else vocabulary_of(tree, weight)
        for weight in tree.root.weights
    ]
    return dict(zip(unique_names(weight.name for weight in weights), weights))


def check_loadable(model: keras.Model | type) -> None:
    """Checks that weights of a file can be assigned to a model, or to one made from its class.

    Raises:
      TypeError: it is not a Keras model, or a class whose models are not made from a configuration.
      ValueError: the model has pruning wrappers.
    """
    expected = "a built tf_keras model, the Hugging Face class of one, or None"
    if not isinstance(model, type):
        check_keras_object(model, keras.Model, expected)
        check_stripped(model)
    elif not hugging_face.has_configuration(model):
        raise TypeError(f"Expected {expected}, got the class {model.__name__}.")


def matching_weights(
    model: keras.Model, specs: Mapping[str, tf.TensorSpec], path: str | pathlib.Path
) -> dict[str, tf.Variable | Vocabulary]:
    """The weights of a model by their names in a file.

    Names may differ in the numbers that Keras gives to layers, if their order is the same.

    Args:
      model: built model without wrappers.
      specs: shapes and dtypes of the weights in the file by name.
      path: path of the file, for messages.

    Raises:
      ValueError: names, shapes or dtypes are not those of the model. Floats may be of another
        precision.
    """
    weights = _weights_by_name(LayerTree(model))
    in_file, in_model = list(specs), list(weights)
    if set(in_file) != set(in_model):
        in_file, in_model = renumbered(in_file), renumbered(in_model)
    places = {name: i for i, name in enumerate(in_model)}
    missing = [name for name in in_model if name not in set(in_file)]
    extra = [name for name in in_file if name not in places]
    if missing or extra or not len(in_file) == len(in_model) == len(set(in_file)):
        raise ValueError(
            f"The weights in {path} are not those of {model.name!r}. Missing in the file: "
            f"{_listed(missing)}. Missing in the model: {_listed(extra)}. (Numbers of layers are "
            "counted anew here.) Build the model that was written, and call it once."
        )
    ordered = list(weights.values())
    found = {name: ordered[places[place]] for name, place in zip(specs, in_file)}
    for kind in ("shape", "dtype"):
        wrong = [
            f"{weight.name} {_shown(getattr(weight, kind))}, in the file "
            f"{_shown(getattr(specs[name], kind))}"
            for name, weight in found.items()
            if not _fits(specs[name], weight, kind)
        ]
        if wrong:
            raise ValueError(
                f"{kind.capitalize()}s in {path} are not those of {model.name!r}: {_listed(wrong)}."
            )
    return found


def assign_weights(
    model: keras.Model,
    weights: Mapping[str, tf.Variable | Vocabulary],
    arrays: Mapping[str, np.ndarray],
    path: str | pathlib.Path,
) -> None:
    """Gives a model the weights of a file.

    Args:
      model: built model without wrappers.
      weights: what `matching_weights` returned.
      arrays: arrays by name.
      path: path of the file, for messages.

    Raises:
      ValueError: a weight cannot have the values of its array. No weight has changed then.
    """
    try:
        values = {name: _value_for(weight, arrays[name]) for name, weight in weights.items()}
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model.name!r}: {error}") from error
    for name, weight in weights.items():
        weight.assign(values[name])
    recompute_constants(LayerTree(model))


def _value_for(weight: tf.Variable | Vocabulary, array: np.ndarray) -> Any:
    if isinstance(weight, Vocabulary):
        return weight.checked(array)
    dtype = weight.dtype.as_numpy_dtype
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        value = array.astype(dtype)
    if np.isfinite(array).all() and not np.isfinite(value).all():
        raise ValueError(f"{weight.name} of {weight.dtype.name} overflows with {array.dtype}.")
    return value


def _fits(spec: tf.TensorSpec, weight: tf.Variable | Vocabulary, kind: str) -> bool:
    if kind == "shape":
        return weight.shape.is_compatible_with(spec.shape)
    return spec.dtype == weight.dtype or (spec.dtype.is_floating and weight.dtype.is_floating)


def _shown(value: tf.TensorShape | tf.DType) -> str:
    return value.name if isinstance(value, tf.DType) else str(value)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more
