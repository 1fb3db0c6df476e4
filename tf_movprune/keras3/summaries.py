"""The callback that writes the progress of pruning of Keras 3 models to TensorBoard."""

from __future__ import annotations

import keras

from tf_movprune.core.summaries import NamedKernels, Summaries, named_kernels
from tf_movprune.keras3.callbacks import step_of
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import kernel_places
from tf_movprune.keras3.layer_tree import built_layers
from tf_movprune.keras3.pruning_state import state_of


class PruningSummaries(keras.callbacks.Callback):
    """Writes summaries of Keras 3 models; see `tf_movprune.PruningSummaries`."""

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        self._summaries = Summaries(log_dir, update_freq)
        self.update_freq = update_freq

    def on_train_begin(self, logs=None):
        kernels = {path: _named_kernels(layer) for path, layer in built_layers(self.model).items()}
        self._summaries.begin(kernels, step_of(self.model))

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            self._summaries.end_step(step_of(self.model))

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch":
            self._begin_once()
            self._summaries.write(step_of(self.model))

    def on_train_end(self, logs=None):
        self._begin_once()
        self._summaries.end(step_of(self.model))

    def _begin_once(self) -> None:
        if not self._summaries.has_begun:
            self.on_train_begin()


def _named_kernels(layer: Layer) -> NamedKernels:
    names = [place.short_name for place in kernel_places(layer)]
    return named_kernels(state_of(layer).kernels, names)
