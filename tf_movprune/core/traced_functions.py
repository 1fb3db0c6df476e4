"""Functions of TensorFlow that users' layers have, which remember what they were traced with."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf


def untraced(function: Any) -> Callable[..., Any]:
    """The Python function that a `tf.function` was made of, or the function itself."""
    return function.python_function if _is_traced(function) else function


def untraced_functions(layer: Any) -> dict[str, Callable[..., Any]]:
    """The Python functions that a layer's `tf.function`s were made of, by attribute or method."""
    cls: Any = type(layer)
    found = {name: untraced_method(layer, name) for name in _traced_methods(cls)}
    found.update({name: untraced(x) for name, x in vars(layer).items() if _is_traced(x)})
    return found


def untraced_method(layer: Any, name: str) -> Callable[..., Any]:
    """A method of a layer's class, or the Python function that it was made of, for this layer."""
    return types.MethodType(untraced(inspect.getattr_static(type(layer), name)), layer)


def forget_traces(layer: Any, containers: Iterable[Any]) -> None:
    """Makes each `tf.function` among the attributes and methods of a layer be traced anew.

    Args:
      layer: the layer.
      containers: values of its attributes; lists and mappings may hold functions, too.
    """
    cls: Any = type(layer)
    for name in _traced_methods(cls):
        inspect.getattr_static(cls, name)._descriptor_cache.pop(layer, None)
    for container in containers:
        _forget_traces_in(container)
    for name, value in list(vars(layer).items()):
        if _is_traced(value):
            vars(layer)[name] = value._clone(None)


def _forget_traces_in(container: Any) -> None:
    if isinstance(container, (dict, list)):
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs):
            if _is_traced(value):
                container[key] = value._clone(None)
            else:
                _forget_traces_in(value)


@functools.cache
def _traced_methods(cls: Any) -> tuple[str, ...]:
    defined = {name for base in cls.__mro__ for name, x in vars(base).items() if _is_traced(x)}
    return tuple(name for name in sorted(defined) if _is_traced(inspect.getattr_static(cls, name)))


def _is_traced(value: Any) -> bool:
    return isinstance(value, tf.types.experimental.PolymorphicFunction)
