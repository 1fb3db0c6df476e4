"""Pruning Keras 3 models in place, and taking the pruning off them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from tf_movprune.core import run_checks
from tf_movprune.core.choice_checks import check_listed, check_policy
from tf_movprune.core.distillation_checks import not_pruned_itself
from tf_movprune.core.granularity import WEIGHTS
from tf_movprune.core.kept_zeros import check_zeros
from tf_movprune.core.passed_by import warn_if_left_out
from tf_movprune.core.settings import Settings
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.distiller import Distiller
from tf_movprune.keras3.kernel_places import is_prunable
from tf_movprune.keras3.later_changes import allow_changes, refuse_changes
from tf_movprune.keras3.layer_tree import (
    holders,
    kernels_by_path,
    named_kernels,
    pruned_layers,
    walk,
)
from tf_movprune.keras3.other_keras import refuse_tf_keras, take_tf_keras
from tf_movprune.keras3.pruned_layer import attach, detach, fold
from tf_movprune.keras3.pruning_state import is_pruned, state_of
from tf_movprune.keras3.saving import guard_saving, unguard_saving
from tf_movprune.keras3.targets import check_holders, check_layer, choose
from tf_movprune.keras3.training_guard import (
    guard_training,
    guard_what_is_left,
    guarded_models,
    unguard_training,
    warn_of_training,
)
from tf_movprune.keras3.unit_masks import attach_shared, share_masks


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
    check_policy(pruning_policy)
    given = (pruning_schedule, method, block_size, score_learning_rate_multiplier)
    if isinstance(to_prune, (list, tuple)):
        return _prune_list(to_prune, pruning_policy, given)
    compat.check_keras_object(to_prune)
    _check_unpruned(to_prune)
    if is_prunable(to_prune):
        if pruning_policy is not None:
            raise TypeError("A single layer takes no pruning_policy: it is what is pruned.")
        _refuse_patterns("A single layer", given)
        _attach_all(to_prune, {to_prune.name: to_prune}, {to_prune.name: Settings(*given)})
        return to_prune
    chosen, settings = choose(to_prune, pruning_policy, given)
    _attach_all(to_prune, chosen, settings)
    layers = list(pruned_layers(to_prune).values())
    for layer in layers:
        state_of(layer).usage.owner = weakref.ref(to_prune)
    guard_training(to_prune, layers)
    guard_saving(to_prune)
    refuse_tf_keras(to_prune)
    for layer in holders(to_prune):
        refuse_changes(layer)
    _forget_traces(to_prune)
    return to_prune


def _attach_all(
    model: Layer | None, layers: Mapping[str, Layer], settings: Mapping[str, Settings]
) -> None:
    """Prunes layers by path, all or none, and those that share heads or neurons with them.

    Args:
      model: the model that they are in, if any.
      layers: the layers.
      settings: their settings.
    """
    masks, members = share_masks(model, layers, settings)
    everything = {**layers, **members}
    for path, layer in everything.items():
        check_layer(path, layer)
    check_holders(everything.values() if model is None else [model], everything.values())
    try:
        for path, layer in layers.items():
            if path not in members:
                attach(layer, settings[path])
        attach_shared(list(members.values()), masks)
        check_zeros(named_kernels(everything))
    except BaseException:
        for layer in filter(is_pruned, everything.values()):
            detach(layer)
        raise


def _prune_list(layers: Any, policy: Any, given: tuple[Any, ...]) -> list[Layer]:
    _refuse_patterns("A list of layers", given)
    settings = Settings(*given)
    for layer in layers:
        compat.check_keras_object(layer)
        _check_unpruned(layer)
        if not is_prunable(layer):
            inside = walk(layer)
            check_listed(layer, [path for path in inside if is_prunable(inside[path])])
    chosen = {
        f"{i}.{layer.name}": layer
        for i, layer in enumerate({id(layer): layer for layer in layers}.values())
        if is_prunable(layer) and (policy is None or policy.allow_pruning(layer))
    }
    if not chosen:
        raise ValueError(f"Nothing to prune in a list of {len(layers)}: no layer has kernels.")
    _attach_all(None, chosen, dict.fromkeys(chosen, settings))
    return list(layers)


def strip_pruning(model: Any) -> Any:
    """Takes the pruning off a Keras 3 model in place; see `tf_movprune.strip_pruning`."""
    compat.check_keras_object(model)
    trained = model
    if isinstance(model, Distiller):
        model = model.student
    layers = pruned_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name!r} has no pruned layers: it was stripped already, or never given to "
            "tf_movprune.prune_low_movement."
        )
    run_checks.warn_if_behind(model.name, kernels_by_path(layers))
    warn_if_left_out(model.name, [state_of(layer).usage for layer in layers.values()])
    models = guarded_models(layers.values())  # those around and inside it too
    held = {id(layer): layer for around in (model, *models) for layer in holders(around)}
    for layer in layers.values():
        fold(layer)
    for layer in layers.values():
        detach(layer)
    for layer in held.values():
        if not pruned_layers(layer):
            unguard_saving(layer)
            take_tf_keras(layer)
            allow_changes(layer)
    for guarded in models:
        guard_what_is_left(guarded)
    unguard_training(trained)
    unguard_training(model)
    compat.forget_compilation(trained)
    _forget_traces(model)
    warn_of_training(model)
    return model


def _forget_traces(model: Layer) -> None:
    """Forgets functions, the compiled ones too, that were traced with other kernels in place."""
    compat.forget_compilation(model)
    compat.forget_all_traces(model)


def _check_unpruned(model: Layer) -> None:
    if isinstance(model, Distiller):
        raise not_pruned_itself()
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
