"""Wrapping models for movement pruning, and unwrapping them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_movprune._keras import (
    Layer,
    PruningPolicy,
    PruningSchedule,
    check_keras_object,
    keras,
)
from tf_movprune.distillation import Distiller
from tf_movprune.methods import HardMovement, Magnitude, MagnitudeScores, PruningMethod
from tf_movprune.schedules import CubicSparsity
from tf_movprune.selection import chosen_layers, is_hugging_face, schedules_by_path
from tf_movprune.traversal import pruned_layers, replace_layers
from tf_movprune.wrapper import PruneLowMovement, is_prunable


def prune_low_movement(
    to_prune: Any,
    pruning_schedule: PruningSchedule | Mapping[str, PruningSchedule],
    method: PruningMethod | None = None,
    *,
    block_size: tuple[int, int] = (1, 1),
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
        `summarize_sparsity` prints.
      method: how masks are chosen; `HardMovement()` unless given.
      block_size: rows and columns of the blocks that stay or go as one, on kernels [in, out].
      pruning_policy: tfmot `PruningPolicy`; overrides the default choice of layers.
      score_learning_rate_multiplier: learning rate of the scores over that of the optimizer, for
        any optimizer. `HardMovement` has 1 by default, since from zero only the order of the
        scores counts; the paper's runs have 1e-2 over 3e-5.
      **kwargs: for `PruneLowMovement`, where `to_prune` is a layer, such as `name`.

    Returns:
      What was given, pruned.

    Raises:
      TypeError: an argument is not of its type, or the model is a Keras 3 model.
      ValueError: nothing can be pruned, the model is pruned already, or a pattern matches nothing.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
    """
    method = HardMovement() if method is None else method
    options: dict[str, Any] = {
        "method": method,
        "block_size": block_size,
        "score_learning_rate_multiplier": score_learning_rate_multiplier,
    }
    _check_schedule_type(pruning_schedule)
    if isinstance(to_prune, (list, tuple)):
        return _prune_list(to_prune, pruning_schedule, pruning_policy, options)
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
        if not isinstance(pruning_schedule, PruningSchedule):
            raise TypeError("A single layer takes one PruningSchedule, got a mapping of patterns.")
        return PruneLowMovement(to_prune, pruning_schedule, **options, **kwargs)
    if kwargs:
        raise TypeError(f"Unexpected arguments for a model: {', '.join(kwargs)}.")

    layers = chosen_layers(to_prune, pruning_policy)
    if is_hugging_face(to_prune) and not all(layer.built for layer in layers.values()):
        raise ValueError(
            f"{type(to_prune).__name__} is not built yet. Call it once on example inputs before "
            "pruning, for instance model(model.dummy_inputs): variables that are made inside "
            "pruning wrappers have other names, under which from_pretrained does not find them."
        )
    schedules = schedules_by_path(layers, pruning_schedule)
    wrappers = {
        id(layers[path]): PruneLowMovement(layers[path], schedule, **options)
        for path, schedule in schedules.items()
    }
    pruned = replace_layers(to_prune, wrappers)
    _forget_compilation(pruned)
    _guard_save_pretrained(pruned)
    return pruned


def _prune_list(layers, schedule, policy, options) -> list[Layer]:
    for layer in layers:
        check_keras_object(layer)
    pruned = [
        PruneLowMovement(layer, schedule, **options)
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
    the outputs in evaluation equal those of the masked model to the bit. Scores and masks are
    gone, and so is the compiled state.

    Args:
      model: a model or layer that `prune_low_movement` returned, or a `Distiller` with one as its
        student. Sequential and Functional models are cloned around the same layers, others are
        changed in place. Either way the layers' weights are overwritten: the pruned model is not
        to be trained further.

    Returns:
      The plain model or layer; of a `Distiller`, the student.

    Raises:
      TypeError: not a Keras model or layer.
      ValueError: nothing in it is pruned.
    """
    check_keras_object(model)
    if isinstance(model, Distiller):
        _forget_compilation(model)
        model = model.student
    wrappers = pruned_layers(model).values()
    if not wrappers:
        raise ValueError(
            f"{model.name!r} has no pruned layers: it was stripped already, or never given to "
            "tf_movprune.prune_low_movement."
        )
    if all(np.all(mask) for wrapper in wrappers for mask in wrapper.masks):
        warnings.warn(
            f"The masks of {model.name!r} were never refreshed: stripping gives the dense model. "
            "Train it with tf_movprune.UpdatePruningStep(), or call tf_movprune.update_masks.",
            stacklevel=2,
        )
    stripped = replace_layers(model, {id(wrapper): wrapper.fold_masks() for wrapper in wrappers})
    _forget_compilation(stripped)
    vars(stripped).pop("save_pretrained", None)
    return stripped


def prune_scope():
    """Scope in which saved pruned models load; everything in it is registered anyway."""
    classes = (PruneLowMovement, CubicSparsity, HardMovement, Magnitude, MagnitudeScores)
    return keras.saving.custom_object_scope({cls.__name__: cls for cls in classes})


def _forget_compilation(model: Layer) -> None:
    """Compiled functions were traced before the change, and the optimizer knows other variables."""
    if isinstance(model, keras.Model):
        model._reset_compile_cache()
        model._is_compiled = False
        model.optimizer = None


def _guard_save_pretrained(model: Layer) -> None:
    """Hugging Face would save the unmasked weights, and load them without a word."""
    if hasattr(type(model), "save_pretrained"):

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise ValueError(
                f"{model.name!r} still has pruning wrappers, and save_pretrained would write its "
                "unmasked weights. Save what tf_movprune.strip_pruning(model) returns; to go on "
                "training later, use save_weights or tf.train.Checkpoint."
            )

        vars(model)["save_pretrained"] = refuse


def _check_schedule_type(schedule: Any) -> None:
    values = schedule.values() if isinstance(schedule, Mapping) else [schedule]
    for value in values:
        if not isinstance(value, PruningSchedule):
            raise TypeError(
                "pruning_schedule must be a PruningSchedule, such as tf_movprune.CubicSparsity("
                "0.9, begin_step=200, end_step=1800), or a mapping from path patterns to such; "
                f"got {value!r}."
            )
    if isinstance(schedule, Mapping) and not schedule:
        raise ValueError("pruning_schedule is an empty mapping: nothing would be pruned.")
