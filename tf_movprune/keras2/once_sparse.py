"""Callbacks that choose among epochs, held back until the model is sparse."""

from __future__ import annotations

from typing import Any

from tf_movprune.core.arguments import check_fraction
from tf_movprune.core.once_sparse import (
    check_schedules_end,
    has_reached_target,
    warn_of_no_epoch,
)
from tf_movprune.keras2.callbacks import step_of
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer_tree import built_layers, kernels_of


class OnceSparse(keras.callbacks.Callback):
    """Holds another callback of tf_keras back; see `tf_movprune.OnceSparse`."""

    def __init__(self, callback: keras.callbacks.Callback, min_sparsity: float = 0.0):
        super().__init__()
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "callback must be a Keras callback such as tf_keras.callbacks.EarlyStopping(), got "
                f"{callback!r}."
            )
        self.callback = callback
        self.min_sparsity = check_fraction("min_sparsity", min_sparsity)

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        self._kernels = kernels_of(built_layers(self.model).values())
        self._was_sparse = False
        check_schedules_end(self._kernels)
        self._is_sparse = self._reached_target()  # a loop of one's own may have no epochs
        self.callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._is_sparse = self._reached_target()
        self.callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        if self._is_sparse:
            self.callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        if self._is_sparse:
            self.callback.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._reached_target():
            self._was_sparse = True
            self.callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        if not self._was_sparse:
            warn_of_no_epoch(type(self.callback).__name__, self._kernels, self.min_sparsity)
        self.callback.on_train_end(logs)

    def _reached_target(self) -> bool:
        return has_reached_target(self._kernels, step_of(self.model), self.min_sparsity)
