"""Whether pruning has reached its target, for callbacks that wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from tf_movprune.core.masked_kernel import MaskedKernel, overall_sparsity
from tf_movprune.core.user_warnings import warn


def check_schedules_end(kernels: Sequence[MaskedKernel]) -> None:
    """Raises ValueError if a schedule does not tell where it ends."""
    for kernel in kernels:
        if kernel.settings.ramp.final_step is None:
            raise ValueError(
                "OnceSparse waits for every schedule to end, but "
                f"{type(kernel.settings.schedule).__name__} has no end_step. Give it one."
            )


def has_reached_target(kernels: Sequence[MaskedKernel], step: int, min_sparsity: float) -> bool:
    """Returns whether every schedule is at its end, and sparsity at least `min_sparsity`.

    Args:
      kernels: masked kernels, each once.
      step: the number of optimizer steps taken so far.
      min_sparsity: a fraction of zeros over all weights.
    """
    if any(step < (kernel.settings.ramp.final_step or 0) for kernel in kernels):
        return False
    return float(overall_sparsity(kernels)) >= min_sparsity


def warn_of_no_epoch(
    callback_name: str, kernels: Sequence[MaskedKernel], min_sparsity: float
) -> None:
    """Warns that a callback was held back until training was over."""
    warn(
        f"{callback_name} has seen no epoch: none ended with every schedule at its end and at "
        f"least {min_sparsity} sparsity; it is {float(overall_sparsity(kernels)):.3f}."
    )
