"""How far a mask agrees with magnitude pruning at the same sparsity."""

from __future__ import annotations

import numpy as np

from tf_movprune.core.blocks import mean_blocks
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.methods import Magnitude


def magnitudes(kernel: MaskedKernel) -> np.ndarray:
    """The mean magnitude of the weights under each entry of the mask: float32, of its shape."""
    means = mean_blocks(abs(kernel.weights()), kernel.block_size)
    return means.numpy().reshape(kernel.mask.shape)


def kept_by_both(mask: np.ndarray, magnitude: np.ndarray) -> float:
    """The number of kept entries that would stay if as many were kept by magnitude.

    Args:
      mask: bool array.
      magnitude: array of its shape.

    Returns:
      A number in [0, number of kept entries]. Among equal magnitudes at the cut it is the one that
      is expected of a random choice.
    """
    count = int(np.count_nonzero(mask))
    if count == 0:
        return 0.0
    cut = np.partition(magnitude, -count, axis=None)[-count]
    above, equal = magnitude > cut, magnitude == cut
    share = (count - np.count_nonzero(above)) / np.count_nonzero(equal)
    return float(np.count_nonzero(above & mask) + share * np.count_nonzero(equal & mask))


def is_compared(kernel: MaskedKernel) -> bool:
    """Returns whether a comparison says something: of other methods than magnitude itself.

    Weights under fixed masks are zero, so that these agree by construction.
    """
    return not (isinstance(kernel.method, Magnitude) or kernel.method.keeps_zeros)
