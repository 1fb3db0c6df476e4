"""Refusal of training steps of Keras 3 models for which nothing refreshed the masks."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

import keras

from tf_movprune.core.training_guard import (
    GuardedTrainFunction,
    not_compiled,
    warn_of_stripped,
)
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.pruning_state import is_pruned, state_of

_MAKE = "make_train_function"
_KNOWN = ("keras.", "keras_hub.", "tf_movprune.")
_guarded: weakref.WeakSet[keras.Model] = weakref.WeakSet()


def has_known_train_step(model: keras.Model) -> bool:
    """Returns whether the train step is known to train all variables of the model on its losses."""
    methods = (model.train_step, model.compute_loss)
    return all(method.__module__.startswith(_KNOWN) for method in methods)


class _GuardedMaker:
    """The `make_train_function` of a model, with guarded train functions."""

    def __init__(self, model: keras.Model, layers: Sequence[Layer]):
        self.model, self.layers = model, layers
        self.guards = [state_of(layer).guard for layer in layers]

    def __call__(self, force: bool = False) -> None:
        model = self.model
        if not isinstance(model.train_function, GuardedTrainFunction):
            model.train_function = None
        type(model).make_train_function(model, force)
        if not isinstance(model.train_function, GuardedTrainFunction):
            for layer in self.layers:
                state_of(layer).usage.forget()
            may_refresh = not has_known_train_step(model)
            model.train_function = GuardedTrainFunction(
                model, model.train_function, self.guards, may_refresh
            )


class _CompileCheck:
    """What a pruned model asks before `fit`, `evaluate` and so on: whether it was compiled."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, method_name: str | None = None) -> None:
        if not self.model.compiled:
            raise ValueError(not_compiled(self.model.name))


class _WarningMaker:
    """The `make_train_function` of a stripped model, which warns when it is called first."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, force: bool = False) -> None:
        unguard_training(self.model)
        warn_of_stripped(self.model.name)
        self.model.make_train_function(force)


def guard_training(model: Layer, layers: Sequence[Layer]) -> None:
    """Makes `fit` and `train_on_batch` of a model require refreshed masks. Layers have none."""
    if isinstance(model, keras.Model):
        vars(model)[_MAKE] = _GuardedMaker(model, layers)
        compat.replace_compile_check(model, _CompileCheck(model))
        _guarded.add(model)


def guarded_models(layers: Iterable[Layer]) -> list[keras.Model]:
    """The models that are guarded because of some of these layers."""
    ids = {id(layer) for layer in layers}
    return [
        model
        for model in list(_guarded)
        if isinstance(maker := vars(model).get(_MAKE), _GuardedMaker)
        and any(id(layer) in ids for layer in maker.layers)
    ]


def guard_what_is_left(model: keras.Model) -> None:
    """Guards a guarded model because of those layers alone that are still pruned, if any."""
    left = [layer for layer in vars(model)[_MAKE].layers if is_pruned(layer)]
    unguard_training(model)
    if left:
        guard_training(model, left)


def ensure_guarded(model: keras.Model, layers: Sequence[Layer]) -> None:
    """Guards a model that `fit` trains and that was not pruned itself, but has pruned layers.

    What it traced before they were pruned is forgotten.
    """
    maker = vars(model).get(_MAKE)
    if not isinstance(maker, _GuardedMaker) or maker.guards != [state_of(x).guard for x in layers]:
        compat.forget_all_traces(model)
        guard_training(model, layers)
        model.make_train_function(True)


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
    if isinstance(model, keras.Model):
        _guarded.discard(model)
    compat.restore_compile_check(model)
    compat.forget_functions(model)
