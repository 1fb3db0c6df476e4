"""Keras callbacks that drive the schedule, and show what it does."""

from __future__ import annotations

import os
import warnings

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.refresh import (
    built_layers,
    groups,
    overall_sparsity,
    refresh_masks,
    settings_of,
)
from tf_movprune.keras2 import checks
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer import PruneLowMovement


class UpdatePruningStep(keras.callbacks.Callback):
    """Refreshes the masks before each training step, as their schedules say.

    The step is the optimizer's `iterations`, so that training goes on where a restored optimizer
    left off. With `steps_per_execution` above 1 masks are refreshed once to each execution. After
    training, and after an early stop, they are refreshed a last time from the final scores.
    Overall `sparsity` appears in the progress bar and in `History`.

    Put it first in the list of callbacks, so that those that save or log see what it did. Callbacks
    that restore earlier weights, such as `EarlyStopping(restore_best_weights=True)`, restore their
    masks too: let them choose among the epochs at the final sparsity only.

    Args:
      num_train_steps: steps of the whole training, where it takes several calls of `fit`: then
        schedules are checked against it and not against each call, and the last refresh waits for
        the last step.

    Raises (when `fit` starts):
      RuntimeError: `strip_pruning` has folded the masks in.
      ValueError: nothing in the model is pruned, or it is not built yet; a schedule ends after
        the run, or never fires in it; scores are frozen, unknown to the optimizer, or NaN; there is
        no loss but the penalty of pruning.

    Warns of runs that go on where the learning rate of `create_optimizer` has fallen to 0.
    """

    _supports_tf_logs = True

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        if num_train_steps is not None and (
            check_integer("num_train_steps", num_train_steps, example=1500) < 1
        ):
            raise ValueError(f"num_train_steps must be at least 1, got {num_train_steps}.")
        self.num_train_steps = num_train_steps
        self._is_training = False
        self._compiled_for: tuple = ()

    def on_train_begin(self, logs=None):
        self._layers = built_layers(self.model)
        self._vouch(False)  # raises after strip_pruning
        checks.check_trainable(self.model, self._layers)
        if _has_known_train_step(self.model):
            checks.check_loss(self.model, self._layers)
        checks.check_scores(self._layers, self._step())
        self._is_training, self._window = False, 1
        self._sparsity = overall_sparsity(self._layers.values())
        self._hide_marker()
        self._progress_marker = _ProgressMarker(name="sparsity")
        layers = list(self._layers.values())
        compile_for = (self.model.optimizer, layers, [settings_of(layer) for layer in layers])
        if self._compiled_for != compile_for:
            self._compiled_for = compile_for
            self._compiled_refresh = self._compile_refresh()

    def _begin_training(self, epoch: int) -> None:
        """The first point at which the length of the run is known."""
        self._check_schedules(epoch)
        checks.warn_if_ahead(self._layers.values(), self._step())
        self._is_training = True
        _build_optimizer(self.model)
        _guard_training(self.model, list(self._layers.values()))
        self._refresh()  # compiles here what Keras would call slow in a batch; changes nothing else

    def _compile_refresh(self):
        layers, iterations = self._layers.values(), self.model.optimizer.iterations

        # XLA fuses each pass of a selection; it cannot compile mirrored variables.
        compiled = self.model.distribute_strategy.num_replicas_in_sync == 1

        @tf.function(jit_compile=compiled, autograph=False)
        def refresh(sparsity, window, force):
            refreshed = refresh_masks(layers, iterations + 0, window=window, force=force)
            return tf.cond(refreshed, lambda: overall_sparsity(layers), lambda: sparsity)

        return refresh

    def on_epoch_begin(self, epoch, logs=None):
        self._window = _integer(getattr(self.model, "_steps_per_execution", None) or 1)
        if not self._is_training:
            self._begin_training(epoch)
        # Keras's progress bar averages every value over the epoch that does not bear the name of
        # one of the model's metrics. It looks when an epoch begins.
        self.model._metrics.append(self._progress_marker)

    def on_train_batch_begin(self, batch, logs=None):
        self._hide_marker()
        self._refresh()
        self._vouch(True)

    def on_train_batch_end(self, batch, logs=None):
        self._vouch(False)
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()

    def on_epoch_end(self, epoch, logs=None):
        self._hide_marker()
        checks.check_scores(self._layers, self._step())
        self._refresh()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        self._hide_marker()
        checks.check_scores(self._layers, self._step())
        # A run that goes on later does so as if it had never stopped.
        self._refresh(force=self._step() >= (self.num_train_steps or 0))
        self._is_training = False
        self._warn_if_unfinished()

    def _vouch(self, value: bool) -> None:
        """Only during a step: another step is for others to vouch for."""
        for layer in self._layers.values():
            layer.masks_are_refreshed = value

    def _step(self) -> int:
        return _integer(self.model.optimizer.iterations)

    def _refresh(self, force: bool = False) -> None:
        self._sparsity = self._compiled_refresh(self._sparsity, self._window, tf.constant(force))

    def _hide_marker(self) -> None:
        metrics = self.model._metrics
        for marker in [metric for metric in metrics if isinstance(metric, _ProgressMarker)]:
            metrics.remove(marker)

    def _check_schedules(self, epoch: int) -> None:
        start, steps = self._step(), self.params.get("steps")
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
        if run is not None:
            checks.warn_if_rate_ends(self.model.optimizer, run)
        for group in groups(self._layers.values()):
            if run is not None:
                checks.check_schedule(group.schedule, run)
            if self.params.get("verbose"):
                print(checks.describe_ramp(group.schedule, group.layers))

    def _warn_if_unfinished(self) -> None:
        """Of runs that stopped early, or whose length was not known when they began."""
        step = self._step()
        schedules = (layer.pruning_schedule for layer in self._layers.values())
        end = max(getattr(schedule, "end_step", -1) for schedule in schedules)
        if step < end and self.num_train_steps is None:
            warnings.warn(
                f"Training stopped at step {step}, before the schedule's end_step {end}: sparsity "
                f"is {float(self._sparsity):.3f}.",
                stacklevel=2,
            )


def _integer(value: tf.Variable | int) -> int:
    """Of mirrored variables too, which `int` refuses."""
    return int(tf.convert_to_tensor(value))


class _ProgressMarker(keras.metrics.Mean):
    """Has a name, and is never updated."""


def _has_known_train_step(model: keras.Model) -> bool:
    """Whether it trains all variables of the model on its losses; others are users' own."""
    known = ("tf_keras.", "transformers.", "tf_movprune.")
    methods = (model.train_step, model.compute_loss)
    return all(method.__module__.startswith(known) for method in methods)


def _build_optimizer(model: keras.Model) -> None:
    """Makes the optimizer's slots, so that TensorFlow need not trace the step twice.

    It does where the first trace makes variables.
    """
    if _has_known_train_step(model) and isinstance(model.optimizer, keras.optimizers.Optimizer):
        model.optimizer.build(model.trainable_variables)


class _TrainFunction:
    """A model's train function, which raises where nothing refreshed the masks for a step.

    The layers raise too, but only while they are traced. This stays with the model, where `fit`
    ended and where it was interrupted.
    """

    def __init__(self, model: keras.Model, layers: list[PruneLowMovement]):
        model.train_function = None  # what a `fit` without masks left can make no more variables
        self.function = model.make_train_function()
        self.compiled_loss = model.compiled_loss
        self.layers = layers

    def __call__(self, iterator):
        for layer in self.layers:
            layer.check_refreshed()
        try:
            return self.function(iterator)
        except BaseException:
            for layer in self.layers:
                layer.masks_are_refreshed = False
            raise


def _guard_training(model: keras.Model, layers: list[PruneLowMovement]) -> None:
    """Makes the model's train function one that needs refreshed masks. It is compiled once."""
    function = model.train_function
    is_current = isinstance(function, _TrainFunction) and (
        function.compiled_loss is model.compiled_loss
    )
    if not is_current:
        model.train_function = _TrainFunction(model, layers)


class PruningSummaries(keras.callbacks.Callback):
    """Writes sparsity to TensorBoard: overall and by layer, thresholds, and mask churn.

    Churn is the fraction of mask entries that changed since the last summary.

    Args:
      log_dir: where the event files go; they are written below `log_dir/pruning`.
      update_freq: `"epoch"`, or a number of training steps of at least 1.

    Raises:
      ImportError: TensorBoard is not installed.
      ValueError: `update_freq` is neither.
    """

    _supports_tf_logs = True

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        if update_freq != "epoch" and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(
                'update_freq must be "epoch" or a number of steps of at least 1, got '
                f"{update_freq!r}."
            )
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "PruningSummaries needs TensorBoard. Install it with `pip install tensorboard`, or "
                'tf_movprune with `pip install "tf_movprune[tensorboard]"`.'
            ) from error
        self.log_dir = log_dir
        self.update_freq = update_freq

    def on_train_begin(self, logs=None):
        self._layers = built_layers(self.model)
        self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "pruning"))
        self._previous = {path: _copies(layer) for path, layer in self._layers.items()}
        self._last_step = _integer(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            step = _integer(self.model.optimizer.iterations)
            if step // self.update_freq > self._last_step // self.update_freq:
                self._write(step)
            self._last_step = step

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch":
            self._write(_integer(self.model.optimizer.iterations))

    def on_train_end(self, logs=None):
        self._write(_integer(self.model.optimizer.iterations))
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
