"""Pruning Keras 3 models in place, and taking the pruning off them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from tf_movprune.core import run_checks
from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.settings import Settings
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import is_prunable
from tf_movprune.keras3.later_changes import allow_changes, refuse_changes
from tf_movprune.keras3.layer_tree import holders, kernels_by_path, pruned_layers, walk
from tf_movprune.keras3.pruned_layer import attach, detach, fold, is_pruned, state_of
from tf_movprune.keras3.saving import guard_saving, unguard_saving
from tf_movprune.keras3.targets import check_holders, check_layer, choose
from tf_movprune.keras3.training_guard import guard_training, unguard_training, warn_of_training


def prune_low_movement(
    to_prune: Any,
    pruning_schedule: Any = None,
    method: Any = None,
    *,
    block_size: Any = WEIGHTS,
    pruning_policy: Any = None,
    score_learning_rate_multiplier: float | None = None,
) -> Any:
    """Prunes a Keras 3 model or layer in place; see `tf_movprune.prune_low_movement`."""
    given = (pruning_schedule, method, block_size, score_learning_rate_multiplier)
    if isinstance(to_prune, (list, tuple)):
        return _prune_list(to_prune, pruning_policy, given)
    compat.check_keras_object(to_prune)
    _check_unpruned(to_prune)
    if is_prunable(to_prune):
        if pruning_policy is not None:
            raise TypeError("A single layer takes no pruning_policy: it is what is pruned.")
        _refuse_patterns("A single layer", given)
        _attach_all({to_prune.name: (to_prune, Settings(*given))})
        return to_prune
    chosen, settings = choose(to_prune, pruning_policy, given)
    _refuse_units(settings)
    check_holders(to_prune, chosen.values())
    _attach_all({path: (layer, settings[path]) for path, layer in chosen.items()})
    layers = list(pruned_layers(to_prune).values())
    for layer in layers:
        state_of(layer).usage.owner = weakref.ref(to_prune)
    guard_training(to_prune, layers)
    guard_saving(to_prune)
    for layer in holders(to_prune):
        refuse_changes(layer)
    _forget_traces(to_prune)
    return to_prune


def _attach_all(layers: Mapping[str, tuple[Layer, Settings]]) -> None:
    """Prunes layers, all or none."""
    done: list[Layer] = []
    try:
        for path, (layer, settings) in layers.items():
            check_layer(path, layer)
            attach(layer, settings)
            done.append(layer)
    except BaseException:
        for layer in done:
            detach(layer)
        raise


def _prune_list(layers: Any, policy: Any, given: tuple[Any, ...]) -> list[Layer]:
    _refuse_patterns("A list of layers", given)
    settings = Settings(*given)
    for layer in layers:
        compat.check_keras_object(layer)
        _check_unpruned(layer)
    chosen = {
        f"{i}.{layer.name}": (layer, settings)
        for i, layer in enumerate(layers)
        if is_prunable(layer) and (policy is None or policy.allow_pruning(layer))
    }
    if not chosen:
        raise ValueError(f"Nothing to prune in a list of {len(layers)}: no layer has kernels.")
    _attach_all(chosen)
    return list(layers)


def strip_pruning(model: Any) -> Any:
    """Takes the pruning off a Keras 3 model in place; see `tf_movprune.strip_pruning`."""
    compat.check_keras_object(model)
    layers = pruned_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name!r} has no pruned layers: it was stripped already, or never given to "
            "tf_movprune.prune_low_movement."
        )
    run_checks.warn_if_behind(model.name, kernels_by_path(layers))
    for layer in layers.values():
        fold(layer)
    unguard_saving(model)
    for layer in holders(model):
        allow_changes(layer)
    for layer in layers.values():
        detach(layer)
    unguard_training(model)
    _forget_traces(model)
    warn_of_training(model)
    return model


def _forget_traces(model: Layer) -> None:
    """Forgets functions, the compiled ones too, that were traced with other kernels in place."""
    compat.forget_compilation(model)
    for layer in compat.all_layers(model):
        compat.forget_traces(layer)
        compat.forget_functions(layer)


def _check_unpruned(model: Layer) -> None:
    if is_pruned(model) or any(map(is_pruned, walk(model).values())):
        raise ValueError(
            f"{model.name!r} is pruned already. Prune a model once; to start over with other "
            "settings, call tf_movprune.strip_pruning on it first."
        )


def _refuse_patterns(what: str, given: tuple[Any, ...]) -> None:
    if any(isinstance(value, Mapping) for value in given):
        raise TypeError(
            f"{what} takes one PruningSchedule, method and block_size, got a mapping of patterns."
        )


def _refuse_units(settings: Mapping[str, Settings]) -> None:
    for path, each in settings.items():
        if isinstance(each.block_size, Units):
            raise NotImplementedError(
                f"{each.block_size!r} is not supported in Keras 3 models yet ({path}). Prune "
                "single weights or blocks there, or load the model in tf_keras."
            )
