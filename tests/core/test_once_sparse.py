"""Whether pruning has reached its target."""

import types

import numpy as np
import pytest
from records import matrix

import tf_movprune
from tf_movprune.core.once_sparse import check_schedules_end, has_reached_target
from tf_movprune.core.schedules import Ramp


def kernels(kept=(4, 4)):
    """Whose schedules end at steps 4 and 6."""
    found = [
        matrix(4, 4, schedule=tf_movprune.CubicSparsity(0.75, 0, end_step)) for end_step in (4, 6)
    ]
    for kernel, count in zip(found, kept):
        kernel.mask.assign(np.arange(16).reshape(4, 4) < count)
    return found


@pytest.mark.parametrize(
    "step, min_sparsity, reached",
    [
        (3, 0, False),
        (5, 0, False),
        (6, 0, True),
        (6, 0.75, True),
        (99, 0.75, True),
        (6, 0.76, False),
    ],
)
def test_target(step, min_sparsity, reached):
    assert has_reached_target(kernels(), step, min_sparsity) is reached


def test_sparsity_is_that_of_all_weights():
    assert has_reached_target(kernels((0, 16)), 6, 0.5)
    assert not has_reached_target(kernels((0, 16)), 6, 0.51)


def test_schedule_that_tells_no_end():
    good, bad = kernels()
    check_schedules_end([good, bad])

    class Endless:
        def __call__(self, step):
            return True, 0.75

    endless = Endless()
    settings = types.SimpleNamespace(schedule=endless, ramp=Ramp.of(endless))
    bad.settings = settings
    with pytest.raises(ValueError, match=r"waits for every schedule to end, but Endless has no"):
        check_schedules_end([good, bad])
