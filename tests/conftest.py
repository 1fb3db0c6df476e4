"""Fixtures of all tests."""

import gc
import importlib
import types

import pytest

pytest.register_assert_rewrite("runs", "saved")

# Traced graphs are millions of objects, which a collection looks through.
gc.set_threshold(100_000, 50, 1000)


@pytest.fixture
def refresh_without_xla(monkeypatch):
    """For tests of something else: lets the callback refresh masks in a graph.

    XLA compiles the refresh of a model for most of the time that a short `fit` takes.
    """
    import tensorflow as tf

    def function(*args, jit_compile=None, **kwargs):
        return tf.function(*args, **kwargs)

    graph_only = types.ModuleType("tensorflow")
    graph_only.__getattr__ = lambda name: function if name == "function" else getattr(tf, name)
    monkeypatch.setattr("tf_movprune.core.update_step.tf", graph_only)


@pytest.fixture(params=("tf_keras", "keras"))
def keras(request):
    """Each of the two Kerases, seeded, for what the library promises for both."""
    module = importlib.import_module(request.param)
    module.utils.set_random_seed(0)
    return module


@pytest.fixture(autouse=True)
def seeded():
    import tf_keras as keras  # here, or xdist's own process would take seconds to load it

    keras.utils.set_random_seed(0)
