"""The callback that refreshes masks in `fit`, and the function for custom training loops."""

from __future__ import annotations

import tensorflow as tf

from tf_movprune.core import run_checks as core_checks
from tf_movprune.core.arguments import check_integer
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
from tf_movprune.keras2 import compat, run_checks
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.layer_tree import LayerTree, built_layers, kernels_of
from tf_movprune.keras2.training_guard import guard_training, has_known_train_step, is_guarded


def update_masks(model: Layer, step: tf.Tensor | int, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a tf_keras model; see `tf_movprune.update_masks`."""
    wrappers = list(built_layers(model).values())
    check_step(step)
    if tf.executing_eagerly():
        weight = wrappers[0].get_prunable_weights()[0]
        warn_if_not_called(model.name, [wrapper.usage for wrapper in wrappers], weight)
    for wrapper in wrappers:
        wrapper.guard.allow(True, once=True)
    kernels = kernels_of(wrappers)
    refresh_masks(kernels, tf.cast(step, tf.int64), force=force)
    return overall_sparsity(kernels)


class UpdatePruningStep(keras.callbacks.Callback):
    """Refreshes the masks of tf_keras models in `fit`; see `tf_movprune.UpdatePruningStep`."""

    _supports_tf_logs = True

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        if num_train_steps is not None:
            check_integer("num_train_steps", num_train_steps, example=1500, minimum=1)
        self.num_train_steps = num_train_steps
        self._is_training = False
        self._compiled_for: tuple = ()
        self._step_check: StepCheck | None = None

    def on_train_begin(self, logs=None):
        self._layers = built_layers(self.model)
        self._kernels = kernels_of(self._layers.values())
        self._scores = core_checks.scores_by_path(
            {path: layer.kernels for path, layer in self._layers.items()}
        )
        self._allow_training(False)  # raises after strip_pruning
        if getattr(self.model, "optimizer", None) is None:
            raise ValueError(
                f"{self.model.name!r} has no optimizer, whose steps the schedules count. Compile "
                "the model; or, in a loop of your own, call tf_movprune.update_masks(model, step) "
                "before each step in place of this callback."
            )
        run_checks.check_trainable(self.model, self._scores)
        if has_known_train_step(self.model) and hasattr(self.model, "loss"):
            run_checks.check_loss(self.model, self._layers)
        core_checks.check_scores(self._scores, self._step())
        self._is_training, self._window = False, 1
        self._accumulated = compat.accumulation_steps(self.model.optimizer)
        self._sparsity = overall_sparsity(self._kernels)
        self._hide_marker()
        self._progress_marker = _ProgressMarker(name="sparsity")
        keys = [kernel.settings.key for kernel in self._kernels]
        compile_for = (self.model.optimizer, self._kernels, keys)
        if self._compiled_for != compile_for:
            self._compiled_for = compile_for
            self._compiled_refresh = self._compile_refresh()

    def _begin_training(self, epoch: int) -> None:
        """Begins training, at the first point at which the length of the run is known."""
        self._check_schedules(epoch)
        core_checks.warn_if_ahead(self._kernels, self._step())
        warn_if_kernels_were_replaced(
            {path: layer.kernels for path, layer in self._layers.items()}, self._step()
        )
        self._is_training = True
        self._is_used = False
        optimizer = self.model.optimizer
        self._step_check = StepCheck(self._step(), self._accumulated, compat.loss_scale(optimizer))
        self._first_scores = core_checks.sums_of_scores(self._scores)
        _build_optimizer(self.model)
        layers = list(self._layers.values())
        if not is_guarded(self.model, layers):  # it was not pruned itself, and is traced anew
            is_made = getattr(self.model, "train_function", None) is not None  # by `fit`
            LayerTree(self.model).forget_traces()
            guard_training(self.model, layers)
            if is_made:
                self.model.make_train_function()
        self._sparsity = overall_sparsity(self._kernels)  # what was restored, if anything
        self._refresh()  # compiles early: Keras would call it slow in a batch; no other effect

    def _compile_refresh(self):
        # XLA cannot compile mirrored variables.
        is_alone = self.model.distribute_strategy.num_replicas_in_sync == 1
        optimizer = self.model.optimizer
        return compiled_refresh(self._kernels, lambda: optimizer.iterations, jit_compile=is_alone)

    def on_epoch_begin(self, epoch, logs=None):
        self._window = -(-compat.steps_per_execution(self.model) // self._accumulated)
        if not self._is_training:
            self._begin_training(epoch)
        # Keras's progress bar averages a value over the epoch unless one of the model's metrics has
        # its name. It looks when an epoch begins.
        compat.added_metrics(self.model).append(self._progress_marker)

    def on_train_batch_begin(self, batch, logs=None):
        if not self._is_training:  # a loop of one's own has no epochs
            self._begin_training(0)
        self._step_check.begin_batch()
        self._hide_marker()
        self._refresh()
        self._allow_training(True)

    def on_train_batch_end(self, batch, logs=None):
        self._allow_training(False)
        if self._step_check.is_due:
            self._check_steps()
        # A train step of one's own, and Python code, may take turns between layers.
        if not (self._is_used or self.model.run_eagerly) and has_known_train_step(self.model):
            self._check_kernels_used()
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name.
        self._hide_marker()
        core_checks.check_scores(self._scores, self._step())
        self._check_steps()
        if not self._is_used:
            self._check_kernels_used()
        self._refresh()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        self._hide_marker()
        core_checks.check_scores(self._scores, self._step())
        # Without a forced refresh, a run that goes on later does so as if it had never stopped.
        self._refresh(force=self._step() >= (self.num_train_steps or 0))
        self._is_training = False
        self._check_steps()
        if self._step_check is not None and self._step_check.batches:
            core_checks.warn_if_scores_stood_still(self._scores, self._first_scores)
        if self.num_train_steps is None:
            warn_if_unfinished(self._kernels, self._step(), float(self._sparsity))

    def _allow_training(self, value: bool) -> None:
        """Allows training for the current step only, or no longer."""
        for layer in self._layers.values():
            layer.guard.allow(value)

    def _check_kernels_used(self) -> None:
        run_checks.check_kernels_used(self.model, self._layers)
        self._is_used = True

    def _check_steps(self) -> None:
        if self._step_check is not None:
            scale = compat.loss_scale(self.model.optimizer)
            self._step_check.check(self._step(), scale, is_training=self._is_training)

    def _step(self) -> int:
        return step_of(self.model)

    def _refresh(self, force: bool = False) -> None:
        self._sparsity = self._compiled_refresh(self._sparsity, self._window, tf.constant(force))

    def _hide_marker(self) -> None:
        metrics = compat.added_metrics(self.model)
        for marker in [metric for metric in metrics if isinstance(metric, _ProgressMarker)]:
            metrics.remove(marker)

    def _check_schedules(self, epoch: int) -> None:
        params = getattr(self, "params", None) or {}  # a loop of one's own may give none
        start, steps = self._step(), params.get("steps")
        run = None
        if self.num_train_steps is not None:
            run = run_of_steps(start, self.num_train_steps)
        elif steps:
            done = compat.batches_done(self.model, steps, epoch)
            run = run_of_epochs(
                start, steps, params["epochs"] - epoch, done, accumulated=self._accumulated
            )
        if run is not None:
            run_checks.warn_if_rate_ends(self.model.optimizer, run)
        for group in groups(self._kernels):
            if run is not None:
                core_checks.check_schedule(group[0].settings.ramp, run)
            core_checks.warn_if_scores_are_noise(group, start)
            run_checks.warn_if_scores_learn_otherwise(self.model.optimizer, group)
            if params.get("verbose"):
                print(core_checks.describe_ramp(group))


def step_of(model: keras.Model) -> int:
    """The number of steps that a compiled model's optimizer has taken."""
    return int(tf.convert_to_tensor(model.optimizer.iterations))  # `int` refuses mirrored variables


class _ProgressMarker(keras.metrics.Mean):
    """Metric that has a name and is never updated."""


def _build_optimizer(model: keras.Model) -> None:
    """Makes the optimizer's slots, so that TensorFlow need not trace the step twice.

    It traces twice if the first trace makes variables.
    """
    if has_known_train_step(model) and isinstance(model.optimizer, keras.optimizers.Optimizer):
        model.optimizer.build(model.trainable_variables)
