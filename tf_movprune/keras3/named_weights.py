"""The weights of a Keras 3 model by name, read and assigned."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tf_movprune.core.named_weights import (
    Assignable,
    NamedWeight,
    assign,
    matching,
    unique_names,
)
from tf_movprune.core.vocabulary import Vocabulary
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.compat import check_keras_object
from tf_movprune.keras3.described_model import has_configuration
from tf_movprune.keras3.layer_tree import walk
from tf_movprune.keras3.saving import check_stripped
from tf_movprune.keras3.targets import default_targets
from tf_movprune.keras3.vocabularies import learned_vocabularies, recompute_constants


def named_weights(model: keras.Model) -> list[NamedWeight]:
    """The weights of a stripped model, in its order, and then its vocabularies.

    Names are the paths that Keras gives to variables, without the name of the model, which paths
    have or lack by the way in which the model was built.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: `model` is pruned, or has no weights.
    """
    check_stripped(model)
    if not (model.built and model.weights):
        raise ValueError(
            f"{model.name!r} has no weights. Call the model once on example inputs before "
            "exporting."
        )
    parts: dict[int, str] = {}
    exact: set[int] = set()
    targets = {id(layer) for layer in default_targets(model).values()}
    for layer in walk(model).values():
        ids = [id(compat.tensorflow_variable(weight)) for weight in layer.weights]
        if isinstance(layer, keras.layers.Normalization):
            exact.update(ids)
        is_table = isinstance(layer, keras.layers.Embedding) or keras_hub.holds_positions(layer)
        if id(layer) in targets or is_table:
            part = "layers" if id(layer) in targets else "embeddings"
            parts.update((key, part) for key in ids if key not in parts)
    return [
        NamedWeight(name, parts.get(id(weight), "other"), weight.numpy(), id(weight) in exact)
        for name, weight in _weights_by_name(model).items()
    ]


def _weights_by_name(model: keras.Model) -> dict[str, tf.Variable | Vocabulary]:
    names = [weight.path.removeprefix(f"{model.name}/") for weight in model.weights]
    weights = [compat.tensorflow_variable(weight) for weight in model.weights]
    vocabularies = learned_vocabularies(walk(model).values())
    names += [vocabulary.name for vocabulary in vocabularies]
    return dict(zip(unique_names(names), [*weights, *vocabularies]))


def check_loadable(model: keras.Model | type) -> None:
    """Checks that weights of a file can be assigned to a model, or to one made from its class.

    Raises:
      TypeError: it is not a Keras model, or a class whose models are not made from a configuration.
      ValueError: the model is pruned.
    """
    expected = "a built Keras model, a class of models with a get_config() of its own, or None"
    if not isinstance(model, type):
        check_keras_object(model, keras.Model, expected)
        check_stripped(model)
    elif not has_configuration(model):
        raise TypeError(f"Expected {expected}, got the class {model.__name__}.")


def matching_weights(
    model: keras.Model, specs: Mapping[str, tf.TensorSpec], path: str | pathlib.Path
) -> dict[str, tf.Variable | Vocabulary]:
    """The weights of a model by their names in a file.

    Names may differ in the numbers that Keras gives to layers, if their order is the same.

    Args:
      model: built model that is not pruned.
      specs: shapes and dtypes of the weights in the file by name.
      path: path of the file, for messages.

    Raises:
      ValueError: names, shapes or dtypes are not those of the model. Floats may be of another
        precision.
    """
    return matching(model.name, _weights_by_name(model), specs, path)


def assign_weights(
    model: keras.Model,
    weights: Mapping[str, Assignable],
    arrays: Mapping[str, np.ndarray],
    path: str | pathlib.Path,
) -> None:
    """Gives a model the weights of a file.

    Args:
      model: built model that is not pruned.
      weights: what `matching_weights` returned.
      arrays: arrays by name.
      path: path of the file, for messages.

    Raises:
      ValueError: a weight cannot have the values of its array. No weight has changed then.
    """
    assign(model.name, weights, arrays, path)
    recompute_constants([model, *walk(model).values()])
