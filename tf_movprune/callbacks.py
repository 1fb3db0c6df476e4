"""Keras callbacks that drive the schedule, and show what it does."""

from __future__ import annotations

import os
import warnings

import numpy as np
import tensorflow as tf

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
      ValueError: nothing in the model is pruned; a schedule ends after the run, or never fires in
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
        self._check_optimizer()
        self._check_scores()
        self._schedule_is_checked = False
        self._is_training = True
        self._sparsity = overall_sparsity(self._layers)
        self._progress_marker = keras.metrics.Mean(name="sparsity")
        self._compiled_refresh = self._compile_refresh()

    def _compile_refresh(self):
        layers, iterations = self._layers, self._iterations

        # XLA fuses each pass of a selection; it cannot compile mirrored variables.
        compiled = self.model.distribute_strategy.num_replicas_in_sync == 1

        @tf.function(jit_compile=compiled)
        def refresh(sparsity, window, force):
            refreshed = refresh_masks(layers, iterations + 0, window=window, force=force)
            return tf.cond(refreshed, lambda: overall_sparsity(layers), lambda: sparsity)

        return refresh

    def on_epoch_begin(self, epoch, logs=None):
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
        self._check_scores()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        self._hide_marker()
        self._check_scores()
        self._refresh(force=True)
        self._is_training = False
        for layer in self._layers:
            layer.masks_are_refreshed = False
        self._warn_if_unfinished()

    def _refresh(self, force: bool = False) -> None:
        window = int(getattr(self.model, "_steps_per_execution", 1) or 1)
        self._sparsity = self._compiled_refresh(self._sparsity, window, tf.constant(force))

    def _hide_marker(self) -> None:
        if self._progress_marker in self.model._metrics:
            self.model._metrics.remove(self._progress_marker)

    # ---- checks

    def _check_optimizer(self) -> None:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        known = getattr(optimizer, "_index_dict", None)
        own = getattr(getattr(optimizer, "score_optimizer", None), "_index_dict", {})
        if known is None or not getattr(optimizer, "_built", False):
            return
        for layer in self._layers:
            for scores in layer.scores:
                key = optimizer._var_key(scores)
                if key not in known and key not in own:
                    raise ValueError(
                        "The optimizer was built before the model was pruned, and does not know "
                        f"{scores.name!r}. Compile the pruned model with a new optimizer."
                    )

    def _check_scores(self) -> None:
        for path, layer in pruned_layers(self.model).items():
            for scores in layer.scores:
                if not np.isfinite(tf.reduce_sum(scores)):
                    raise ValueError(
                        f"The movement scores of {path} contain NaN or infinity at step "
                        f"{int(self._iterations)}. Go back to the last checkpoint, and lower the "
                        "learning rate, clip gradients, or use a LossScaleOptimizer under "
                        "mixed_float16."
                    )

    def _check_schedules(self, epoch: int) -> None:
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        start = int(self._iterations)
        end = self.num_train_steps
        run = f"training has num_train_steps={end} steps"
        if end is None:
            if not steps:
                return
            end = start + (epochs - epoch) * steps
            run = f"this run has {end} steps ({steps} × {epochs - epoch}"
            run += f", from step {start})" if start else ")"
        for schedule in {
            id(layer.pruning_schedule): layer.pruning_schedule for layer in self._layers
        }.values():
            last = getattr(schedule, "end_step", -1)
            if last > end:
                reached = float(schedule(tf.constant(end, tf.int64))[1])
                raise ValueError(
                    f"The schedule ends at step {last}, but {run}: it would stop at sparsity "
                    f"{reached:.2f}. Lower end_step or train longer. If this is one of several "
                    "calls of fit, pass num_train_steps to UpdatePruningStep."
                )
            if not self._ever_fires(schedule, start, end):
                raise ValueError(
                    f"The schedule {type(schedule).__name__} never prunes on its way: {run}, "
                    f"begin_step is {getattr(schedule, 'begin_step', 0)} and frequency "
                    f"{getattr(schedule, 'frequency', 1)}. Lower begin_step or frequency, or "
                    "train longer."
                )

    @staticmethod
    def _ever_fires(schedule, start: int, end: int) -> bool:
        begin = getattr(schedule, "begin_step", 0)
        last = getattr(schedule, "end_step", -1)
        last = end if last < 0 else last
        if start > last:
            return True  # a later part of a training that was pruned before
        frequency = getattr(schedule, "frequency", 1)
        constant = not hasattr(schedule, "initial_sparsity")
        first = begin if constant else begin + frequency
        return first < end and first <= last

    def _warn_if_unfinished(self) -> None:
        """Of runs whose length was not known when they began."""
        step = int(self._iterations)
        for layer in self._layers:
            end_step = getattr(layer.pruning_schedule, "end_step", -1)
            if step < end_step and self.num_train_steps is None:
                warnings.warn(
                    f"Training stopped at step {step}, before the schedule's end_step {end_step}: "
                    f"sparsity is {float(self._sparsity):.3f}.",
                    stacklevel=2,
                )
                return


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
