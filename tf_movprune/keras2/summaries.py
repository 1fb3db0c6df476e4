"""The callback that writes the progress of pruning to TensorBoard."""

from __future__ import annotations

from tf_movprune.core.summaries import NamedKernels, Summaries, named_kernels
from tf_movprune.keras2.callbacks import step_of
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.kernel_attributes import short_names
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import built_layers


class PruningSummaries(keras.callbacks.Callback):
    """Writes summaries of tf_keras models; see `tf_movprune.PruningSummaries`."""

    _supports_tf_logs = True

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        self._summaries = Summaries(log_dir, update_freq)
        self.log_dir = log_dir
        self.update_freq = update_freq

    def on_train_begin(self, logs=None):
        kernels = {path: _named_kernels(layer) for path, layer in built_layers(self.model).items()}
        self._summaries.begin(kernels, step_of(self.model))

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            self._summaries.end_step(step_of(self.model))

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name.
        if self.update_freq == "epoch":
            self._begin_once()
            self._summaries.write(step_of(self.model))

    def on_train_end(self, logs=None):
        self._begin_once()
        self._summaries.end(step_of(self.model))

    def _begin_once(self) -> None:
        if not self._summaries.has_begun:
            self.on_train_begin()


def _named_kernels(layer: PruneLowMovement) -> NamedKernels:
    names = [name for name, _ in short_names(layer.get_prunable_weights())]
    return named_kernels(layer.kernels, names)
