"""The callback that refreshes masks in `fit` of Keras 3, and the function for other loops."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core import run_checks
from tf_movprune.core.masked_kernel import overall_sparsity
from tf_movprune.core.refresh import groups, refresh_masks
from tf_movprune.core.run_checks import Run
from tf_movprune.core.wording import counted
from tf_movprune.keras3 import compat, optimizer_checks
from tf_movprune.keras3.layer_tree import built_layers, kernels_by_path, kernels_of
from tf_movprune.keras3.pruned_layer import state_of
from tf_movprune.keras3.training_guard import ensure_guarded, has_known_train_step


def update_masks(model: Any, step: Any, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a Keras 3 model; see `tf_movprune.update_masks`."""
    layers = built_layers(model).values()
    step = compat.tensorflow_value(step)
    _check_step(step)
    for layer in layers:
        state_of(layer).guard.allow(True, once=True)
    kernels = kernels_of(layers)
    refresh_masks(kernels, tf.cast(step, tf.int64), force=force)
    return overall_sparsity(kernels)


def _check_step(step: Any) -> None:
    dtype = getattr(step, "dtype", type(step))
    is_integer = dtype is int or (dtype is not type(step) and tf.as_dtype(dtype).is_integer)
    if not is_integer:
        raise TypeError(
            "step must be an integer, the number of optimizer steps taken so far, got "
            f"{step!r}. Pass model.optimizer.iterations, or count the steps of your own loop."
        )
    if not tf.is_tensor(step) and step < 0:
        raise ValueError(f"step must be at least 0, got {step}.")


class UpdatePruningStep(keras.callbacks.Callback):
    """Refreshes the masks of Keras 3 models in `fit`; see `tf_movprune.UpdatePruningStep`."""

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        self.num_train_steps = num_train_steps
        self._compiled_for: tuple = ()
        self._is_training = False

    def on_train_begin(self, logs=None):
        self._layers = built_layers(self.model)
        self._kernels = kernels_of(self._layers.values())
        self._scores = run_checks.scores_by_path(kernels_by_path(self._layers))
        self._allow_training(False)
        if self.model.optimizer is None:
            raise ValueError(
                f"{self.model.name!r} has no optimizer, whose steps the schedules count. Compile "
                "the model; or, in a loop of your own, call tf_movprune.update_masks(model, step) "
                "before each step in place of this callback."
            )
        optimizer_checks.check_trainable(self.model, self._scores)
        if has_known_train_step(self.model):
            optimizer_checks.check_loss(self.model)
        run_checks.check_scores(self._scores, self._step())
        self._is_training = False
        self._sparsity = overall_sparsity(self._kernels)
        keys = [kernel.settings.key for kernel in self._kernels]
        compile_for = (self.model.optimizer, self._kernels, keys)
        if self._compiled_for != compile_for:
            self._compiled_for = compile_for
            self._compiled_refresh = self._compile_refresh()

    def _begin_training(self, epoch: int) -> None:
        """Begins training, at the first point at which the length of the run is known."""
        self._check_schedules(epoch)
        run_checks.warn_if_ahead(self._kernels, self._step())
        self._is_training, self._batches, self._has_stepped = True, 0, False
        self._first_step = self._step()
        self._first_scores = run_checks.sums_of_scores(self._scores)
        if has_known_train_step(self.model) and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        ensure_guarded(self.model, list(self._layers.values()))
        self._refresh()  # compiles before the first batch; no other effect

    def _compile_refresh(self) -> Any:
        kernels, optimizer = self._kernels, compat.inner_optimizer(self.model.optimizer)
        strategy = self.model.distribute_strategy
        compiled = strategy is None or strategy.num_replicas_in_sync == 1

        @tf.function(jit_compile=compiled, autograph=False)
        def refresh(sparsity, window, force):
            step = tf.cast(compat.tensorflow_value(optimizer.iterations), tf.int64)
            refreshed = refresh_masks(kernels, step, window=window, force=force)
            return tf.cond(refreshed, lambda: overall_sparsity(kernels), lambda: sparsity)

        return refresh

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_training:
            self._begin_training(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if not self._is_training:  # a loop of one's own has no epochs
            self._begin_training(0)
        self._batches += 1
        self._refresh()
        self._allow_training(True)

    def on_train_batch_end(self, batch, logs=None):
        self._allow_training(False)
        if self._batches == self._patience():
            self._check_steps()

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()

    def on_epoch_end(self, epoch, logs=None):
        run_checks.check_scores(self._scores, self._step())
        self._check_steps()
        self._refresh()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        run_checks.check_scores(self._scores, self._step())
        # Without a forced refresh, a run that goes on later does so as if it had never stopped.
        self._refresh(force=self._step() >= (self.num_train_steps or 0))
        if self._is_training and self._batches:
            self._check_steps()
            run_checks.warn_if_scores_stood_still(self._scores, self._first_scores)
        self._is_training = False
        self._warn_if_unfinished()

    def _warn_if_unfinished(self) -> None:
        """Warns of runs that stopped early, or whose length was not known when they began."""
        step = self._step()
        end = max(kernel.settings.ramp.end_step or 0 for kernel in self._kernels)
        if step < end and self.num_train_steps is None:
            warnings.warn(
                f"Training stopped at step {step}, before the schedule's end_step {end}: sparsity "
                f"is {float(self._sparsity):.3f}.",
                stacklevel=2,
            )

    def _allow_training(self, value: bool) -> None:
        """Allows training for the current step only, or no longer."""
        for layer in self._layers.values():
            state_of(layer).guard.allow(value)

    def _patience(self) -> int:
        optimizer = compat.inner_optimizer(self.model.optimizer)
        accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        return max(64, accumulated)

    def _check_steps(self) -> None:
        optimizer = compat.inner_optimizer(self.model.optimizer)
        accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        if self._has_stepped or self._batches < accumulated:
            return
        if self._step() == self._first_step:
            raise RuntimeError(
                f"model.optimizer has taken no step in {counted(self._batches, 'batch', 'batches')}"
                ", so the masks would not depend on training. If the model trains with optimizers "
                "of its own, call tf_movprune.update_masks(model, step) at the start of its "
                "train_step. If gradients overflow in half precision, lower the learning rate or "
                "the initial loss scale."
            )
        self._has_stepped = True

    def _step(self) -> int:
        optimizer = compat.inner_optimizer(self.model.optimizer)
        return int(compat.tensorflow_value(optimizer.iterations))

    def _refresh(self, force: bool = False) -> None:
        window = int(getattr(self.model, "steps_per_execution", 1) or 1)
        self._sparsity = self._compiled_refresh(self._sparsity, window, tf.constant(force))

    def _check_schedules(self, epoch: int) -> None:
        params = self.params or {}
        start, steps = self._step(), params.get("steps")
        run = None
        if self.num_train_steps is not None:
            run = Run(start, self.num_train_steps, f"num_train_steps is {self.num_train_steps}")
        elif steps:
            epochs = params["epochs"] - epoch
            length = f"this run has {counted(epochs * steps, 'step')} ({steps} × {epochs})"
            run = Run(start, start + epochs * steps, length)
        if run is not None:
            optimizer_checks.warn_if_rate_ends(self.model.optimizer, run)
        for group in groups(self._kernels):
            if run is not None:
                run_checks.check_schedule(group[0].settings.ramp, run)
            run_checks.warn_if_scores_are_noise(group, start)
            optimizer_checks.warn_if_scores_learn_otherwise(self.model.optimizer, group)
            if params.get("verbose"):
                print(run_checks.describe_ramp(group))
