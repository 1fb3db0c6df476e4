import warnings

import numpy as np
import pytest
from records import kernel_of, matrix, weight

import tf_movprune
from tf_movprune.core.first_scores import warn_if_kernels_were_replaced
from tf_movprune.core.granularity import NEURONS
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.scores import initial_scores

START = tf_movprune.MagnitudeScores(0.01)
HARD = tf_movprune.HardMovement(START)


def at_its_start(kernel):
    first = initial_scores(
        START, tuple(kernel.mask.shape), kernel.weights, kernel.block_size, lambda name: name
    )
    kernel.scores.assign(kernel.settings.score_scale.to_variable(first))
    return kernel


KERNELS = {
    "weights": lambda: matrix(8, 4, method=HARD),
    "blocks": lambda: kernel_of([Part(weight(8, 4))], (4, 2), HARD, block_size=(2, 2)),
    "neurons": lambda: kernel_of([Part(weight(8, 4), 1)], (4,), HARD, block_size=NEURONS),
    "multiplier": lambda: matrix(8, 4, method=HARD, score_learning_rate_multiplier=100.0),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_scores_of_replaced_kernels(kind):
    kernel = at_its_start(KERNELS[kind]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_kernels_were_replaced({"as it was": [kernel]}, 0)
    kernel.parts[0].weight.assign(np.random.RandomState(0).standard_normal([8, 4]))
    with pytest.warns(UserWarning, match="scores of replaced start from .* Load or assign dense"):
        warn_if_kernels_were_replaced({"replaced": [kernel]}, 0)


def trained(kernel):
    kernel.scores.assign(kernel.scores + np.random.RandomState(1).standard_normal([8, 4]) * 1e-3)
    return kernel


def raised(kernel):
    """Trained too, though none of its scores is negative."""
    kernel.scores.assign(kernel.scores * 1.1)
    return kernel


@pytest.mark.parametrize(
    "make, step",
    [
        (lambda: at_its_start(KERNELS["weights"]()), 1),
        (lambda: trained(at_its_start(KERNELS["weights"]())), 0),
        (lambda: raised(at_its_start(KERNELS["weights"]())), 0),
        (lambda: matrix(8, 4), 0),
        (lambda: matrix(8, 4, method=tf_movprune.Magnitude()), 0),
    ],
    ids=["later", "trained", "raised", "other scores", "no scores"],
)
def test_scores_that_tell_nothing(make, step):
    kernel = make()
    kernel.parts[0].weight.assign(np.random.RandomState(0).standard_normal([8, 4]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_kernels_were_replaced({"path": [kernel]}, step)
