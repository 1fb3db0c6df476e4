"""The hooks of `RunRecorder` that are the same in both shells."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from tf_movprune.core.loss_window import LossWindow
from tf_movprune.core.mask_churn import MaskChurn
from tf_movprune.core.masked_kernel import each_once, overall_sparsity
from tf_movprune.core.optimizer_steps import inner_optimizer, step_of
from tf_movprune.core.pruning_statistics import pruning_statistics
from tf_movprune.core.remaining_units import NamedLayers

_NO_METRICS = ("loss", "learning_rate", "lr", "sparsity")  # they have keys of their own


class RunFiles(Protocol):
    """Where a recorder writes to."""

    def begin(self, step: int) -> bool:
        """Prepares for a training that begins at a step; returns whether that step is recorded."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line to the history."""

    def write_pruning(self, statistics: Mapping[str, Any]) -> None:
        """Writes what was pruned."""


class RunRecorderHooks:
    """Records a training, to be mixed into `keras.callbacks.Callback`.

    A shell adds `_find_layers`.
    """

    model: Any

    def __init__(self, files: RunFiles, update_freq: int | None):
        super().__init__()
        self._files = files
        self._frequency = update_freq
        self._has_begun = False

    def _find_layers(self) -> NamedLayers:
        """The pruned layers of the model; empty if it is dense."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self._has_begun = False

    def on_epoch_begin(self, epoch=None, logs=None):
        self._begin_once()  # not earlier: another callback may have restored the optimizer by now

    def on_train_batch_begin(self, batch, logs=None):
        self._begin_once()

    def on_train_batch_end(self, batch, logs=None):
        if self._frequency is None:
            return
        step = step_of(self.model)
        if step // self._frequency > self._last_step // self._frequency:
            loss = self._loss.since_last(logs or {})
            self._record(step, {} if loss is None else {"loss": loss})

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name.
        self._begin_once()
        logs = logs or {}
        metrics = {name: float(logs[name]) for name in logs if name not in _NO_METRICS}
        # The mean over an epoch has no place among those over some steps.
        loss = {"loss": float(logs["loss"])} if "loss" in logs and not self._frequency else {}
        self._record(step_of(self.model), {**loss, **({"metrics": metrics} if metrics else {})})

    def on_train_end(self, logs=None):
        self._begin_once()
        step = step_of(self.model)
        self._record(step, {})  # masks were refreshed a last time
        if self._layers:
            statistics = pruning_statistics(self._layers, _head_count(self.model))
            self._files.write_pruning({"step": step, **statistics})
        self._has_begun = False

    def _begin_once(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        self._layers = self._find_layers()
        self._kernels = each_once(k for kernels, _ in self._layers.values() for k in kernels)
        self._churn = MaskChurn(self._kernels)
        self._loss = LossWindow(self.model)
        self._last_step = step_of(self.model)
        if not self._files.begin(self._last_step) and self._kernels:
            sparsity = float(overall_sparsity(self._kernels))
            self._files.append({"step": self._last_step, "sparsity": sparsity})

    def _record(self, step: int, values: Mapping[str, Any]) -> None:
        record: dict[str, Any] = {"step": step, **values}
        if step > self._last_step:
            with contextlib.suppress(AttributeError):  # before the first step, and of others' own
                rate = inner_optimizer(self.model.optimizer).learning_rate
                record["learning_rate"] = float(f"{float(tf.convert_to_tensor(rate)):.7g}")
        if self._kernels:
            churn = self._churn.since_last()
            if step > self._last_step or churn or values:
                record["sparsity"] = float(overall_sparsity(self._kernels))
                record["churn"] = churn
        if len(record) > 1:
            self._files.append(record)
        self._last_step = step


def _head_count(model: Any) -> int | None:
    """The number of attention heads in the configuration of a model of Hugging Face."""
    config = getattr(getattr(model, "student", model), "config", None)  # it may be a Distiller
    names = ("num_attention_heads", "n_heads", "n_head")
    counts = (getattr(config, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int)), None)
