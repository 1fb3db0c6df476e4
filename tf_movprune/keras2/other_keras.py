"""Refusal of what belongs to Keras 3, where a pruned model would take it without a word."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from tf_movprune.keras2.compat import Layer, is_keras3_object, keras
from tf_movprune.keras2.instance_method import InstanceMethod

_METHODS = {
    "compile": ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"),
    "fit": ("callbacks",),
}
"""Methods of a model, and their arguments in which objects of Keras may be."""


class _Checking(InstanceMethod):
    """A method of a model that raises TypeError for arguments of Keras 3."""

    def __init__(self, model: keras.Model, name: str):
        self.model, self.name = model, name
        self.__signature__ = inspect.signature(self._original())

    def _original(self) -> Any:
        return getattr(type(self.model), self.name).__get__(self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            given = self.__signature__.bind_partial(*args, **kwargs).arguments
        except TypeError:  # the method itself says what it does not take
            given = {}
        given = {**given, **given.get("kwargs", {})}
        for argument in _METHODS[self.name]:
            for value in _objects(given.get(argument)):
                self._check(value)
        return self._original()(*args, **kwargs)

    def _check(self, value: Any) -> None:
        if is_keras3_object(value):
            bases = (c for c in type(value).__mro__ if c.__module__.split(".")[0] == "keras")
            base = next(bases)
            own = "" if base is type(value) else f", a subclass of {base.__name__},"
            raise TypeError(
                f"{self.name} got {type(value).__name__}{own} of Keras 3, and "
                f"{self.model.name!r} is a model of tf_keras. Take it from tf_keras"
                f"{_path_in_tf_keras(base)}."
            )


def _path_in_tf_keras(cls: type) -> str:
    for place in ("optimizers", "losses", "metrics", "callbacks", "optimizers.schedules"):
        found: Any = keras
        for name in place.split("."):
            found = getattr(found, name)
        if hasattr(found, cls.__name__):
            return f", such as tf_keras.{place}.{cls.__name__}"
    return ""


def _objects(value: Any) -> Iterator[Any]:
    """The objects in an argument: itself, or the items of a list or mapping, not of data."""
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, (list, tuple)):
        yield items
    elif not items or not isinstance(items[0], (int, float)):
        for item in items:
            yield from _objects(item)


def refuse_keras3(model: Layer) -> None:
    """Makes `compile` and `fit` of a model refuse optimizers, losses and so on of Keras 3."""
    if isinstance(model, keras.Model):
        for name in _METHODS:
            vars(model)[name] = _Checking(model, name)
