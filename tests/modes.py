"""Ways to run a function of tensors: eagerly, in a graph, under XLA, and in mixed precision."""

import contextlib
import functools
from unittest import mock

import pytest
import tensorflow as tf
import tf_keras as keras

from tf_movprune.core import topk


def _searched(compiled):
    """Selects from small tensors as from large ones, which are not sorted."""

    def compiled_and_searched(function):
        function = compiled(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            with mock.patch.object(topk, "_SORTED", 0):
                return function(*args, **kwargs)

        return call

    return compiled_and_searched


_jit = functools.partial(tf.function, jit_compile=True)

MODES = {
    "eager": lambda function: function,
    "function": tf.function,
    "jit": _jit,
    "jit, searched": _searched(_jit),
}


@functools.cache
def compiled(mode, function):
    """A function in a mode, traced and compiled once for all tests that call it with the same."""
    return MODES[mode](function)


# A graph without XLA is that of `jit`, run by the kernels of `eager`.
_IN_A_GRAPH = pytest.param("function", marks=pytest.mark.slow)
every_mode = pytest.mark.parametrize("mode", ["eager", _IN_A_GRAPH, "jit"])
every_selection = pytest.mark.parametrize("mode", ["eager", _IN_A_GRAPH, "jit", "jit, searched"])
"""For what selects: small tensors are sorted, unless they are searched as large ones are."""


@contextlib.contextmanager
def precision(policy):
    """In which models are built, and some trained, under a policy of Keras."""
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy("float32")
