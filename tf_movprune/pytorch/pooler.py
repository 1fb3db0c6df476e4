"""The pooler of a BERT in whose checkpoint there is none, as nothing reads it."""

from __future__ import annotations

import numpy as np

from tf_movprune.core.encoder_families import Family


def new_pooler(family: Family, width: int) -> dict[str, np.ndarray]:
    """Makes the first weight and bias of a pooler, always the same: float32 arrays by name."""
    weight, bias = family.pooler
    kernel = 0.02 * np.random.RandomState(0).standard_normal([width, width])
    return {weight: kernel.astype(np.float32), bias: np.zeros(width, np.float32)}
