"""Guards of tf_keras models: steps are refused for which nothing refreshed the masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from tf_movprune.core.training_guard import (
    GuardedTrainFunction,
    TrainingGuard,
    not_compiled,
    warn_of_stripped,
)
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.instance_method import InstanceMethod

_MAKE = "make_train_function"


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


class _GuardedMaker(InstanceMethod):
    """The `make_train_function` of a model, with guarded train functions."""

    def __init__(self, model: keras.Model, layers: Sequence[Guarded]):
        self.model, self.layers = model, layers

    def __call__(self, force: bool = False) -> Any:
        if not isinstance(self.model.train_function, GuardedTrainFunction):
            self.model.train_function = None  # one that was made before cannot make variables
        function = type(self.model).make_train_function(self.model, force)
        if not isinstance(function, GuardedTrainFunction):
            may_refresh = not has_known_train_step(self.model)  # as it is traced
            guards = [layer.guard for layer in self.layers]
            function = GuardedTrainFunction(self.model, function, guards, may_refresh)
            for layer in self.layers:
                layer.usage.forget()
        self.model.train_function = function
        return function


class _CompileCheck(InstanceMethod):
    """What a pruned model asks before `fit`, `evaluate` and so on: whether it was compiled."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self) -> None:
        if not compat.is_compiled(self.model):
            raise RuntimeError(not_compiled(self.model.name))


class _WarningMaker(InstanceMethod):
    """The `make_train_function` of a stripped model, which warns when it is called first."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, force: bool = False) -> Any:
        warn_of_stripped(self.model.name)
        unguard_training(self.model)
        return self.model.make_train_function(force)


def guard_training(model: Layer, layers: Sequence[Guarded]) -> None:
    """Makes `fit` and `train_on_batch` of a model require refreshed masks. Layers have none."""
    if isinstance(model, keras.Model):
        vars(model)[_MAKE] = _GuardedMaker(model, layers)
        compat.replace_compile_check(model, _CompileCheck(model))


def is_guarded(model: Layer, layers: Sequence[Guarded]) -> bool:
    """Returns whether a model was guarded because of these layers."""
    maker = vars(model).get(_MAKE)
    return isinstance(maker, _GuardedMaker) and list(maker.layers) == list(layers)


def warn_of_training(model: Layer) -> None:
    """Makes the first training of a stripped model warn. Layers have no training of their own."""
    if isinstance(model, keras.Model):
        vars(model)[_MAKE] = _WarningMaker(model)


def warns_of_training(model: Layer) -> bool:
    """Returns whether a model was stripped, and was not trained since."""
    return isinstance(vars(model).get(_MAKE), _WarningMaker)


def unguard_training(model: Layer) -> None:
    """Undoes `guard_training` and `warn_of_training`."""
    vars(model).pop(_MAKE, None)
