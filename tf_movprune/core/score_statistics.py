"""Samples of weights and scores, kept and pruned, small enough to store and to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.granularity import WEIGHTS
from tf_movprune.core.magnitude_agreement import magnitudes
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.methods import SoftMovement
from tf_movprune.core.scores import MagnitudeScores

_POINTS = 1500
_SAMPLE = 300_000  # entries in a histogram
_BINS = 60
_OUTSIDE = 0.002  # the share of a sample at either end that goes into the outermost bins


def score_statistics(kernels: Sequence[MaskedKernel], titles: Sequence[str]) -> dict[str, Any]:
    """Statistics of weights against scores in one group of kernels, which are selected together.

    They are those of all kernels if these have one threshold, and else of one of the largest: cuts
    at different thresholds would blur each other.

    Args:
      kernels: masked kernels with equal settings.
      titles: what they are, such as "layer 3, intermediate".

    Returns:
      A dict that JSON can hold:

      - `shown`: the title of the one kernel, or None for all;
      - `quantity`: what decides, "score", "sigmoid of the score" or "magnitude";
      - `scores_start_from`: "magnitudes", "zeros" or "an initializer"; None without scores;
      - `threshold`: the cut on it, or None if nothing was cut;
      - `histogram`: `edges` of bins, and how many sampled entries in each are `kept` and `pruned`;
        the outermost bins hold all that lies beyond them;
      - `points`: at most 1,500 entries: `weight`, `score`, `kept` (0 or 1), and `weight_is`,
        "weight" or "mean magnitude"; None for methods without scores.

      It is empty for methods that neither learn scores nor rank weights.
    """
    if kernels[0].method.keeps_zeros:
        return {}
    thresholds = [float(kernel.threshold) for kernel in kernels]
    shown, title, threshold = list(kernels), None, thresholds[0]
    if len(set(thresholds)) > 1:
        largest = max(kernel.size for kernel in kernels)
        of_that_size = [i for i, kernel in enumerate(kernels) if kernel.size == largest]
        chosen = of_that_size[len(of_that_size) // 2]
        shown, title, threshold = [kernels[chosen]], titles[chosen], thresholds[chosen]
    share = min(1.0, _SAMPLE / sum(kernel.size for kernel in shown))
    samples = [_sample(kernel, share, seed) for seed, kernel in enumerate(shown)]
    weights, scores, kept = (np.concatenate(arrays) for arrays in zip(*samples))
    finite = np.isfinite(scores) & np.isfinite(weights)
    weights, scores, kept = weights[finite], scores[finite], kept[finite]
    has_scores = kernels[0].method.has_scores
    return {
        "shown": title,
        "quantity": _quantity(kernels[0]),
        "scores_start_from": _start(kernels[0]) if has_scores else None,
        "threshold": threshold if math.isfinite(threshold) else None,
        "histogram": _histogram(scores, kept),
        "points": _points(weights, scores, kept, kernels[0]) if has_scores else None,
    }


def _quantity(kernel: MaskedKernel) -> str:
    if not kernel.method.has_scores:
        return "magnitude"
    return "sigmoid of the score" if isinstance(kernel.method, SoftMovement) else "score"


def _start(kernel: MaskedKernel) -> str:
    initializer = getattr(kernel.method, "score_initializer", None)
    if isinstance(initializer, MagnitudeScores):
        return "magnitudes"
    return "zeros" if initializer == "zeros" else "an initializer"


def _sample(
    kernel: MaskedKernel, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, scores and mask at random entries, in random order."""
    random = np.random.default_rng(seed)
    count = max(1, round(share * kernel.size))
    if count < kernel.size:
        chosen = random.integers(kernel.size, size=count)
    else:
        chosen = random.permutation(kernel.size)
    is_single = kernel.settings.block_size == WEIGHTS
    weights = kernel.weights().numpy() if is_single else magnitudes(kernel)
    scores = kernel.importance()
    if isinstance(kernel.method, SoftMovement):
        scores = tf.sigmoid(scores)
    mask = kernel.mask.numpy()
    return weights.ravel()[chosen], scores.numpy().ravel()[chosen], mask.ravel()[chosen]


def _histogram(scores: np.ndarray, kept: np.ndarray) -> dict[str, Any] | None:
    if not scores.size:
        return None
    low, high = np.quantile(scores, [_OUTSIDE, 1 - _OUTSIDE])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    inside = np.clip(scores, low, high)
    counts = {
        "kept": np.histogram(inside[kept], edges)[0].tolist(),
        "pruned": np.histogram(inside[~kept], edges)[0].tolist(),
    }
    return {"edges": _rounded(edges), **counts}


def _points(
    weights: np.ndarray, scores: np.ndarray, kept: np.ndarray, kernel: MaskedKernel
) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(scores.size)[:_POINTS]
    return {
        "weight_is": "weight" if kernel.settings.block_size == WEIGHTS else "mean magnitude",
        "weight": _rounded(weights[order]),
        "score": _rounded(scores[order]),
        "kept": kept[order].astype(int).tolist(),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
