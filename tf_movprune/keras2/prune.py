"""Wrapping models for movement pruning, and unwrapping them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.run_checks import warn_if_behind
from tf_movprune.core.schedules import PruningSchedule
from tf_movprune.core.settings import Settings
from tf_movprune.core.wording import counted, listed
from tf_movprune.keras2 import compat, run_checks
from tf_movprune.keras2.compat import (
    Layer,
    PruningPolicy,
    check_keras_object,
    forget_compilation,
)
from tf_movprune.keras2.distiller import Distiller
from tf_movprune.keras2.layer import PruneLowMovement, is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, is_wrapper
from tf_movprune.keras2.other_keras import refuse_keras3
from tf_movprune.keras2.replacement import replace_layers, undone_on_error
from tf_movprune.keras2.same_outputs import Example
from tf_movprune.keras2.saving import guard_loading, guard_saving, refuse_files, unguard
from tf_movprune.keras2.targets import check_policy, choose
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
    """Prepares a model or layer for pruning during training.

    Sequential and Functional models are cloned around the same layers, with their losses, metrics
    and attributes. Subclassed models, subclasses of Functional and Sequential and Hugging Face
    models among them, are changed in place: each chosen sublayer's attribute becomes its wrapper.
    Composite layers inside a Sequential or Functional model are changed in place, too. A layer that
    is used in several places is wrapped once, in all of them. If anything raises, the model is left
    as it was. Compile the result before training, and train with `UpdatePruningStep`.

    Hugging Face encoders are pruned in the matrices that the paper prunes: query, key, value,
    attention output, intermediate and output of every encoder layer. Other models are pruned in
    their dense, convolution, attention and user-defined prunable layers, without embeddings,
    recurrent layers and output layers, whatever holds these: the model is traced once to find them,
    so call a subclassed one first. A `pruning_policy` overrides this choice, and patterns can name
    what it leaves out. `docs/which_layers.md` has the rules.

    Args:
      to_prune: a `tf_keras` model or layer, or a list of layers.
      pruning_schedule: a tfmot `PruningSchedule`, or a mapping from patterns over layer paths to
        schedules, such as `{"bert.encoder.layer.*.attention.*": ..., "*": ...}`. The first pattern
        that matches decides; layers that match none stay dense. A pattern that matches none of the
        default choice takes the layers that it matches among those left out, such as an embedding.
        Paths are those that `summarize_sparsity` prints. The method gives the schedule's value its
        meaning: a sparsity, or the threshold of `SoftMovement`. Pass None for `L0`, which takes no
        schedule.
      method: a method of choosing masks, or a mapping from patterns to methods; `HardMovement()` by
        default. Layers with equal methods, schedules and block sizes are selected together.
      block_size: granularity of the masks: `Blocks(rows, columns)` or two integers, on kernels
        [in, out]; `BLOCKS_FLOAT32` and `BLOCKS_INT8` are those that LiteRT runs natively. `HEADS`
        and `NEURONS` prune attention heads and the neurons between two dense layers, each with one
        score over all its weights and biases, in all its layers. At least one stays in each layer,
        and `minimum_remaining` of the method if that is more. The sparsity of a schedule is then
        the fraction of heads or neurons that go. Layers that have a part in them and would not be
        pruned, such as the output layer, are wrapped too. A mapping from patterns to these, such as
        `{"*.attention.*": HEADS, "*": NEURONS}`, means single weights if no pattern matches.
      pruning_policy: an object that chooses the layers: `PruneTransformerBlocks()`, which takes the
        decoders of Hugging Face models too, or another tfmot `PruningPolicy`.
      score_learning_rate_multiplier: learning rate of the scores over that of the optimizer, for
        any optimizer. `HardMovement` has 1 by default, since the order alone counts for scores that
        start at zero; `SoftMovement` has 1e-2 over 3e-5 and `L0` 1e-1 over 3e-5, as in the paper.
      **kwargs: arguments of `PruneLowMovement`, such as `name`, if `to_prune` is a layer.

    Returns:
      The pruned model, layer or list of layers.

    Raises:
      TypeError: an argument is not of its type, or the model is a Keras 3 model.
      ValueError: nothing can be pruned, the model is pruned already, a pattern matches or decides
        nothing, or heads or neurons are to be pruned in a layer that has none.

    Warns of transformer blocks and of matrices that the default choice leaves out, and of an output
    layer that was guessed, as the model cannot be traced.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
    """
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
        settings = {to_prune.name: Settings(*given)}
        return _wrap(tree, {to_prune.name: to_prune}, settings, **kwargs)[id(to_prune)]
    if kwargs:
        raise TypeError(f"Unexpected arguments for a model: {', '.join(kwargs)}.")

    targets, settings = choose(tree, pruning_policy, given)
    example = Example(tree)
    with undone_on_error(to_prune), contextlib.ExitStack() as if_it_fails:
        wrappers = _wrap(tree, targets, settings)
        for wrapper in wrappers.values():
            if_it_fails.callback(wrapper.let_go)
        _check_only_holders(tree, wrappers)
        pruned = replace_layers(to_prune, wrappers, for_a_while=True)
        after = LayerTree(pruned)
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


def _wrap(
    tree: LayerTree,
    targets: Mapping[str, Layer],
    settings: Mapping[str, Settings],
    **kwargs: Any,
) -> dict[int, PruneLowMovement]:
    """Wrappers by the ids of the layers inside them."""
    members = {path: Member(targets[path], setting) for path, setting in settings.items()}
    members.update(share_kernels(tree, settings, targets))
    # The first wrapper of a shared kernel makes it. That should be a trained one, if there is any.
    in_order = sorted(members.values(), key=lambda member: not member.layer.trainable)
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


def _check_only_holders(tree: LayerTree, wrappers: Mapping[int, PruneLowMovement]) -> None:
    """Raises ValueError if another layer has a kernel among its attributes.

    Nothing would mask it there, or both layers would.
    """
    holders = {id(wrapper.layer): wrapper.layer for wrapper in wrappers.values()}
    kernels: dict[int, Layer] = {}
    for wrapper in wrappers.values():
        for module in wrapper.layer.submodules:
            holders.setdefault(id(module), wrapper.layer)
        if wrapper.built:
            for weight in wrapper.get_prunable_weights():
                kernels.setdefault(id(weight), wrapper.layer)
    for layer in tree.layers():
        for name in compat.own_attributes(layer):
            target = kernels.get(id(vars(layer)[name]))
            if target is not None and holders.get(id(layer)) is not target:
                raise ValueError(
                    f"{layer.name!r} ({type(layer).__name__}) has the kernel of {target.name!r} as "
                    f"its {name!r}, so that one mask would not decide on it. Let it hold the layer "
                    f"{target.name!r} and read its kernel, or leave {target.name!r} out, with a "
                    "mapping of path patterns to schedules or a pruning_policy."
                )


def _prune_list(
    layers: list[Layer] | tuple[Layer, ...], policy: PruningPolicy | None, settings: Settings
) -> list[Layer]:
    for layer in layers:
        check_keras_object(layer)
        _check_not_of_tfmot(LayerTree(layer))
    pruned = [
        _wrap(LayerTree(layer), {layer.name: layer}, {layer.name: settings})[id(layer)]
        if is_prunable(layer) and (policy is None or policy.allow_pruning(layer))
        else layer
        for layer in layers
    ]
    if not any(map(is_wrapper, pruned)):
        raise ValueError(
            f"Nothing to prune in a list of {counted(len(pruned), 'layer')}: none has prunable "
            "weights."
        )
    return pruned


def strip_pruning(model: Any) -> Any:
    """Folds the masks into the weights and removes the wrappers.

    Attributes, names and the order of weights are those of the model before it was pruned. Outputs
    in evaluation equal those of the masked model to the bit; with `L0`, whose gates are not binary,
    they are equal up to rounding in mixed precision. Scores, masks and the compiled state are gone.

    Args:
      model: a model or layer that `prune_low_movement` returned, or a `Distiller` with one as its
        student. What was changed in place is changed back. The layers' weights are overwritten:
        training the pruned model further raises. If stripping raises, the pruned model is left as
        it was, and can be trained on and saved.

    Returns:
      The plain model or layer; for a `Distiller`, the student. A model that was cloned by
      `prune_low_movement` gives back the model that it was cloned from.

    Raises:
      TypeError: `model` is not a Keras model or layer.
      ValueError: nothing in `model` is pruned, it was stripped already, or it is not built.

    Warns if masks were never refreshed, have fewer zeros than their schedule asks for at its
    `end_step`, have no zeros, or have nothing else.
    """
    check_keras_object(model)
    if isinstance(model, Distiller):
        forget_compilation(model)
        model = model.student
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
    run_checks.warn_if_left_out(model.name, wrappers)
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
    return stripped


def _forget_traces(tree: LayerTree) -> None:
    """Forgets functions, the compiled ones too, that were traced with other layers in place."""
    forget_compilation(tree.root)
    for layer in tree.layers():
        compat.forget_traces(layer)
        compat.forget_functions(layer)


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
        raise ValueError(
            "Prune the student before distilling: tf_movprune.Distiller("
            "tf_movprune.prune_low_movement(student, ...), teacher)."
        )
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
