"""The hooks of `UpdatePruningStep` that are the same in both shells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import tensorflow as tf

from tf_movprune.core.finite_check import FiniteCheck, Weights, joined, weights_of
from tf_movprune.core.first_scores import warn_if_kernels_were_replaced
from tf_movprune.core.kept_zeros import check_anything_is_masked, warn_if_zeros_are_elsewhere
from tf_movprune.core.masked_kernel import MaskedKernel, each_once, overall_sparsity
from tf_movprune.core.optimizer_steps import accumulation_steps, inner_optimizer, step_of
from tf_movprune.core.refresh import groups, is_idle
from tf_movprune.core.run_checks import (
    Run,
    check_schedule,
    describe_ramp,
    scores_by_path,
    sums_of_scores,
    warn_if_ahead,
    warn_if_scores_are_noise,
    warn_if_scores_stood_still,
)
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.core.update_step import (
    CompiledRefresh,
    StepCheck,
    run_of_epochs,
    run_of_steps,
    warn_if_unfinished,
)

_BATCHES_BEFORE_COMPILING = 8  # tf_keras calls hooks slow by what they take in the first five


class UpdateHooks:
    """Refreshes masks in `fit`, to be mixed into `keras.callbacks.Callback`.

    A shell adds its module `optimizer_checks`, and the methods below that raise
    NotImplementedError.
    """

    _optimizer_checks: ModuleType
    model: Any
    params: Any

    def __init__(self, num_train_steps: int | None = None):
        super().__init__()
        self.num_train_steps = num_train_steps
        self._is_training = False
        self._compiled_for: tuple[Any, ...] = ()
        self._checked: list[int] | None = None
        self._described: set[str] = set()
        self._step_check: StepCheck | None = None

    # ---- what a shell adds

    def _find_layers(self) -> None:
        """Finds the pruned layers of the model. Raises ValueError if there are none."""
        raise NotImplementedError

    def _kernels_by_path(self) -> Mapping[str, Sequence[MaskedKernel]]:
        """The masked kernels of the layers, by the path of their layer."""
        raise NotImplementedError

    def _trainable_weights(self) -> Weights:
        """The trainable weights of the model, by the path of their layer."""
        raise NotImplementedError

    def _guards(self) -> Iterable[TrainingGuard]:
        """The guards of the layers."""
        raise NotImplementedError

    def _check_compiled(self, scores: Mapping[str, tf.Variable]) -> None:
        """Raises ValueError if scores cannot learn, or nothing is learned but their penalty."""
        raise NotImplementedError

    def _make_ready(self) -> None:
        """Builds the optimizer, and guards the model that is trained."""
        raise NotImplementedError

    def _steps_per_execution(self) -> int:
        """Number of batches of which one call of the train function takes the steps."""
        raise NotImplementedError

    def _batches_done(self, steps: int, epoch: int) -> int:
        """Batches of the first epoch, which has `steps`, that an interrupted run has taken."""
        return 0

    def _loss_scale(self) -> float | None:
        """The factor by which the optimizer scales the loss, if steps that overflow count."""
        return None

    def _steps_may_be_late(self) -> bool:
        """Returns whether the optimizer may take epochs to find the scale of the loss."""
        return False

    def _has_known_train_step(self) -> bool:
        """Returns whether the train step is known to train all variables on the losses."""
        raise NotImplementedError

    def _check_kernels_used(self) -> None:
        """Raises ValueError if steps were taken without a pruned layer, or scores."""
        raise NotImplementedError

    # ---- hooks

    def on_train_begin(self, logs=None):
        self._find_layers()
        kernels = self._kernels_by_path()
        self._kernels = each_once(kernel for members in kernels.values() for kernel in members)
        self._scores = scores_by_path(kernels)
        self._allow_training(False)  # raises after strip_pruning
        if getattr(self.model, "optimizer", None) is None:
            raise ValueError(
                f"{self.model.name!r} has no optimizer, whose steps the schedules count. Compile "
                "the model; or, in a loop of your own, call tf_movprune.update_masks(model, step) "
                "before each step in place of this callback."
            )
        self._check_compiled(self._scores)
        self._is_training, self._window, self._execution = False, 1, 1
        self._accumulated = accumulation_steps(self.model.optimizer)
        self._sparsity = overall_sparsity(self._kernels)
        keys = [kernel.settings.key for kernel in self._kernels]
        compile_for = (self.model.optimizer, self._kernels, keys)
        if self._compiled_for != compile_for:
            self._compiled_for = compile_for
            self._compiled_refresh = self._compile_refresh()
        self._prepare_finite_check(kernels)

    def on_epoch_begin(self, epoch, logs=None):
        self._execution = self._steps_per_execution()
        self._window = -(-self._execution // self._accumulated)
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
        self._check_finite(batch)  # before other callbacks save what the step made
        if self._step_check.batches == _BATCHES_BEFORE_COMPILING:
            self._compile_meanwhile()
        if self._step_check.is_due:
            self._check_steps()
        # A train step of one's own, and Python code, may take turns between layers.
        if not (self._is_used or self.model.run_eagerly) and self._has_known_train_step():
            self._check_kernels_used()
            self._is_used = True

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._refresh()

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name, and do not
        # say that a batch ends.
        self._allow_training(False)
        self._check_finite()
        if not self._steps_may_be_late():
            self._check_steps()
        if not self._is_used:
            self._check_kernels_used()
            self._is_used = True
        self._refresh()
        if logs is not None:
            logs["sparsity"] = float(self._sparsity)

    def on_train_end(self, logs=None):
        # Without a forced refresh, a run that goes on later does so as if it had never stopped.
        self._refresh(force=step_of(self.model) >= (self.num_train_steps or 0))
        self._is_training = False
        if self._step_check is not None and self._step_check.batches:
            self._check_steps()
            warn_if_scores_stood_still(self._scores, self._first_scores)
        if self.num_train_steps is None:
            warn_if_unfinished(self._kernels, step_of(self.model), float(self._sparsity))

    def _begin_training(self, epoch: int) -> None:
        """Begins training, at the first point at which the length of the run is known."""
        step = step_of(self.model)
        self._check_finite()
        self._check_schedules(step, epoch)
        check_anything_is_masked(self._kernels)
        warn_if_ahead(self._kernels, step)
        warn_if_zeros_are_elsewhere(self._kernels_by_path(), step)
        warn_if_kernels_were_replaced(self._kernels_by_path(), step)
        self._is_training, self._is_used = True, False
        self._step_check = StepCheck(step, self._accumulated, self._loss_scale())
        self._first_scores = sums_of_scores(self._scores)
        self._make_ready()
        self._sparsity = overall_sparsity(self._kernels)  # what was restored, if anything
        # Refreshes are compiled beside the training, by the first batches, and before these if one
        # of them needs a refresh: while Keras traces the training step, if the very first does not.
        ahead = (step + i * self._window for i in range(_BATCHES_BEFORE_COMPILING + 1))
        if not all(map(self._is_idle, ahead)):
            if self._is_idle(step):
                self._compile_meanwhile()
            else:
                self._refresh()

    def _is_mirrored(self) -> bool:
        """Returns whether replicas mirror the variables, which XLA cannot compile then."""
        strategy = self.model.distribute_strategy
        return strategy is not None and strategy.num_replicas_in_sync > 1

    def _compile_refresh(self) -> CompiledRefresh:
        optimizer, jit_compile = inner_optimizer(self.model.optimizer), not self._is_mirrored()
        return CompiledRefresh(self._kernels, lambda: optimizer.iterations, jit_compile=jit_compile)

    def _prepare_finite_check(self, kernels: Mapping[str, Sequence[MaskedKernel]]) -> None:
        weights = joined(self._trainable_weights(), weights_of(kernels))
        checked = [id(variable) for members in weights.values() for variable in members]
        if self._checked != checked:
            self._checked = checked
            self._finite_check = FiniteCheck(weights, is_mirrored=self._is_mirrored())

    def _check_finite(self, batch: int | None = None) -> None:
        # A batch spoils weights when its execution ends, and the step that sums its gradients.
        batches = self._execution + self._accumulated - 1
        self._finite_check(step_of(self.model), batch, batches)

    def _is_idle(self, step: int) -> bool:
        return is_idle(self._kernels, step, self._window, float(self._sparsity))

    def _compile_meanwhile(self) -> None:
        if not self._compiled_refresh.is_begun:
            self._compiled_refresh.compile_meanwhile(self._sparsity, self._window)

    def _refresh(self, force: bool = False) -> None:
        self._check_finite()
        can_wait = not (force or self._compiled_refresh.is_ready)
        if can_wait and self._is_idle(step_of(self.model)):
            return
        self._sparsity = self._compiled_refresh(self._sparsity, self._window, force=force)

    def _allow_training(self, value: bool) -> None:
        """Allows training for the current step only, or no longer."""
        for guard in self._guards():
            guard.allow(value)

    def _check_steps(self) -> None:
        if self._step_check is not None:
            step, scale = step_of(self.model), self._loss_scale()
            self._step_check.check(step, scale, is_training=self._is_training)

    def _check_schedules(self, step: int, epoch: int) -> None:
        params = getattr(self, "params", None) or {}  # a loop of one's own may give none
        run = self._run(step, epoch, params)
        optimizer = self.model.optimizer
        if run is not None:
            self._optimizer_checks.warn_if_rate_ends(optimizer, run)
        for group in groups(self._kernels):
            if run is not None:
                check_schedule(group[0].settings.ramp, run)
            warn_if_scores_are_noise(group, step)
            self._optimizer_checks.warn_if_scores_learn_otherwise(optimizer, group)
            ramp = describe_ramp(group)
            if params.get("verbose") and ramp not in self._described:
                print(ramp)
                self._described.add(ramp)

    def _run(self, step: int, epoch: int, params: Mapping[str, Any]) -> Run | None:
        """The steps of the run that begins; None if its length is not known."""
        if self.num_train_steps is not None:
            return run_of_steps(step, self.num_train_steps)
        steps = params.get("steps")
        if not steps:
            return None
        done = self._batches_done(steps, epoch)
        epochs = params["epochs"] - epoch
        return run_of_epochs(step, steps, epochs, done, accumulated=self._accumulated)
