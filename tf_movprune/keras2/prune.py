"""Wrapping models for movement pruning, and unwrapping them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_movprune.core.methods import HardMovement, PruningMethod
from tf_movprune.core.settings import Settings
from tf_movprune.keras2 import checks
from tf_movprune.keras2.compat import (
    Layer,
    PruningPolicy,
    PruningSchedule,
    check_keras_object,
    keras,
)
from tf_movprune.keras2.distiller import Distiller
from tf_movprune.keras2.layer import PruneLowMovement, is_prunable
from tf_movprune.keras2.saving import guard_saving, unguard_saving
from tf_movprune.keras2.serialization import SERIALIZABLE
from tf_movprune.keras2.structure import shared_masks
from tf_movprune.keras2.targets import by_path, chosen_layers, is_hugging_face
from tf_movprune.keras2.tree import forget_compilation, pruned_layers, replace_layers


def prune_low_movement(
    to_prune: Any,
    pruning_schedule: PruningSchedule | Mapping[str, PruningSchedule | None] | None = None,
    method: PruningMethod | Mapping[str, PruningMethod] | None = None,
    *,
    block_size: tuple[int, int] | str | Mapping[str, tuple[int, int] | str] = (1, 1),
    pruning_policy: PruningPolicy | None = None,
    score_learning_rate_multiplier: float | None = None,
    **kwargs: Any,
) -> Any:
    """Prepares a model or layer for pruning during training.

    Sequential and Functional models are cloned around the same layers. Subclassed models, Hugging
    Face models among them, are changed in place: each chosen sublayer's attribute becomes its
    wrapper. So are composite layers inside a Sequential or Functional model. A layer that is used
    in several places is wrapped once, in all of them. Compile the result before training, and train
    with `UpdatePruningStep`.

    By default Hugging Face encoders get the matrices that the paper prunes: query, key, value,
    attention output, intermediate and output of every encoder layer. Other models get their
    dense, convolution, attention and user-defined prunable layers, without embeddings, recurrent
    layers and the output layer (in a subclassed model: the last of its own attributes).

    Args:
      to_prune: a `tf_keras` model or layer, or a list of layers.
      pruning_schedule: any tfmot `PruningSchedule`, or a mapping from patterns over layer paths to
        schedules, such as `{"bert.encoder.layer.*.attention.*": ..., "*": ...}`. The first pattern
        that matches decides; layers that match none stay dense. Paths are those that
        `summarize_sparsity` prints. What the value of a schedule means depends on the method: a
        sparsity, the threshold of `SoftMovement`; None for `L0`, which takes no schedule.
      method: how masks are chosen, or a mapping from patterns to methods; `HardMovement()` unless
        given. Layers with equal methods, schedules and block sizes are selected together.
      block_size: rows and columns of the blocks that stay or go as one, on kernels [in, out]:
        `BLOCKS_FLOAT32` and `BLOCKS_INT8` are those that LiteRT runs natively. `HEADS` and
        `NEURONS` prune attention heads and the neurons between two dense layers, each with one
        score over all its weights and biases, in all its layers; at least one stays of each layer,
        and `minimum_remaining` of the method where that is more. The sparsity of a schedule is then
        the fraction of heads or neurons that go. Layers that have a part in them and would not be
        pruned, such as the output layer, are wrapped too. Or a mapping from patterns to these, such
        as `{"*.attention.*": HEADS, "*": NEURONS}`; blocks of (1, 1) where none matches.
      pruning_policy: tfmot `PruningPolicy`; overrides the default choice of layers.
      score_learning_rate_multiplier: learning rate of the scores over that of the optimizer, for
        any optimizer. `HardMovement` has 1 by default, since from zero only the order of the
        scores counts; `SoftMovement` has 1e-2 over 3e-5 and `L0` 1e-1 over 3e-5, as in the paper.
      **kwargs: for `PruneLowMovement`, where `to_prune` is a layer, such as `name`.

    Returns:
      What was given, pruned.

    Raises:
      TypeError: an argument is not of its type, or the model is a Keras 3 model.
      ValueError: nothing can be pruned, the model is pruned already, a pattern matches nothing, or
        there are no heads or neurons where such should be pruned.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
    """
    chosen: Any = HardMovement() if method is None else method
    options: dict[str, Any] = {"score_learning_rate_multiplier": score_learning_rate_multiplier}
    _check_types(pruning_schedule, chosen)
    if isinstance(to_prune, (list, tuple)):
        _refuse_patterns("A list of layers", pruning_schedule, chosen, block_size)
        options["block_size"] = block_size
        return _prune_list(to_prune, pruning_schedule, chosen, pruning_policy, options)
    check_keras_object(to_prune)
    if isinstance(to_prune, Distiller):
        raise ValueError(
            "Prune the student before distilling: tf_movprune.Distiller("
            "tf_movprune.prune_low_movement(student, ...), teacher)."
        )
    if pruned_layers(to_prune):
        raise ValueError(
            f"{to_prune.name!r} is pruned already. Prune a model once; to start over with other "
            "settings, call tf_movprune.strip_pruning on it first."
        )
    if is_prunable(to_prune):
        if pruning_policy is not None:
            raise TypeError("A single layer takes no pruning_policy: it is what is pruned.")
        _refuse_patterns("A single layer", pruning_schedule, chosen, block_size)
        settings = {to_prune.name: Settings(pruning_schedule, chosen, block_size)}
        wrappers = _wrappers(to_prune, settings, {to_prune.name: to_prune}, {**options, **kwargs})
        return wrappers[id(to_prune)]
    if kwargs:
        raise TypeError(f"Unexpected arguments for a model: {', '.join(kwargs)}.")

    layers = chosen_layers(to_prune, pruning_policy)
    if is_hugging_face(to_prune) and not all(layer.built for layer in layers.values()):
        raise ValueError(
            f"{type(to_prune).__name__} is not built yet. Call it once on example inputs before "
            "pruning, for instance model(model.dummy_inputs): variables that are made inside "
            "pruning wrappers have other names, under which from_pretrained does not find them."
        )
    methods = by_path(layers, chosen, "method")
    schedules = by_path(layers, pruning_schedule, "pruning_schedule")
    if isinstance(chosen, Mapping):  # the schedule is for those that take one
        schedules = {
            path: schedule
            for path, schedule in schedules.items()
            if path in methods and methods[path].schedule_value is not None
        }
    chosen_paths = [
        path
        for path, method in methods.items()
        if path in schedules or method.schedule_value is None
    ]
    _check_use_of_methods(methods, chosen_paths)
    block_sizes = {
        path: tuple(size) if isinstance(size, list) else size
        for path, size in by_path(layers, block_size, "block_size").items()
    }
    settings = {
        path: Settings(schedules.get(path), methods[path], block_sizes.get(path, (1, 1)))
        for path in chosen_paths
    }
    wrappers = _wrappers(to_prune, settings, layers, options)
    pruned = replace_layers(to_prune, wrappers)
    forget_compilation(pruned)
    guard_saving(pruned)
    return pruned


def _wrappers(
    model: Layer,
    settings: dict[str, Settings],
    layers: Mapping[str, Layer],
    options: dict[str, Any],
) -> dict[int, PruneLowMovement]:
    """Wrappers by the ids of the layers inside them, from settings by path."""
    masks, more = shared_masks(model, settings, layers)
    chosen = {path: (layers[path], setting) for path, setting in settings.items()}
    wrapped = {**chosen, **more}
    # What is shared is made by the first of its wrappers: by one that is trained, if any is.
    order = sorted(wrapped, key=lambda path: not wrapped[path][0].trainable)
    return {
        id(wrapped[path][0]): PruneLowMovement(
            wrapped[path][0], *wrapped[path][1], shared_masks=masks.get(path, ()), **options
        )
        for path in order
    }


def _check_use_of_methods(methods: Mapping[str, PruningMethod], chosen: list[str]) -> None:
    """Raises ValueError where no layer of a method has a schedule."""
    used = {id(methods[path]) for path in chosen}
    for path, method in methods.items():
        if id(method) not in used:
            raise ValueError(
                f"{type(method).__name__} is the method of {path}, but no pattern of "
                "pruning_schedule matches any layer of that method. Add one."
            )


def _prune_list(layers, schedule, method, policy, options) -> list[Layer]:
    for layer in layers:
        check_keras_object(layer)
    pruned = [
        PruneLowMovement(layer, schedule, method, **options)
        if is_prunable(layer) and (policy is None or policy.allow_pruning(layer))
        else layer
        for layer in layers
    ]
    if not any(isinstance(layer, PruneLowMovement) for layer in pruned):
        raise ValueError(
            f"Nothing to prune in a list of {len(pruned)} layers: none has prunable weights."
        )
    return pruned


def strip_pruning(model: Any) -> Any:
    """Folds the masks into the weights and removes the wrappers.

    Attributes, names and the order of weights are those of the model before it was pruned, and
    the outputs in evaluation equal those of the masked model to the bit; those of `L0`, whose gates
    are not binary, up to rounding in mixed precision. Scores and masks are
    gone, and so is the compiled state.

    Args:
      model: a model or layer that `prune_low_movement` returned, or a `Distiller` with one as its
        student. Sequential and Functional models are cloned around the same layers, others are
        changed in place. Either way the layers' weights are overwritten: training the pruned
        model further raises.

    Returns:
      The plain model or layer; of a `Distiller`, the student.

    Raises:
      TypeError: not a Keras model or layer.
      ValueError: nothing in it is pruned.

    Warns where masks were never refreshed, have fewer zeros than their schedule asks for at its
    `end_step`, or none at all.
    """
    check_keras_object(model)
    if isinstance(model, Distiller):
        forget_compilation(model)
        model = model.student
    wrappers = pruned_layers(model).values()
    if not wrappers:
        raise ValueError(
            f"{model.name!r} has no pruned layers: it was stripped already, or never given to "
            "tf_movprune.prune_low_movement."
        )
    checks.warn_if_behind(model.name, wrappers)
    stripped = replace_layers(model, {id(wrapper): wrapper.fold_masks() for wrapper in wrappers})
    forget_compilation(stripped)
    unguard_saving(stripped)
    return stripped


def prune_scope():
    """Scope in which saved pruned models load; everything in it is registered anyway."""
    classes = (PruneLowMovement, *SERIALIZABLE)
    return keras.saving.custom_object_scope({cls.__name__: cls for cls in classes})


def _check_types(schedule: Any, method: Any) -> None:
    methods = list(method.values()) if isinstance(method, Mapping) else [method]
    for value in methods:
        if not isinstance(value, PruningMethod):
            raise TypeError(
                "method must be an object such as tf_movprune.HardMovement() or "
                f"tf_movprune.Magnitude(), or a mapping from path patterns to such; got {value!r}."
            )
    may_be_none = any(value.schedule_value is None for value in methods)
    for value in schedule.values() if isinstance(schedule, Mapping) else [schedule]:
        if not isinstance(value, PruningSchedule) and not (value is None and may_be_none):
            raise TypeError(
                "pruning_schedule must be a PruningSchedule, such as tf_movprune.CubicSparsity("
                "0.9, begin_step=200, end_step=1800), or a mapping from path patterns to such; "
                f"got {value!r}."
            )
    for name, value in (("pruning_schedule", schedule), ("method", method)):
        if isinstance(value, Mapping) and not value:
            raise ValueError(f"{name} is an empty mapping: nothing would be pruned.")


def _refuse_patterns(what: str, *settings: Any) -> None:
    if any(isinstance(value, Mapping) for value in settings):
        raise TypeError(
            f"{what} takes one PruningSchedule, method and block_size, got a mapping of patterns."
        )
