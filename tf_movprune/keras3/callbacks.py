"""The callback that refreshes masks in `fit` of Keras 3, and the function for other loops."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core import run_checks
from tf_movprune.core.first_scores import warn_if_kernels_were_replaced
from tf_movprune.core.masked_kernel import overall_sparsity
from tf_movprune.core.passed_by import warn_if_not_called
from tf_movprune.core.refresh import groups, refresh_masks
from tf_movprune.core.update_step import (
    StepCheck,
    check_step,
    compiled_refresh,
    run_of_epochs,
    run_of_steps,
    warn_if_unfinished,
)
from tf_movprune.keras3 import compat, optimizer_checks
from tf_movprune.keras3.layer_tree import built_layers, kernels_by_path, kernels_of
from tf_movprune.keras3.pruning_state import check_run, state_of
from tf_movprune.keras3.saving import guard_saving
from tf_movprune.keras3.training_guard import ensure_guarded, has_known_train_step


def update_masks(model: Any, step: Any, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a Keras 3 model; see `tf_movprune.update_masks`."""
    layers = built_layers(model).values()
    states = [state_of(layer) for layer in layers]
    check_step(step)
    if tf.executing_eagerly():
        weight = compat.tensorflow_variable(states[0].places[0].variable)
        warn_if_not_called(model.name, [state.usage for state in states], weight)
    for state in states:
        state.guard.allow(True, once=True)
    kernels = kernels_of(layers)
    refresh_masks(kernels, tf.cast(tf.convert_to_tensor(step), tf.int64), force=force)
    return overall_sparsity(kernels)


class UpdatePruningStep(keras.callbacks.Callback):
    """Refreshes the masks of Keras 3 models in `fit`; see `tf_movprune.UpdatePruningStep`."""

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        self.num_train_steps = num_train_steps
        self._compiled_for: tuple = ()
        self._is_training = False
        self._step_check: StepCheck | None = None

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
            optimizer_checks.check_loss(self.model, self._kernels)
        run_checks.check_scores(self._scores, self._step())
        self._is_training = False
        self._accumulated = compat.accumulation_steps(self.model.optimizer)
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
        warn_if_kernels_were_replaced(kernels_by_path(self._layers), self._step())
        self._is_training, self._is_used = True, False
        optimizer = self.model.optimizer
        # Keras counts no step that overflows, so that its scale need not be looked at.
        self._step_check = StepCheck(self._step(), self._accumulated, None)
        self._first_scores = run_checks.sums_of_scores(self._scores)
        if has_known_train_step(self.model) and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        ensure_guarded(self.model, list(self._layers.values()))
        guard_saving(self.model)  # a model around the one that was pruned
        self._sparsity = overall_sparsity(self._kernels)  # what was restored, if anything
        self._refresh()  # compiles before the first batch; no other effect

    def _compile_refresh(self) -> Any:
        strategy = self.model.distribute_strategy  # XLA cannot compile mirrored variables
        is_alone = strategy is None or strategy.num_replicas_in_sync == 1
        optimizer = compat.inner_optimizer(self.model.optimizer)
        return compiled_refresh(self._kernels, lambda: optimizer.iterations, jit_compile=is_alone)

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_training:
            self._begin_training(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if not self._is_training:  # a loop of one's own has no epochs
            self._begin_training(0)
        self._step_check.begin_batch()
        self._refresh()
        self._allow_training(True)

    def on_train_batch_end(self, batch, logs=None):
        self._allow_training(False)
        if self._step_check.is_due:
            self._check_steps()
        # A train step of one's own, and Python code, may take turns between layers.
        if not (self._is_used or self.model.run_eagerly) and has_known_train_step(self.model):
            self._check_kernels_used()

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()

    def on_epoch_end(self, epoch, logs=None):
        run_checks.check_scores(self._scores, self._step())
        if not compat.scales_loss(self.model.optimizer):  # which takes batches to find its scale
            self._check_steps()
        if not self._is_used:
            self._check_kernels_used()
        self._refresh()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        run_checks.check_scores(self._scores, self._step())
        # Without a forced refresh, a run that goes on later does so as if it had never stopped.
        self._refresh(force=self._step() >= (self.num_train_steps or 0))
        self._is_training = False
        if self._step_check is not None and self._step_check.batches:
            self._check_steps()
            run_checks.warn_if_scores_stood_still(self._scores, self._first_scores)
        if self.num_train_steps is None:
            warn_if_unfinished(self._kernels, self._step(), float(self._sparsity))

    def _allow_training(self, value: bool) -> None:
        """Allows training for the current step only, or no longer."""
        for layer in self._layers.values():
            state_of(layer).guard.allow(value)

    def _check_steps(self) -> None:
        if self._step_check is not None:
            self._step_check.check(self._step(), None, is_training=self._is_training)

    def _check_kernels_used(self) -> None:
        variables = self.model.trainable_variables
        trained = {id(compat.tensorflow_variable(variable)) for variable in variables}
        for layer in self._layers.values():
            check_run(layer, trained)
        self._is_used = True

    def _step(self) -> int:
        return step_of(self.model)

    def _refresh(self, force: bool = False) -> None:
        window = -(-int(self.model.steps_per_execution) // self._accumulated)
        self._sparsity = self._compiled_refresh(self._sparsity, window, tf.constant(force))

    def _check_schedules(self, epoch: int) -> None:
        params = self.params or {}
        start, steps = self._step(), params.get("steps")
        run = None
        if self.num_train_steps is not None:
            run = run_of_steps(start, self.num_train_steps)
        elif steps:
            run = run_of_epochs(
                start, steps, params["epochs"] - epoch, accumulated=self._accumulated
            )
        if run is not None:
            optimizer_checks.warn_if_rate_ends(self.model.optimizer, run)
        for group in groups(self._kernels):
            if run is not None:
                run_checks.check_schedule(group[0].settings.ramp, run)
            run_checks.warn_if_scores_are_noise(group, start)
            optimizer_checks.warn_if_scores_learn_otherwise(self.model.optimizer, group)
            if params.get("verbose"):
                print(run_checks.describe_ramp(group))


def step_of(model: keras.Model) -> int:
    """The number of steps that a compiled model's optimizer has taken."""
    return int(tf.convert_to_tensor(compat.inner_optimizer(model.optimizer).iterations))
