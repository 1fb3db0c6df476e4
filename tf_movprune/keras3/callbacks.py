"""The callback that refreshes masks in `fit` of Keras 3, and the function for other loops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.finite_check import Weights
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.core.update_callback import UpdateHooks
from tf_movprune.core.update_step import refresh_for_step
from tf_movprune.keras3 import compat, optimizer_checks
from tf_movprune.keras3.layer_tree import built_layers, kernels_by_path, trainable_weights
from tf_movprune.keras3.pruning_state import check_run, state_of
from tf_movprune.keras3.saving import guard_saving
from tf_movprune.keras3.training_guard import ensure_guarded, has_known_train_step


def update_masks(model: Any, step: Any, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a Keras 3 model; see `tf_movprune.update_masks`."""
    layers = built_layers(model)
    states = [state_of(layer) for layer in layers.values()]
    return refresh_for_step(
        kernels_by_path(layers),
        [state.guard for state in states],
        step,
        force=force,
        name=model.name,
        usages=[state.usage for state in states],
        weight=compat.tensorflow_variable(states[0].places[0].variable),
    )


class UpdatePruningStep(UpdateHooks, keras.callbacks.Callback):
    """Refreshes the masks of Keras 3 models in `fit`; see `tf_movprune.UpdatePruningStep`."""

    _optimizer_checks = optimizer_checks

    def _find_layers(self) -> None:
        self._layers = built_layers(self.model)

    def _kernels_by_path(self) -> Mapping[str, Sequence[MaskedKernel]]:
        return kernels_by_path(self._layers)

    def _trainable_weights(self) -> Weights:
        return trainable_weights(self.model)

    def _guards(self) -> Iterable[TrainingGuard]:
        return (state_of(layer).guard for layer in self._layers.values())

    def _check_compiled(self, scores: Mapping[str, tf.Variable]) -> None:
        optimizer_checks.check_trainable(self.model, scores)
        if self._has_known_train_step() and self.model.compiled:
            optimizer_checks.check_loss(self.model, self._kernels)

    def _make_ready(self) -> None:
        optimizer = self.model.optimizer
        if self._has_known_train_step() and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        ensure_guarded(self.model, list(self._layers.values()))
        guard_saving(self.model)  # a model around the one that was pruned

    def _steps_per_execution(self) -> int:
        return int(self.model.steps_per_execution)

    def _steps_may_be_late(self) -> bool:
        return compat.scales_loss(self.model.optimizer)  # and counts no step that overflows

    def _has_known_train_step(self) -> bool:
        return has_known_train_step(self.model)

    def _check_kernels_used(self) -> None:
        variables = self.model.trainable_variables
        trained = {id(compat.tensorflow_variable(variable)) for variable in variables}
        for layer in self._layers.values():
            check_run(layer, trained)
