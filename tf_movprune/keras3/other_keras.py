"""Refusal of what belongs to tf_keras, which Keras 3 takes, or refuses without naming it."""

from __future__ import annotations

import keras

from tf_movprune.core.other_keras import METHODS, CheckedMethod
from tf_movprune.keras3.compat import Layer


def refuse_tf_keras(model: Layer) -> None:
    """Makes `compile` and `fit` of a model refuse optimizers, losses and so on of tf_keras."""
    if isinstance(model, keras.Model):
        for name in METHODS:
            vars(model)[name] = CheckedMethod(model, name, keras)


def take_tf_keras(model: Layer) -> None:
    """Undoes `refuse_tf_keras`."""
    for name in METHODS:
        if isinstance(vars(model).get(name), CheckedMethod):
            del vars(model)[name]
