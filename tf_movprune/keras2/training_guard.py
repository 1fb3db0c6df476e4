"""Refusal of training steps for which nothing refreshed the masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.instance_method import InstanceMethod

_MAKE = "make_train_function"


class TrainingGuard:
    """Lets a pruned layer train only while something refreshes its masks.

    Args:
      name: name of the layer, for messages.
    """

    def __init__(self, name: str):
        self._name = name
        self._is_open = False
        self._is_open_once = False
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

    def end_step(self) -> None:
        """Closes the guard if it was open for one step."""
        self._is_open &= not self._is_open_once

    def fold(self) -> None:
        """Closes the guard for good: the masks are in the weights."""
        self._is_open, self._is_folded = False, True

    def check(self) -> None:
        """Raises RuntimeError if nothing refreshes the masks, or they are in the weights."""
        self._check_not_folded()
        self.has_refused = not self._is_open
        if self.has_refused:
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


def refused_when_loaded(name: str, outputs: Any) -> Any:
    """Outputs in training, of a function that is being saved, which raise when it is run.

    A pruned model that is loaded without this library's classes runs such functions, and nothing
    guards or masks what it trains. XLA leaves assertions out: there the outputs are NaN.
    """
    message = (
        f"The pruned layer {name!r} was loaded without its class, and nothing refreshes its masks. "
        "To train on, load the model within tf_movprune.prune_scope(), with all classes registered."
    )

    def refused(tensor: Any) -> Any:
        if not tf.is_tensor(tensor):
            return tensor
        with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
            if tensor.dtype.is_floating:
                return tensor * tf.cast(float("nan"), tensor.dtype)
            return tf.identity(tensor)

    return tf.nest.map_structure(refused, outputs)


def has_known_train_step(model: keras.Model) -> bool:
    """Returns whether the train step is known to train all variables of the model on its losses."""
    known = ("tf_keras.", "tf_movprune.", hugging_face.PACKAGE)
    methods = (model.train_step, model.compute_loss)
    return all(method.__module__.startswith(known) for method in methods)


class Guarded(Protocol):
    """A layer with a guard, and with notes on what training used, which can be forgotten."""

    guard: TrainingGuard
    usage: Any


class _GuardedTrainFunction:
    """A model's train function, which raises unless the masks were refreshed for the step.

    The layers raise too, but only while they are traced. This stays with the model, whether `fit`
    ended or was interrupted.
    """

    def __init__(self, model: keras.Model, function: Any, layers: Sequence[Guarded]):
        self.model = model
        self.function = function
        self.layers = layers
        self._may_refresh = not has_known_train_step(model)  # as it is traced, by `update_masks`
        self._refreshes = False

    def __call__(self, iterator):
        guards = [layer.guard for layer in self.layers]
        is_attempt = self._may_refresh and not any(guard.is_open for guard in guards)
        if not is_attempt and not self._refreshes:
            self._check()
        for guard in guards:
            guard.has_refused = False
        try:
            result = self.function(iterator)
        except BaseException:
            if is_attempt:
                self.model.train_function = None  # cannot make variables any more
            if any(guard.has_refused for guard in guards):
                self._check()  # raises the same, without the frames of traced code
            for guard in guards:
                guard.allow(False)
            raise
        if is_attempt:
            if not any(guard.is_open for guard in guards):
                self.model.train_function = None  # was traced without being watched
            self._check()
            self._refreshes = True
        self._may_refresh = False
        for guard in guards:
            guard.end_step()
        return result

    def _check(self) -> None:
        for layer in self.layers:
            layer.guard.check()


class _GuardedMaker(InstanceMethod):
    """The `make_train_function` of a model, with guarded train functions."""

    def __init__(self, model: keras.Model, layers: Sequence[Guarded]):
        self.model, self.layers = model, layers

    def __call__(self, force: bool = False) -> Any:
        if not isinstance(self.model.train_function, _GuardedTrainFunction):
            self.model.train_function = None  # one that was made before cannot make variables
        function = type(self.model).make_train_function(self.model, force)
        if not isinstance(function, _GuardedTrainFunction):
            function = _GuardedTrainFunction(self.model, function, self.layers)
            for layer in self.layers:
                layer.usage.forget()
        self.model.train_function = function
        return function


class _WarningMaker(InstanceMethod):
    """The `make_train_function` of a stripped model, which warns when it is called first."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, force: bool = False) -> Any:
        warnings.warn(
            f"{self.model.name!r} was stripped of pruning, and is about to be trained: its zeros "
            "are ordinary weights now, and will not stay zero. To train on with them, prune it "
            "again with tf_movprune.Magnitude() and a schedule that begins at their share, such "
            "as CubicSparsity(0.9, 0, 1, initial_sparsity=0.9), and strip it when it is trained. "
            "Models that tf_movprune.compact made smaller may be trained as they are.",
            stacklevel=4,
        )
        unguard_training(self.model)
        return self.model.make_train_function(force)


def guard_training(model: Layer, layers: Sequence[Guarded]) -> None:
    """Makes `fit` and `train_on_batch` of a model require refreshed masks. Layers have none."""
    if isinstance(model, keras.Model) and not isinstance(vars(model).get(_MAKE), _GuardedMaker):
        vars(model)[_MAKE] = _GuardedMaker(model, layers)
        if model.train_function is not None:  # `fit` made it before it began
            model.train_function = model.make_train_function()


def warn_of_training(model: Layer) -> None:
    """Makes the first training of a stripped model warn. Layers have no training of their own."""
    if isinstance(model, keras.Model):
        vars(model)[_MAKE] = _WarningMaker(model)


def unguard_training(model: Layer) -> None:
    """Undoes `guard_training` and `warn_of_training`."""
    vars(model).pop(_MAKE, None)
