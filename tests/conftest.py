"""Fixtures of all tests."""

import gc
import importlib
import types

import pytest

pytest.register_assert_rewrite("runs", "saved")

# Traced graphs are millions of objects, which a collection looks through.
gc.set_threshold(100_000, 50, 1000)


def pytest_addoption(parser):
    parser.addoption(
        "--xla-refresh",
        action="store_true",
        help="let XLA compile the refresh of masks in every test, as it does in training",
    )


@pytest.fixture(autouse=True)
def refresh_without_xla(request, monkeypatch):
    """Lets the callback refresh masks in a graph, in tests of something else.

    XLA compiles the refresh of a tiny model for longer than the rest of a `fit` takes, and the
    masks are the same to the bit. It does so in tests marked `xla_refresh`, in tests whose
    parameter `jit_compile` is true, and in all with `--xla-refresh`.
    """
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if (
        request.config.getoption("--xla-refresh")
        or request.node.get_closest_marker("xla_refresh")
        or parameters.get("jit_compile")
    ):
        return
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
