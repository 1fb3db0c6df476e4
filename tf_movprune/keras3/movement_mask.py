"""The sublayer that owns the scores and the mask of a kernel, and masks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.kept_zeros import first_threshold, start_of_mask
from tf_movprune.core.masked_kernel import MaskedKernel, Part, block_size_of, joined_weights
from tf_movprune.core.saved_settings import SettingsInCheckpoint
from tf_movprune.core.scores import SCORES_NAME, initial_scores
from tf_movprune.core.settings import Settings
from tf_movprune.core.training_guard import TrainingGuard, may_take_step, mode_of
from tf_movprune.keras3 import compat


class MovementMask(keras.layers.Layer):
    """Masks a kernel: `mask * kernel`, by the method's gates and gradients.

    It is a sublayer of the layer whose kernel it masks, so that Keras saves, loads and copies its
    variables with that layer's: `movement_scores` (float32 under every precision policy,
    trainable), `mask` (bool, all true at first but for `KeepZeros`) and `threshold`. `record` has
    them as a `MaskedKernel`, by which the core knows them. Penalties are added to the model's
    losses.

    Args:
      settings: how the kernel is pruned.
      parts: the weights that the mask decides on.
      shape: shape of the mask.
      guard: the guard of the layer, which refuses training that refreshes no masks.
      **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Sequence[Part],
        shape: tuple[int, ...],
        guard: TrainingGuard,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._guard = guard
        method = settings.method
        if method.has_penalty:  # counted once, however often the layer is called
            self.penalty_weight = self._state("penalty_weight", (), "float32", "zeros")
        if method.has_noise:
            self.noise_seed = self._state("noise_seed", (2,), "int64", "zeros")
        if method.has_scores:
            self.scores = self.add_weight(
                name=SCORES_NAME,
                shape=shape,
                dtype="float32",
                initializer=_start_of_scores(settings, parts),
                autocast=False,
                regularizer=compat.Penalty(self._penalty) if method.has_penalty else None,
            )
        self.mask = self._state("mask", shape, "bool", start_of_mask(settings, parts))
        lowest = keras.initializers.Constant(first_threshold(settings))
        self.threshold = self._state("threshold", (), "float32", lowest)
        names = ("scores", "mask", "threshold", "penalty_weight", "noise_seed")
        variables = {
            name: compat.tensorflow_variable(getattr(self, name))
            for name in names
            if hasattr(self, name)
        }
        self.record = MaskedKernel(settings, list(parts), **variables)
        self.settings = SettingsInCheckpoint(guard.name, lambda: self.record.settings)
        self.built = True

    def _state(self, name: str, shape: Any, dtype: str, initializer: Any) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
        )

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError, since models quantize layer by layer, and pass pruned ones by."""
        raise ValueError(
            f"The layer with {self.path!r} is pruned, and its masks would not reach quantized "
            "weights. Train the model first, and quantize what tf_movprune.strip_pruning returns."
        )

    def _penalty(self, scores: Any) -> tf.Tensor:
        return self.record.penalty()

    def masked(self, part: Part, kernel: tf.Tensor, training: Any) -> tf.Tensor:
        """The tensor to compute with in place of a part, as `MaskedKernel.masked`."""
        training = mode_of(training)
        if may_take_step(training):
            self._guard.check()
        if self.record.noise_seed is not None and tf.is_tensor(training):
            return tf.cond(
                tf.cast(training, tf.bool),
                lambda: self.record.masked(part, kernel, training=True),
                lambda: self.record.masked(part, kernel, training=False),
            )
        return self.record.masked(part, kernel, training=training is True)


def _start_of_scores(settings: Settings, parts: Sequence[Part]) -> Any:
    def start(shape: Any, dtype: Any = None) -> tf.Tensor:
        size = tf.TensorShape(shape).num_elements()
        scores = initial_scores(
            settings.method.score_initializer,
            tuple(shape),
            lambda: joined_weights(parts, size),
            block_size_of(parts, settings, size),
            keras.initializers.get,
        )
        return settings.score_scale.to_variable(scores)

    return start
