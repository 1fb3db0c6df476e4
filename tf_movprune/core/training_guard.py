"""Refusal of training steps for which nothing refreshed the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.record import could_possibly_record

from tf_movprune.core.call_stack import objects_running


def mode_of(training: Any) -> Any:
    """The `training` of a call as True or False; a tensor, if its value is not known yet."""
    if not tf.is_tensor(training):
        return bool(training)
    value = tf.get_static_value(tf.convert_to_tensor(training))
    return training if value is None else bool(value)


def resolve_mode(told: Any, outermost: Any, takes_steps: bool) -> Any:
    """Returns whether a call of a pruned layer is part of a training step.

    A layer may be told to be in training mode although the model is evaluated, such as one whose
    dropout estimates uncertainty: then masks are as in evaluation. If nobody tells the outermost
    call, a gradient tape has to record the layer's, and either that is told or steps are taken.

    Args:
      told: the mode of the layer's call: a bool of any kind, a tensor, or None.
      outermost: the mode that the outermost call was given.
      takes_steps: whether steps are taken, if nobody tells: the guard of the layer is open, or, in
        Keras 3, the train step of a model runs.

    Returns:
      True or False; a bool tensor, if its value is not known yet.
    """
    if told is not None:
        told = mode_of(told)
        if tf.is_tensor(told) or not told:
            return told
    if outermost is None:
        return could_possibly_record() and (bool(told) or takes_steps)
    outermost = mode_of(outermost)
    return bool(told) and (tf.is_tensor(outermost) or outermost)


def not_compiled(name: str) -> str:
    """The message that a pruned model is not compiled."""
    return (
        f"{name!r} is not compiled: pruning undoes compile(), which KerasHub's tasks call when "
        "they are made. Compile the pruned model with a new optimizer, as in model.compile("
        "recipe.create_optimizer(learning_rate, model=model), loss)."
    )


class TrainingGuard:
    """Lets a pruned layer train only while something refreshes its masks.

    Args:
      name: name of the layer, for messages.
    """

    def __init__(self, name: str):
        self.name = name
        self._is_open = False
        self._is_open_once = False
        self._is_opened_before_fit = False
        self._is_folded = False
        self.has_refused = False

    @property
    def is_open(self) -> bool:
        """True while steps may be taken."""
        return self._is_open

    @property
    def is_folded(self) -> bool:
        """True if the masks were written into the weights."""
        return self._is_folded

    def allow(self, value: bool, *, once: bool = False) -> None:
        """Opens or closes the guard for the steps to come, or opens it for one."""
        self._check_not_folded()
        self._is_open, self._is_open_once = value, value and once
        self._is_opened_before_fit = value and once and _model_in_fit() is None

    def end_step(self) -> None:
        """Closes the guard if it was open for one step."""
        self._is_open &= not self._is_open_once

    def fold(self) -> None:
        """Closes the guard for good: the masks are in the weights."""
        self._is_open, self._is_folded = False, True

    def check(self) -> None:
        """Raises RuntimeError if nothing refreshes the masks, or they are in the weights."""
        self._check_not_folded()
        self.has_refused = not self._is_open or (
            self._is_opened_before_fit and _never_closes(_model_in_fit())
        )
        if self.has_refused:
            raise RuntimeError(
                f"The pruned layer {self.name!r} is being trained, but nothing refreshes its "
                "masks. Add tf_movprune.UpdatePruningStep() to the callbacks of fit, or call "
                "tf_movprune.update_masks(model, step) before each step of your own loop. If it is "
                "not to be trained, such as a teacher, call it with training=False, or call what "
                "tf_movprune.strip_pruning returns."
            )

    def _check_not_folded(self) -> None:
        if self._is_folded:
            raise RuntimeError(
                f"The pruned layer {self.name!r} cannot be trained further: "
                "tf_movprune.strip_pruning wrote its masks into the weights. Prune a fresh model "
                "in the same way, and load weights into it that were saved before."
            )


def _model_in_fit() -> Any:
    """The model whose `fit` runs at the moment, the innermost one; None outside of all."""
    return next((x for x in objects_running("fit") if hasattr(x, "train_function")), None)


def _never_closes(model: Any) -> bool:
    """Returns whether no step of a model's `fit` ends the steps that one update allows.

    It is a model around the pruned one, which was not pruned itself and has no callback.
    """
    return model is not None and not isinstance(model.train_function, GuardedTrainFunction)


class GuardedTrainFunction:
    """A model's train function, which raises unless the masks were refreshed for the step.

    The layers raise too, but only while they are traced. This stays with the model, whether `fit`
    ended or was interrupted.

    Args:
      model: the model, whose `train_function` is set to None where it has to be made anew.
      function: the train function that Keras made, which takes an iterator.
      guards: the guards of its pruned layers.
      may_refresh: whether tracing the function may refresh masks, by `update_masks` in a train step
        of one's own.
    """

    def __init__(
        self,
        model: Any,
        function: Callable[[Any], Any],
        guards: Sequence[TrainingGuard],
        may_refresh: bool,
    ):
        self.model = model
        self.function = function
        self.guards = guards
        self._may_refresh = may_refresh
        self._refreshes = False

    def __call__(self, iterator: Any) -> Any:
        is_attempt = self._may_refresh and not any(guard.is_open for guard in self.guards)
        if not is_attempt and not self._refreshes:
            self._check()
        for guard in self.guards:
            guard.has_refused = False
        try:
            result = self.function(iterator)
        except BaseException:
            if is_attempt:
                self.model.train_function = None  # cannot make variables any more
            if any(guard.has_refused for guard in self.guards):
                self._check()  # raises the same, without the frames of traced code
            for guard in self.guards:
                guard.allow(False)
            raise
        if is_attempt:
            if not any(guard.is_open for guard in self.guards):
                self.model.train_function = None  # was traced without being watched
            self._check()
            self._refreshes = True
        self._may_refresh = False
        for guard in self.guards:
            guard.end_step()
        return result

    def _check(self) -> None:
        for guard in self.guards:
            guard.check()
