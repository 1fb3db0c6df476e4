"""Wrapping models for movement pruning, and unwrapping them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_movprune.core.choice_checks import check_listed, check_policy
from tf_movprune.core.distillation_checks import not_pruned_itself
from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.kept_zeros import check_built, check_zeros
from tf_movprune.core.kernel_holders import check_only_holders
from tf_movprune.core.passed_by import warn_if_left_out
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.run_checks import warn_if_behind
from tf_movprune.core.schedules import PruningSchedule
from tf_movprune.core.settings import Settings
from tf_movprune.core.wording import counted, listed
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import (
    Layer,
    PruningPolicy,
    check_keras_object,
    forget_compilation,
)
from tf_movprune.keras2.distiller import Distiller
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.layer import PruneLowMovement, is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, named_kernels
from tf_movprune.keras2.other_keras import refuse_keras3
from tf_movprune.keras2.replacement import replace_layers, undone_on_error
from tf_movprune.keras2.same_outputs import Example
from tf_movprune.keras2.saving import guard_loading, guard_saving, refuse_files, unguard
from tf_movprune.keras2.targets import choose
from tf_movprune.keras2.training_guard import (
    guard_training,
    warn_of_training,
)
from tf_movprune.keras2.units import Member, share_kernels


def prune_low_movement(
    to_prune: Any,
    pruning_schedule: PruningSchedule | Mapping[str, PruningSchedule | None] | None = None,
    method: PruningMethod | Mapping[str, PruningMethod] | None = None,
    *,
    block_size: tuple[int, int] | Units | Mapping[str, tuple[int, int] | Units] = WEIGHTS,
    pruning_policy: PruningPolicy | None = None,
    score_learning_rate_multiplier: float | None = None,
    **kwargs: Any,
) -> Any:
    """Wraps layers of a tf_keras model, or a layer; see `tf_movprune.prune_low_movement`."""
    check_policy(pruning_policy)
    given = (pruning_schedule, method, block_size, score_learning_rate_multiplier)
    if isinstance(to_prune, (list, tuple)):
        _refuse_patterns("A list of layers", *given)
        return _prune_list(to_prune, pruning_policy, Settings(*given))
    check_keras_object(to_prune)
    tree = LayerTree(to_prune)
    _check_unpruned(tree)
    if is_prunable(to_prune):
        if pruning_policy is not None:
            raise TypeError("A single layer takes no pruning_policy: it is what is pruned.")
        _refuse_patterns("A single layer", *given)
        return _wrap_each([to_prune], Settings(*given), **kwargs)[id(to_prune)]
    if kwargs:
        raise TypeError(f"Unexpected arguments for a model: {', '.join(kwargs)}.")

    targets, settings = choose(tree, pruning_policy, given)
    members = _members(tree, targets, settings)
    _check_only_holders([tree], [member.layer for member in members])
    example = Example(tree)
    with undone_on_error(to_prune), contextlib.ExitStack() as if_it_fails:
        wrappers = _wrap(members)
        for wrapper in wrappers.values():
            if_it_fails.callback(wrapper.let_go)
        pruned = replace_layers(to_prune, wrappers, for_a_while=True)
        after = LayerTree(pruned)
        _check_zeros(after.pruned_layers())
        _forget_traces(after)
        guard_saving(after)
        guard_training(pruned, list(after.pruned_layers().values()))
        refuse_keras3(pruned)
        for position, layer in enumerate(tree.layers()):
            if id(layer) in wrappers:
                wrappers[id(layer)].join(pruned, position)
        example.check(pruned, list(wrappers.values()))
        if_it_fails.pop_all()
    return pruned


def _members(
    tree: LayerTree, targets: Mapping[str, Layer], settings: Mapping[str, Settings]
) -> list[Member]:
    """The layers that get wrappers, with those that have a part in heads and neurons."""
    members = {path: Member(targets[path], setting) for path, setting in settings.items()}
    members.update(share_kernels(tree, settings, targets))
    return list(members.values())


def _members_of_layer(layer: Layer, settings: Settings) -> list[Member]:
    return _members(LayerTree(layer), {layer.name: layer}, {layer.name: settings})


def _wrap(members: Iterable[Member], **kwargs: Any) -> dict[int, PruneLowMovement]:
    """Wrappers by the ids of the layers inside them."""
    members = list(members)
    check_built((member.layer, member.settings) for member in members)
    # The first wrapper of a shared kernel makes it. That should be a trained one, if there is any.
    in_order = sorted(members, key=lambda member: not member.layer.trainable)
    return {
        id(member.layer): PruneLowMovement(
            member.layer,
            member.settings.schedule,
            member.settings.method,
            member.settings.block_size,
            member.settings.score_learning_rate_multiplier,
            shared_kernels=member.kernels,
            **kwargs,
        )
        for member in in_order
    }


def _check_only_holders(trees: Sequence[LayerTree], targets: Iterable[Layer]) -> None:
    """Raises ValueError if another layer has a kernel, as its own or among its attributes."""
    check_only_holders(
        [
            (layer, layer.submodules, prunable_weights(layer) if layer.built else [])
            for layer in targets
        ],
        (
            (layer, name, vars(layer)[name])
            for tree in trees
            for layer in tree.layers()
            for name in compat.own_attributes(layer)
        ),
    )


def _prune_list(
    layers: list[Layer] | tuple[Layer, ...], policy: PruningPolicy | None, settings: Settings
) -> list[Layer]:
    for layer in layers:
        check_keras_object(layer)
        tree = LayerTree(layer)
        _check_not_of_tfmot(tree)
        if not is_prunable(layer):
            check_listed(layer, [path for path, inside in tree.walk() if is_prunable(inside)])
    chosen = {
        id(layer): layer
        for layer in layers
        if is_prunable(layer) and (policy is None or policy.allow_pruning(layer))
    }
    if not chosen:
        raise ValueError(
            f"Nothing to prune in a list of {counted(len(layers), 'layer')}: none has prunable "
            "weights."
        )
    _check_only_holders([LayerTree(layer) for layer in chosen.values()], chosen.values())
    wrappers = _wrap_each(chosen.values(), settings)
    return [wrappers.get(id(layer), layer) for layer in layers]


def _wrap_each(
    layers: Iterable[Layer], settings: Settings, **kwargs: Any
) -> dict[int, PruneLowMovement]:
    """Wrappers of layers that are in no model, by the ids of the layers: all of them, or none."""
    wrappers: dict[int, PruneLowMovement] = {}
    with contextlib.ExitStack() as if_it_fails:
        for layer in layers:
            wrappers.update(_wrap(_members_of_layer(layer, settings), **kwargs))
            if_it_fails.callback(wrappers[id(layer)].let_go)
        _check_zeros({f"{i}.{w.layer.name}": w for i, w in enumerate(wrappers.values())})
        if_it_fails.pop_all()
    return wrappers


def _check_zeros(wrappers: Mapping[str, PruneLowMovement]) -> None:
    """Raises ValueError if methods that keep zeros find none, or would let some come back."""
    keeping = {path: w for path, w in wrappers.items() if w.settings.method.keeps_zeros}
    check_zeros(named_kernels(keeping))


def strip_pruning(model: Any) -> Any:
    """Takes the wrappers off a tf_keras model; see `tf_movprune.strip_pruning`."""
    check_keras_object(model)
    distiller = model if isinstance(model, Distiller) else None
    if distiller is not None:
        model = distiller.student
    tree = LayerTree(model)
    _check_not_of_tfmot(tree)
    layers = tree.pruned_layers()
    wrappers = layers.values()
    if not wrappers:
        raise ValueError(
            f"{model.name!r} has no pruned layers: it was stripped already, or never given to "
            "tf_movprune.prune_low_movement."
        )
    for wrapper in wrappers:
        _ = wrapper.kernels  # raises if it is not built
        if wrapper.guard.is_folded:
            raise ValueError(
                f"{model.name!r} was stripped already: use what tf_movprune.strip_pruning returned."
            )
    warn_if_behind(model.name, {path: wrapper.kernels for path, wrapper in layers.items()})
    warn_if_left_out(model.name, [wrapper.usage for wrapper in wrappers])
    with undone_on_error(model):
        unguard(LayerTree(model))
        stripped = replace_layers(model, {id(wrapper): wrapper.layer for wrapper in wrappers})
        _forget_traces(LayerTree(stripped))
        warn_of_training(stripped)
        guard_loading(stripped)
        for wrapper in wrappers:
            wrapper.fold_masks()
        if stripped is not model:
            refuse_files(
                model,
                f"{model.name!r} was stripped: save what tf_movprune.strip_pruning returned, "
                f"{stripped.name!r}.",
            )
    if distiller is not None:
        forget_compilation(distiller)
    return stripped


def _forget_traces(tree: LayerTree) -> None:
    """Forgets functions, the compiled ones too, that were traced with other layers in place."""
    forget_compilation(tree.root)
    tree.forget_traces()


def _check_not_of_tfmot(tree: LayerTree) -> None:
    theirs = [repr(layer.name) for layer in tree.layers() if compat.is_tfmot_wrapper(layer)]
    if theirs:
        raise ValueError(
            f"{tree.root.name!r} is pruned by tensorflow_model_optimization, in "
            f"{listed(theirs)}. Call tfmot.sparsity.keras.strip_pruning on it first, and go on "
            "with what that returns."
        )


def _check_unpruned(tree: LayerTree) -> None:
    _check_not_of_tfmot(tree)
    if isinstance(tree.root, Distiller):
        raise not_pruned_itself()
    if tree.pruned_layers():
        raise ValueError(
            f"{tree.root.name!r} is pruned already. Prune a model once; to start over with other "
            "settings, call tf_movprune.strip_pruning on it first."
        )


def _refuse_patterns(what: str, *settings: Any) -> None:
    if any(isinstance(value, Mapping) for value in settings):
        raise TypeError(
            f"{what} takes one PruningSchedule, method and block_size, got a mapping of patterns."
        )
