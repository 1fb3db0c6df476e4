"""What `UpdatePruningStep` and `update_masks` do in every shell."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.finite_check import check_finite, weights_of
from tf_movprune.core.kernel_usage import KernelUsage
from tf_movprune.core.masked_kernel import MaskedKernel, each_once, overall_sparsity
from tf_movprune.core.passed_by import warn_if_not_called
from tf_movprune.core.refresh import refresh_masks
from tf_movprune.core.run_checks import Run
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import counted

_BATCHES_WITHOUT_STEP = 64  # more than a loss scale needs, and most accumulate gradients over


def check_step(step: Any) -> None:
    """Checks the `step` of `update_masks`: an integer of Python, NumPy, TensorFlow or Keras.

    Raises:
      TypeError: `step` is not an integer.
      ValueError: `step` is no scalar, or negative, if its value is known.
    """
    dtype = getattr(step, "dtype", type(step))
    is_integer = dtype is int or (dtype is not type(step) and tf.as_dtype(dtype).is_integer)
    if not is_integer:
        raise TypeError(
            "step must be an integer, the number of optimizer steps taken so far, got "
            f"{step!r}. Pass model.optimizer.iterations, or count the steps of your own loop."
        )
    shape = tuple(getattr(step, "shape", ()))
    if shape != ():
        raise ValueError(f"step must be a single integer, got one of shape {shape}.")
    is_known = isinstance(step, int | np.integer | np.ndarray)
    if not is_known and tf.is_tensor(step):
        step = tf.get_static_value(tf.convert_to_tensor(step))
        is_known = step is not None
    if is_known and step < 0:
        raise ValueError(f"step must be at least 0, got {step}.")


def refresh_for_step(
    kernels: Mapping[str, Sequence[MaskedKernel]],
    guards: Iterable[TrainingGuard],
    step: Any,
    *,
    force: bool,
    name: str,
    usages: Iterable[KernelUsage],
    weight: tf.Variable,
) -> tf.Tensor:
    """Refreshes masks, and allows the training step that follows.

    Args:
      kernels: masked kernels by the path of their layer; several layers may share one.
      guards: guards of their layers.
      step: the number of optimizer steps taken so far.
      force: whether to refresh what is not due too.
      name: name of the model, for messages.
      usages: what the layers note of the use of their kernels.
      weight: the first kernel, for messages.

    Returns:
      The overall sparsity, a float32 scalar; NaN if masks stay because a score or weight is NaN or
      infinite, which under XLA nothing else tells.
    """
    all_kernels = each_once(kernel for members in kernels.values() for kernel in members)
    check_step(step)
    if tf.executing_eagerly():
        warn_if_not_called(name, list(usages), weight)
    step = tf.cast(tf.convert_to_tensor(step), tf.int64)
    are_finite = check_finite(weights_of(kernels), step)
    for guard in guards:
        guard.allow(True, once=True)
    tf.cond(
        are_finite,
        lambda: refresh_masks(all_kernels, step, force=force),
        lambda: tf.constant(False),
    )
    return tf.where(are_finite, overall_sparsity(all_kernels), np.nan)


class CompiledRefresh:
    """A `tf.function` that refreshes the masks which are due.

    Args:
      kernels: masked kernels, each once.
      iterations: function that returns the number of optimizer steps taken so far, an integer
        scalar. It is called inside of the `tf.function`, as optimizers may compute it from a
        count of batches.
      jit_compile: whether XLA compiles the function; it fuses each pass of a selection.

    Attributes:
      is_begun: true once it was called, or compiled meanwhile.
    """

    def __init__(
        self, kernels: Sequence[MaskedKernel], iterations: Callable[[], Any], *, jit_compile: bool
    ):
        @tf.function(jit_compile=jit_compile, autograph=False)
        def refresh(sparsity, window, force, is_wanted):
            def refreshed_sparsity():
                step = tf.cast(tf.convert_to_tensor(iterations()), tf.int64)
                refreshed = refresh_masks(kernels, step, window=window, force=force)
                return tf.cond(refreshed, lambda: overall_sparsity(kernels), lambda: sparsity)

            return tf.cond(is_wanted, refreshed_sparsity, lambda: sparsity)

        self._function = refresh
        self._jit_compile = jit_compile
        self._compilation: concurrent.futures.Future[Any] | None = None
        self.is_begun = False

    @property
    def is_ready(self) -> bool:
        """True if a call need not wait until it is traced and compiled."""
        return self.is_begun and (self._compilation is None or self._compilation.done())

    def __call__(self, sparsity: tf.Tensor, window: int, *, force: bool = False) -> tf.Tensor:
        """Refreshes.

        Args:
          sparsity: the overall sparsity that the masks have, a float32 scalar.
          window: the steps since the last call.
          force: whether to refresh what is not due too.

        Returns:
          The overall sparsity.
        """
        self.wait()
        self.is_begun = True
        return self._function(sparsity, window, tf.constant(force), tf.constant(True))

    def compile_meanwhile(self, sparsity: tf.Tensor, window: int) -> None:
        """Lets XLA compile in a thread, for calls with these types. No mask is refreshed.

        It is traced before this returns: two tracings at once would only take turns.
        """
        no, self.is_begun = tf.constant(False), True
        if not self._jit_compile or tf.config.functions_run_eagerly():
            self._function(sparsity, window, no, no)
            return
        traced = self._function.get_concrete_function(sparsity, window, no, no)
        pool = concurrent.futures.ThreadPoolExecutor(1, "compile-refresh")
        self._compilation = pool.submit(traced, sparsity, no, no)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Waits for the thread to end, and raises what it raised."""
        if self._compilation is not None:
            compilation, self._compilation = self._compilation, None
            compilation.result()


class StepCheck:
    """Notices that an optimizer takes no steps, on which masks would depend.

    Args:
      step: the number of steps that it took before the run.
      accumulation_steps: number of batches over which it says that it sums gradients, at least 1.
      loss_scale: the factor by which it scales the loss, if it adapts it.

    Attributes:
      batches: number of batches of the run so far.
    """

    def __init__(self, step: int, accumulation_steps: int, loss_scale: float | None):
        self.batches = 0
        self._first_step = step
        self._first_scale = loss_scale
        self._accumulated = accumulation_steps
        self._patience = max(_BATCHES_WITHOUT_STEP, accumulation_steps)
        self._has_passed = False

    def begin_batch(self) -> None:
        """Counts a batch."""
        self.batches += 1

    @property
    def is_due(self) -> bool:
        """True after as many batches as an optimizer may take for its first step."""
        return self.batches == self._patience

    def check(self, step: int, loss_scale: float | None, *, is_training: bool) -> None:
        """Raises RuntimeError if no step was taken, and none can be expected any more.

        Args:
          step: the number of steps that the optimizer has taken now.
          loss_scale: the factor by which it scales the loss now, if it adapts it.
          is_training: whether the run goes on.
        """
        taken = step - self._first_step
        if self._has_passed or (not taken and is_training and self.batches < self._accumulated):
            return
        # A step that overflows is counted, and halves the scale of the loss, if there is one.
        has_overflowed = (
            loss_scale is not None
            and self._first_scale is not None
            and loss_scale <= max(1.0, self._first_scale / 2.0**taken)
        )
        is_decided = self.batches >= self._patience or not is_training
        if not taken or (has_overflowed and is_decided):
            raise RuntimeError(
                "model.optimizer has taken no step in "
                f"{counted(self.batches, 'batch', 'batches')}, so the masks would not depend on "
                "training. If the model trains with optimizers of its own, call "
                "tf_movprune.update_masks(model, step) at the start of its train_step, with the "
                "iterations of one of them, in place of this callback. If gradients overflow in "
                "half precision, lower the learning rate or the initial loss scale. If it "
                "accumulates gradients over more batches than that, give it their number as its "
                "attribute gradient_accumulation_steps, and train for more."
            )
        self._has_passed = not has_overflowed


def run_of_steps(start: int, num_train_steps: int) -> Run:
    """The run from a step to the end of the whole training."""
    return Run(start, num_train_steps, f"num_train_steps is {num_train_steps}")


def run_of_epochs(
    start: int, steps: int, epochs: int, steps_done: int = 0, *, accumulated: int = 1
) -> Run:
    """The run of one call of `fit`.

    Args:
      start: the number of optimizer steps taken so far.
      steps: batches of an epoch.
      epochs: epochs to come, with the one that begins.
      steps_done: batches of that one which were taken before.
      accumulated: batches over which the optimizer sums gradients for each step. A run that is
        not the first may begin with batches of the last step, which is why it may take one more.
    """
    length, rest = divmod(epochs * steps - steps_done, accumulated)
    length += bool(start and rest)
    parts = f"{steps} × {epochs}" + (f" - {steps_done} done before" if steps_done else "")
    parts += f", {accumulated} batches for each step" if accumulated > 1 else ""
    return Run(start, start + length, f"this run has {counted(length, 'step')} ({parts})")


def warn_if_unfinished(kernels: Sequence[MaskedKernel], step: int, sparsity: float) -> None:
    """Warns of a run that stopped early, or whose length was not known when it began.

    Args:
      kernels: masked kernels.
      step: the number of optimizer steps taken.
      sparsity: the overall sparsity of their masks.
    """
    end = max(kernel.settings.ramp.end_step or 0 for kernel in kernels)
    if step < end:
        warn(
            f"Training stopped at step {step}, before the schedule's end_step {end}: sparsity "
            f"is {sparsity:.3f}."
        )
