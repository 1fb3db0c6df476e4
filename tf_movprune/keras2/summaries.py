"""The callback that writes the progress of pruning to TensorBoard."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.masked_kernel import MaskedKernel, overall_sparsity
from tf_movprune.keras2.callbacks import step_of
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.kernel_attributes import short_names
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import built_layers, kernels_of


class PruningSummaries(keras.callbacks.Callback):
    """Writes overall and layer sparsity, thresholds and mask churn to TensorBoard.

    Churn is the fraction of mask entries that changed since the last summary.

    Args:
      log_dir: folder for event files, which are written below `log_dir/pruning`.
      update_freq: `"epoch"`, or a number of training steps of at least 1.

    Raises:
      ImportError: TensorBoard is not installed.
      TypeError: `update_freq` is neither a string nor an integer.
      ValueError: `update_freq` is another string, or less than 1.
    """

    _supports_tf_logs = True

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        if isinstance(update_freq, str):
            if update_freq != "epoch":
                raise ValueError(
                    f'update_freq must be "epoch" or a number of steps, got {update_freq!r}.'
                )
        else:
            check_integer("update_freq", update_freq, example=100, minimum=1)
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "PruningSummaries needs TensorBoard. Install it with `pip install tensorboard`."
            ) from error
        self.log_dir = log_dir
        self.update_freq = update_freq
        self._writer: Any = None

    def on_train_begin(self, logs=None):
        self._layers = built_layers(self.model)
        self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "pruning"))
        self._previous = {path: _copies(layer) for path, layer in self._layers.items()}
        self._last_step = step_of(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            step = step_of(self.model)
            if step // self.update_freq > self._last_step // self.update_freq:
                self._write(step)
            self._last_step = step

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name.
        if self.update_freq == "epoch":
            self._write(step_of(self.model))

    def on_train_end(self, logs=None):
        self._write(step_of(self.model))
        self._writer.close()

    def _write(self, step: int) -> None:
        if self._writer is None:
            self.on_train_begin()
        changed, total = 0, 0
        with self._writer.as_default(step):
            for path, layer in self._layers.items():
                masks = _copies(layer)
                flips = sum(np.sum(a != b) for a, b in zip(masks, self._previous[path]))
                size = sum(mask.size for mask in masks)
                tf.summary.scalar(f"sparsity/{path}", 1 - sum(m.sum() for m in masks) / size)
                tf.summary.scalar(f"churn/{path}", flips / size)
                for name, kernel in _names(layer):
                    tf.summary.scalar(f"threshold/{path}{name}", kernel.threshold)
                self._previous[path] = masks
                changed, total = changed + flips, total + size
            tf.summary.scalar("sparsity", overall_sparsity(kernels_of(self._layers.values())))
            tf.summary.scalar("churn", changed / total)
        self._writer.flush()


def _names(layer: PruneLowMovement) -> list[tuple[str, MaskedKernel]]:
    """Names the kernels of a layer, such as `.query.kernel` or `.heads`; a single one has none."""
    kernels = layer.kernels
    if kernels[0].has_units:
        return [(f".{kernel.settings.block_size}", kernel) for kernel in kernels]
    if len(kernels) == 1:
        return [("", kernels[0])]
    names = short_names(layer.get_prunable_weights())
    return [(f".{name}", kernel) for (name, _), kernel in zip(names, kernels)]


def _copies(layer: PruneLowMovement) -> list[np.ndarray]:
    return [kernel.mask.numpy() for kernel in layer.kernels]
