"""Making the variables of a masked kernel, which belong to a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.masked_kernel import MaskedKernel, Part, block_size_of, joined_weights
from tf_movprune.core.scores import SCORES_NAME, initial_scores
from tf_movprune.core.settings import Settings
from tf_movprune.keras2.compat import Layer, keras


def make_kernel(
    layer: Layer,
    settings: Settings,
    parts: Sequence[Part],
    shape: tuple[int, ...],
    weight: tf.Variable,
) -> MaskedKernel:
    """A masked kernel whose variables are those of a layer, named after one of its weights."""
    method = settings.method

    def add(name: str, shape: Any, dtype: tf.DType, initializer: Any = "zeros", **kwargs: Any):
        return layer.add_weight(
            name, shape, dtype, initializer=initializer, experimental_autocast=False, **kwargs
        )

    def state(name: str, shape: Any, dtype: tf.DType, initializer: Any = "zeros") -> tf.Variable:
        return add(name, shape, dtype, initializer, trainable=False)

    with tf.name_scope(f"{weight.name.split(':')[0]}/"):
        scores = None
        if method.has_scores:
            start = _start_of_scores(settings, parts, math.prod(shape))
            scores = add(SCORES_NAME, shape, tf.float32, start, trainable=True)
        lowest = keras.initializers.Constant(-float("inf"))
        return MaskedKernel(
            settings,
            parts,
            scores=scores,
            mask=state("mask", shape, tf.bool, "ones"),
            threshold=state("threshold", (), tf.float32, lowest),
            penalty_weight=state("penalty_weight", (), tf.float32) if method.has_penalty else None,
            # int32 variables have no place on a GPU.
            noise_seed=state("noise_seed", (2,), tf.int64) if method.has_noise else None,
        )


def _start_of_scores(settings: Settings, parts: Sequence[Part], size: int) -> Any:
    """Initializer of a score variable. Keras skips it for values that a checkpoint brings."""

    def start(shape, dtype=None, **kwargs):
        scores = initial_scores(
            settings.method.score_initializer,
            shape,
            lambda: joined_weights(parts, size),
            block_size_of(parts, settings, size),
            keras.initializers.get,
        )
        return settings.score_scale.to_variable(scores)

    return start
