"""Check of scores that start from magnitudes, in case the kernels were replaced since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tf_movprune.core.blocks import mean_blocks
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.scores import MagnitudeScores
from tf_movprune.core.user_warnings import warn


def warn_if_kernels_were_replaced(kernels: Mapping[str, Sequence[MaskedKernel]], step: int) -> None:
    """Warns of scores that start from magnitudes which are no longer those of their kernels.

    This happens when dense weights are assigned after pruning.

    Args:
      kernels: masked kernels by the path of their layer.
      step: the step at which training starts; scores that were trained before are not looked at.
    """
    if step > 0:
        return
    others = [path for path, members in kernels.items() if any(map(_starts_elsewhere, members))]
    if others:
        warn(
            f"The scores of {', '.join(others)} start from the magnitudes of other weights than "
            "these layers have now: MagnitudeScores looks at the kernels when they are pruned. "
            "Load or assign dense weights first, and prune the model then."
        )


def _starts_elsewhere(kernel: MaskedKernel) -> bool:
    start = getattr(kernel.method, "score_initializer", None)
    if kernel.scores is None or not isinstance(start, MagnitudeScores):
        return False
    scores = np.array(kernel.paper_scores())
    if scores.min() < 0 or not np.isclose(scores.mean(), start.scale, rtol=1e-4):
        return False  # trained, or given by the user: the start has the scale as its mean
    now = mean_blocks(start.from_kernel(kernel.weights()), kernel.block_size)
    return not np.allclose(scores.ravel(), np.ravel(now), rtol=1e-3, atol=1e-3 * start.scale)
