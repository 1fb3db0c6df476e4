"""The hooks of `OnceSparse` that are the same in both shells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_movprune.core.masked_kernel import MaskedKernel, overall_sparsity
from tf_movprune.core.optimizer_steps import step_of
from tf_movprune.core.user_warnings import warn


class OnceSparseHooks:
    """Holds a callback back until pruning is over, to be mixed into `keras.callbacks.Callback`.

    A shell adds `_find_kernels`.
    """

    model: Any

    def __init__(self, callback: Any, min_sparsity: float = 0.0):
        super().__init__()
        self.callback = callback
        self.min_sparsity = min_sparsity

    def _find_kernels(self) -> list[MaskedKernel]:
        """The masked kernels of the model, each once. Raises ValueError if there are none."""
        raise NotImplementedError

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)  # type: ignore[misc]
        self.callback.set_params(params)

    def set_model(self, model: Any) -> None:
        super().set_model(model)  # type: ignore[misc]
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        self._kernels = self._find_kernels()
        self._was_sparse = False
        check_schedules_end(self._kernels)
        self._is_sparse = self._reached_target()  # a loop of one's own may have no epochs
        self.callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._is_sparse = self._reached_target()
        self.callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        if self._is_sparse:
            self.callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        if self._is_sparse:
            self.callback.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._reached_target():
            self._was_sparse = True
            self.callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        if not self._was_sparse:
            sparsity = float(overall_sparsity(self._kernels))
            warn(
                f"{type(self.callback).__name__} has seen no epoch: none ended with every schedule "
                f"at its end and at least {self.min_sparsity} sparsity; it is {sparsity:.3f}."
            )
        self.callback.on_train_end(logs)

    def _reached_target(self) -> bool:
        return has_reached_target(self._kernels, step_of(self.model), self.min_sparsity)


def check_schedules_end(kernels: Sequence[MaskedKernel]) -> None:
    """Raises ValueError if a schedule does not tell where it ends."""
    for kernel in kernels:
        if kernel.settings.ramp.final_step is None:
            raise ValueError(
                "OnceSparse waits for every schedule to end, but "
                f"{type(kernel.settings.schedule).__name__} has no end_step. Give it one."
            )


def has_reached_target(kernels: Sequence[MaskedKernel], step: int, min_sparsity: float) -> bool:
    """Returns whether every schedule is at its end, and sparsity at least `min_sparsity`.

    Args:
      kernels: masked kernels, each once.
      step: the number of optimizer steps taken so far.
      min_sparsity: a fraction of zeros over all weights.
    """
    if any(step < (kernel.settings.ramp.final_step or 0) for kernel in kernels):
        return False
    return float(overall_sparsity(kernels)) >= min_sparsity
