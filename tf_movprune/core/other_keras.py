"""Refusal of what belongs to the other Keras, where a pruned model would not say so."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

METHODS = {
    "compile": ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"),
    "fit": ("callbacks",),
}
"""Methods of a model, and their arguments in which objects of Keras may be."""

_NAMES = {"keras": "Keras 3", "tf_keras": "tf_keras"}


class CheckedMethod:
    """A method of a model that raises TypeError for arguments of the other Keras.

    Args:
      model: the model.
      name: name of the method.
      keras: the Keras of the model.
    """

    def __init__(self, model: Any, name: str, keras: ModuleType):
        self.model, self.name, self._keras = model, name, keras
        self.__signature__ = inspect.signature(self._original())

    def _original(self) -> Any:
        return getattr(type(self.model), self.name).__get__(self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            given = self.__signature__.bind_partial(*args, **kwargs).arguments
        except TypeError:  # the method itself says what it does not take
            given = {}
        given = {**given, **given.get("kwargs", {})}
        for argument in METHODS[self.name]:
            for value in _objects(given.get(argument)):
                self._check(value)
        return self._original()(*args, **kwargs)

    def _check(self, value: Any) -> None:
        mine = self._keras.__name__
        (other,) = _NAMES.keys() - {mine}
        base = next((c for c in type(value).__mro__ if c.__module__.split(".")[0] == other), None)
        if base is None:
            return
        own = "" if base is type(value) else f", a subclass of {base.__name__},"
        if type(value).__module__.startswith("tf_movprune."):
            remedy = "Pass model=model to what made it, such as create_optimizer of a ShortRun."
        else:
            remedy = f"Take it from {mine}{_path_in(self._keras, base.__name__)}."
        raise TypeError(
            f"{self.name} got {type(value).__name__}{own} of {_NAMES[other]}, and "
            f"{self.model.name!r} is a model of {_NAMES[mine]}. {remedy}"
        )


def _path_in(keras: ModuleType, name: str) -> str:
    for place in ("optimizers", "losses", "metrics", "callbacks", "optimizers.schedules"):
        found: Any = keras
        for part in place.split("."):
            found = getattr(found, part)
        if hasattr(found, name):
            return f", such as {keras.__name__}.{place}.{name}"
    return ""


def _objects(value: Any) -> Iterator[Any]:
    """The objects in an argument: itself, or the items of a list or mapping, not of data."""
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, (list, tuple)):
        yield items
    elif not items or not isinstance(items[0], (int, float)):
        for item in items:
            yield from _objects(item)
