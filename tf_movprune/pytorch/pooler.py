"""The pooler of a BERT in whose checkpoint there is none, as nothing reads it."""

from __future__ import annotations

import numpy as np

from tf_movprune.core.encoder_families import Family


def pooler_names(family: Family) -> tuple[str, str]:
    """The names of the weight and the bias of a pooler."""
    return f"{family.prefix}.pooler.dense.weight", f"{family.prefix}.pooler.dense.bias"


def new_pooler(family: Family, width: int) -> dict[str, np.ndarray]:
    """What a pooler starts from, always the same: its weight and bias by name, in float32."""
    weight, bias = pooler_names(family)
    kernel = 0.02 * np.random.RandomState(0).standard_normal([width, width])
    return {weight: kernel.astype(np.float32), bias: np.zeros(width, np.float32)}
