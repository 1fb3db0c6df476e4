"""What every test has."""

import os

import pytest

# XLA still compiles as it does for users, but LLVM does not optimize programs that run once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

pytest.register_assert_rewrite("runs", "saved")


@pytest.fixture(autouse=True)
def seeded():
    import tf_keras as keras  # here, or xdist's own process would take seconds to load it

    keras.utils.set_random_seed(0)
