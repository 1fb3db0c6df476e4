"""What every test has."""

import pytest

pytest.register_assert_rewrite("runs")


@pytest.fixture(autouse=True)
def seeded():
    import tf_keras as keras  # here, or xdist's own process would take seconds to load it

    keras.utils.set_random_seed(0)
