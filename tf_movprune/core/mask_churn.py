"""Mask churn: how many entries of masks change while a model is pruned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tf_movprune.core.masked_kernel import MaskedKernel


class MaskChurn:
    """Counts the entries of masks that change from one call to the next.

    It holds a copy of each mask, one byte for each entry.

    Args:
      kernels: masked kernels, each once.
    """

    def __init__(self, kernels: Sequence[MaskedKernel]):
        self._kernels = list(kernels)
        self._masks = [kernel.mask.numpy() for kernel in self._kernels]

    def since_last(self) -> float:
        """The fraction of all entries that changed since the last call, or since the beginning."""
        changed, total = 0, 0
        for i, kernel in enumerate(self._kernels):
            mask = kernel.mask.numpy()
            flips = int(np.count_nonzero(mask != self._masks[i]))
            self._masks[i] = mask
            changed, total = changed + flips, total + mask.size
        return changed / total
