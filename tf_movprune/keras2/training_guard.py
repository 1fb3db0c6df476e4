"""Refusal of training steps for which nothing refreshed the masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tf_movprune.keras2.compat import keras


class TrainingGuard:
    """Lets a pruned layer train only while something refreshes its masks.

    Args:
      name: name of the layer, for messages.
    """

    def __init__(self, name: str):
        self._name = name
        self._is_open = False
        self._is_folded = False

    def allow(self, value: bool) -> None:
        """Opens or closes the guard for the steps to come."""
        self._check_not_folded()
        self._is_open = value

    def fold(self) -> None:
        """Closes the guard for good: the masks are in the weights."""
        self._is_folded = True

    def check(self) -> None:
        """Raises RuntimeError if nothing refreshes the masks, or they are in the weights."""
        self._check_not_folded()
        if not self._is_open:
            raise RuntimeError(
                f"The pruned layer {self._name!r} is being trained, but nothing refreshes its "
                "masks. Add tf_movprune.UpdatePruningStep() to the callbacks of fit, or call "
                "tf_movprune.update_masks(model, step) before each step of your own loop."
            )

    def _check_not_folded(self) -> None:
        if self._is_folded:
            raise RuntimeError(
                f"The pruned layer {self._name!r} cannot be trained further: "
                "tf_movprune.strip_pruning wrote its masks into the weights. Prune a fresh model "
                "in the same way, and load weights into it that were saved before."
            )


class Guarded(Protocol):
    """A layer with a guard."""

    guard: TrainingGuard


class _GuardedTrainFunction:
    """A model's train function, which raises unless the masks were refreshed for the step.

    The layers raise too, but only while they are traced. This stays with the model, whether `fit`
    ended or was interrupted.
    """

    def __init__(self, model: keras.Model, layers: Sequence[Guarded]):
        model.train_function = None  # one that a `fit` without masks left cannot make variables
        self.function = model.make_train_function()
        self.compiled_loss = model.compiled_loss
        self.layers = layers

    def __call__(self, iterator):
        for layer in self.layers:
            layer.guard.check()
        try:
            return self.function(iterator)
        except BaseException:
            for layer in self.layers:
                layer.guard.allow(False)
            raise


def guard_training(model: keras.Model, layers: Sequence[Guarded]) -> None:
    """Makes the train function of a compiled model require refreshed masks."""
    function = model.train_function
    is_current = isinstance(function, _GuardedTrainFunction) and (
        function.compiled_loss is model.compiled_loss
    )
    if not is_current:
        model.train_function = _GuardedTrainFunction(model, layers)
