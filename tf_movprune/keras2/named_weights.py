"""The weights of a tf_keras model by name, read and assigned."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_movprune.core.named_weights import NamedWeight, assign, matching, unique_names
from tf_movprune.core.vocabulary import Vocabulary
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import check_keras_object, keras
from tf_movprune.keras2.layer_tree import LayerTree
from tf_movprune.keras2.saving import check_stripped
from tf_movprune.keras2.targets import default_targets
from tf_movprune.keras2.vocabularies import (
    PreprocessingLayer,
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
    return matching(model.name, _weights_by_name(LayerTree(model)), specs, path)


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
    assign(model.name, weights, arrays, path)
    recompute_constants(LayerTree(model))
