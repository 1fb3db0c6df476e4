"""Functions of TensorFlow that users' layers have, which remember what they were traced with."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
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


@contextlib.contextmanager
def untraced_in_bases(layers: Iterable[Any]) -> Iterator[None]:
    """A context in which `super()` finds the Python functions in place of `tf.function`s."""
    pairs = []
    for layer in layers:
        cls: Any = type(layer)
        pairs += [
            (function, layer)
            for function in _traced_in_bases(cls)
            if not isinstance(function._descriptor_cache.get(layer), types.MethodType)
        ]
    for function, layer in pairs:
        function._descriptor_cache[layer] = types.MethodType(function.python_function, layer)
    try:
        yield
    finally:
        for function, layer in pairs:
            function._descriptor_cache.pop(layer, None)


def forget_traces(layer: Any, containers: Iterable[Any]) -> None:
    """Makes each `tf.function` among the attributes and methods of a layer be traced anew.

    Args:
      layer: the layer.
      containers: values of its attributes; lists and mappings may hold functions, too.
    """
    cls: Any = type(layer)
    for function in _traced_in_bases(cls):
        function._descriptor_cache.pop(layer, None)
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


@functools.cache
def _traced_in_bases(cls: Any) -> tuple[Any, ...]:
    return tuple(x for base in cls.__mro__ for x in vars(base).values() if _is_traced(x))


def _is_traced(value: Any) -> bool:
    return isinstance(value, tf.types.experimental.PolymorphicFunction)


@contextlib.contextmanager
def inlined() -> Iterator[None]:
    """A context in which a traced graph has the operations of functions, and no calls of them."""
    ran_eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(ran_eagerly)
