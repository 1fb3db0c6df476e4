"""Keras callbacks that drive the schedule, and show what it does."""

from __future__ import annotations

import os
import warnings

import numpy as np
import tensorflow as tf

from tf_movprune import checks
from tf_movprune._keras import keras
from tf_movprune.refresh import bound_layers, overall_sparsity, refresh_masks
from tf_movprune.traversal import pruned_layers
from tf_movprune.wrapper import PruneLowMovement


class UpdatePruningStep(keras.callbacks.Callback):
    """Refreshes the masks before each training step, as their schedules say.

    The step is the optimizer's `iterations`, so that training goes on where a restored optimizer
    left off. With `steps_per_execution` above 1 masks are refreshed once to each execution. After
    training, and after an early stop, they are refreshed a last time from the final scores.
    Overall `sparsity` appears in the progress bar and in `History`.

    Put it first in the list of callbacks, so that those that save or log see what it did.

    Args:
      num_train_steps: steps of the whole training, where it takes several calls of `fit`: then
        schedules are checked against it and not against each call.

    Raises (when `fit` starts):
      ValueError: nothing in the model is pruned, or it is not built yet; a schedule ends after the run, or never fires in
        it; the optimizer was built before the model was pruned; scores contain NaN.
    """

    _supports_tf_logs = True

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        if num_train_steps is not None and num_train_steps < 1:
            raise ValueError(f"num_train_steps must be at least 1, got {num_train_steps}.")
        self.num_train_steps = num_train_steps
        self._is_training = False

    def on_train_begin(self, logs=None):
        self._layers = bound_layers(self.model)
        self._iterations = self.model.optimizer.iterations
        checks.check_optimizer(self.model.optimizer, self._layers.values())
        checks.check_scores(self._layers, self._iterations)
        self._schedule_is_checked = False
        self._is_training, self._window = True, 1
        self._sparsity = overall_sparsity(self._layers.values())
        self._progress_marker = keras.metrics.Mean(name="sparsity")
        self._compiled_refresh = self._compile_refresh()

    def _compile_refresh(self):
        layers, iterations = self._layers.values(), self._iterations

        # XLA fuses each pass of a selection; it cannot compile mirrored variables.
        compiled = self.model.distribute_strategy.num_replicas_in_sync == 1

        @tf.function(jit_compile=compiled)
        def refresh(sparsity, window, force):
            refreshed = refresh_masks(layers, iterations + 0, window=window, force=force)
            return tf.cond(refreshed, lambda: overall_sparsity(layers), lambda: sparsity)

        return refresh

    def on_epoch_begin(self, epoch, logs=None):
        self._window = int(getattr(self.model, "_steps_per_execution", 1) or 1)
        if not self._schedule_is_checked:
            self._check_schedules(epoch)
            self._schedule_is_checked = True
        # Keras's progress bar averages every value over the epoch that does not bear the name of
        # one of the model's metrics. It looks when an epoch begins.
        self.model._metrics.append(self._progress_marker)

    def on_train_batch_begin(self, batch, logs=None):
        self._hide_marker()
        self._refresh()

    def on_train_batch_end(self, batch, logs=None):
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()  # validation sees the scores as they are now

    def on_epoch_end(self, epoch, logs=None):
        self._hide_marker()
        checks.check_scores(self._layers, self._iterations)
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        self._hide_marker()
        checks.check_scores(self._layers, self._iterations)
        self._refresh(force=True)
        self._is_training = False
        for layer in self._layers.values():
            layer.masks_are_refreshed = False
        self._warn_if_unfinished()

    def _refresh(self, force: bool = False) -> None:
        self._sparsity = self._compiled_refresh(self._sparsity, self._window, tf.constant(force))

    def _hide_marker(self) -> None:
        if self._progress_marker in self.model._metrics:
            self.model._metrics.remove(self._progress_marker)

    def _check_schedules(self, epoch: int) -> None:
        start, steps = int(self._iterations), self.params.get("steps")
        run = None
        if self.num_train_steps is not None:
            end = self.num_train_steps
            run = checks.Run(start, end, f"num_train_steps is {end}")
        elif steps:
            epochs = self.params["epochs"] - epoch
            end = start + epochs * steps
            run = checks.Run(
                start, end, f"this run has {epochs * steps} steps ({steps} × {epochs})"
            )
        for schedule, layers in checks.layers_by_schedule(self._layers.values()):
            if run is not None:
                checks.check_schedule(schedule, run)
            if self.params.get("verbose"):
                print(checks.describe_ramp(schedule, layers))

    def _warn_if_unfinished(self) -> None:
        """Of runs that stopped early, or whose length was not known when they began."""
        step = int(self._iterations)
        schedules = (layer.pruning_schedule for layer in self._layers.values())
        end = max(getattr(schedule, "end_step", -1) for schedule in schedules)
        if step < end and self.num_train_steps is None:
            warnings.warn(
                f"Training stopped at step {step}, before the schedule's end_step {end}: sparsity "
                f"is {float(self._sparsity):.3f}.",
                stacklevel=2,
            )


class PruningSummaries(keras.callbacks.Callback):
    """Writes sparsity to TensorBoard: overall and by layer, thresholds, and mask churn.

    Churn is the fraction of mask entries that changed since the last summary.

    Args:
      log_dir: where the event files go; they are written below `log_dir/pruning`.
      update_freq: `"epoch"`, or a number of training steps of at least 1.
    """

    _supports_tf_logs = True

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        if update_freq != "epoch" and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(
                'update_freq must be "epoch" or a number of steps of at least 1, got '
                f"{update_freq!r}."
            )
        self.log_dir = log_dir
        self.update_freq = update_freq

    def on_train_begin(self, logs=None):
        self._layers = pruned_layers(self.model)
        if not self._layers:
            raise ValueError(
                f"{self.model.name!r} has no pruned layers, so there is nothing to summarize. Call "
                "tf_movprune.prune_low_movement on the model first."
            )
        self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "pruning"))
        self._previous = {path: _copies(layer) for path, layer in self._layers.items()}
        self._last_step = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            step = int(self.model.optimizer.iterations)
            if step // self.update_freq > self._last_step // self.update_freq:
                self._write(step)
            self._last_step = step

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch":
            self._write(int(self.model.optimizer.iterations))

    def on_train_end(self, logs=None):
        self._write(int(self.model.optimizer.iterations))
        self._writer.close()

    def _write(self, step: int) -> None:
        changed, total = 0, 0
        with self._writer.as_default(step):
            for path, layer in self._layers.items():
                masks = _copies(layer)
                flips = sum(np.sum(a != b) for a, b in zip(masks, self._previous[path]))
                size = sum(mask.size for mask in masks)
                tf.summary.scalar(f"sparsity/{path}", 1 - sum(m.sum() for m in masks) / size)
                tf.summary.scalar(f"churn/{path}", flips / size)
                for i, threshold in enumerate(layer.thresholds):
                    suffix = f"_{i}" if len(layer.thresholds) > 1 else ""
                    tf.summary.scalar(f"threshold/{path}{suffix}", threshold)
                self._previous[path] = masks
                changed, total = changed + flips, total + size
            tf.summary.scalar("sparsity", overall_sparsity(self._layers.values()))
            tf.summary.scalar("churn", changed / total)
        self._writer.flush()


def _copies(layer: PruneLowMovement) -> list[np.ndarray]:
    return [mask.numpy() for mask in layer.masks]
