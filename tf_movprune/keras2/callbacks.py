"""The callback that refreshes masks in `fit`, and the function for custom training loops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from tf_movprune.core.finite_check import Weights
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.core.update_callback import UpdateHooks
from tf_movprune.core.update_step import refresh_for_step
from tf_movprune.keras2 import compat, optimizer_checks
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.layer_tree import LayerTree, built_layers, trainable_weights
from tf_movprune.keras2.training_guard import guard_training, has_known_train_step, is_guarded


def update_masks(model: Layer, step: tf.Tensor | int, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a tf_keras model; see `tf_movprune.update_masks`."""
    layers = built_layers(model)
    wrappers = list(layers.values())
    return refresh_for_step(
        {path: wrapper.kernels for path, wrapper in layers.items()},
        [wrapper.guard for wrapper in wrappers],
        step,
        force=force,
        name=model.name,
        usages=[wrapper.usage for wrapper in wrappers],
        weight=wrappers[0].get_prunable_weights()[0],
    )


class UpdatePruningStep(UpdateHooks, keras.callbacks.Callback):
    """Refreshes the masks of tf_keras models in `fit`; see `tf_movprune.UpdatePruningStep`."""

    _supports_tf_logs = True

    _optimizer_checks = optimizer_checks

    def _find_layers(self) -> None:
        self._layers = built_layers(self.model)

    def _kernels_by_path(self) -> Mapping[str, Sequence[MaskedKernel]]:
        return {path: layer.kernels for path, layer in self._layers.items()}

    def _trainable_weights(self) -> Weights:
        return trainable_weights(self.model)

    def _guards(self) -> Iterable[TrainingGuard]:
        return (layer.guard for layer in self._layers.values())

    def _check_compiled(self, scores: Mapping[str, tf.Variable]) -> None:
        optimizer_checks.check_trainable(self.model, scores)
        if self._has_known_train_step() and hasattr(self.model, "loss"):
            optimizer_checks.check_loss(self.model, self._layers)

    def _make_ready(self) -> None:
        model, layers = self.model, list(self._layers.values())
        # TensorFlow traces a step twice if the first trace makes variables, such as slots.
        is_new = isinstance(model.optimizer, keras.optimizers.Optimizer)
        if self._has_known_train_step() and is_new:
            model.optimizer.build(model.trainable_variables)
        if not is_guarded(model, layers):  # it was not pruned itself, and is traced anew
            is_made = getattr(model, "train_function", None) is not None  # by `fit`
            LayerTree(model).forget_traces()
            model.train_function = None  # one may have been watched since a step of its own
            guard_training(model, layers)
            if is_made:
                model.make_train_function()

    def _steps_per_execution(self) -> int:
        return compat.steps_per_execution(self.model)

    def _batches_done(self, steps: int, epoch: int) -> int:
        return compat.batches_done(self.model, steps, epoch)

    def _loss_scale(self) -> float | None:
        return compat.loss_scale(self.model.optimizer)

    def _has_known_train_step(self) -> bool:
        return has_known_train_step(self.model)

    def _check_kernels_used(self) -> None:
        trained = {id(weight) for weight in self.model.trainable_weights}
        for layer in self._layers.values():
            layer.check_run(trained)

    # Keras's progress bar averages a value over the epoch unless one of the model's metrics has its
    # name. It looks when an epoch begins, and then a marker of that name is among them.

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._hide_marker()
        self._progress_marker = _ProgressMarker(name="sparsity")

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        compat.added_metrics(self.model).append(self._progress_marker)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        self._hide_marker()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        self._hide_marker()
        super().on_epoch_end(epoch, logs, batch)

    def on_train_end(self, logs=None):
        self._hide_marker()
        super().on_train_end(logs)

    def _hide_marker(self) -> None:
        metrics = compat.added_metrics(self.model)
        for marker in [metric for metric in metrics if isinstance(metric, _ProgressMarker)]:
            metrics.remove(marker)


class _ProgressMarker(keras.metrics.Mean):
    """Metric that has a name and is never updated."""
