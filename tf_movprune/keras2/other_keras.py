"""Refusal of what belongs to Keras 3, where a pruned model would take it without a word."""

from __future__ import annotations

from tf_movprune.core.other_keras import METHODS, CheckedMethod
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.instance_method import InstanceMethod


class _Checked(CheckedMethod, InstanceMethod):
    """A method of a model that raises TypeError for arguments of Keras 3."""


def refuse_keras3(model: Layer) -> None:
    """Makes `compile` and `fit` of a model refuse optimizers, losses and so on of Keras 3."""
    if isinstance(model, keras.Model):
        for name in METHODS:
            vars(model)[name] = _Checked(model, name, keras)
