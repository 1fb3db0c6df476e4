"""Moving masks forward: which are due at a step, and computing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_movprune.core import masks, topk
from tf_movprune.core.methods import PruningMethod
from tf_movprune.core.schedules import final_value
from tf_movprune.core.settings import Settings
from tf_movprune.keras2.compat import Layer, PruningSchedule
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.serialization import serialize_method
from tf_movprune.keras2.tree import pruned_layers


def update_masks(model: Layer, step: tf.Tensor | int, *, force: bool = False) -> tf.Tensor:
    """Refreshes the masks of a pruned model, where its schedules say that they are due.

    For training loops of your own: call it before each step, with the optimizer's iterations, and
    once more after the last with `force=True`. It may be called inside `tf.function`. `fit` needs
    only `UpdatePruningStep`.

    Args:
      model: a pruned model or layer.
      step: integer scalar, the number of optimizer steps taken so far.
      force: refresh every mask whose schedule has begun, due or not.

    Returns:
      float32 scalar, the fraction of zeros over all prunable weights.

    Raises:
      ValueError: nothing in the model is pruned, it is not built, or `step` is negative.
    """
    wrappers = built_layers(model).values()
    if not tf.is_tensor(step) and not isinstance(step, tf.Variable) and step < 0:
        raise ValueError(f"step must be at least 0, got {step}.")
    for wrapper in wrappers:
        wrapper.masks_are_refreshed = True
    refresh_masks(wrappers, tf.cast(step, tf.int64), force=force)
    return overall_sparsity(wrappers)


def built_layers(model: Layer) -> dict[str, PruneLowMovement]:
    """The wrappers of a model by path.

    Raises:
      ValueError: there are none, or they are not built.
    """
    wrappers = pruned_layers(model)
    if not wrappers:
        raise ValueError(
            f"{model.name!r} has no pruned layers. Call tf_movprune.prune_low_movement on the "
            "model first, and train what it returns."
        )
    for wrapper in wrappers.values():
        wrapper.get_prunable_weights()
    return wrappers


def refresh_masks(
    wrappers: Iterable[PruneLowMovement],
    step: tf.Tensor,
    *,
    window: int = 1,
    force: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Recomputes the masks that were due at one of the last `window` steps up to `step`.

    Their sparsity is that of `step` itself. A schedule's `end_step` is always due.

    Args:
      wrappers: built layers.
      step: int64 scalar.
      window: steps since the last call, at least 1.
      force: bool scalar; if true, all masks whose schedule has begun are due.

    Returns:
      bool scalar, whether any mask was recomputed.
    """
    wrappers = list(wrappers)
    any_due = tf.constant(False)
    for group in groups(wrappers):
        has_begun = step >= getattr(group.schedule, "begin_step", 0)
        due = (has_begun & force) | _is_due(group.schedule, step, window)
        tf.cond(due, lambda group=group: _refresh(group, step, wrappers), lambda: False)
        any_due |= due
    return any_due


class Group(NamedTuple):
    """Layers with equal schedules, methods and block sizes: selected together."""

    schedule: PruningSchedule
    method: PruningMethod
    layers: list[PruneLowMovement]


def groups(wrappers: Iterable[PruneLowMovement]) -> list[Group]:
    """The groups of some layers, in the order of their first layers."""
    found: dict[str, Group] = {}
    for wrapper in wrappers:
        group = Group(wrapper.pruning_schedule, wrapper.method, [])
        found.setdefault(settings_of(wrapper), group).layers.append(wrapper)
    return list(found.values())


def settings_of(wrapper: PruneLowMovement) -> str:
    """What a refresh depends on besides variables: equal in layers of one group only."""
    return Settings(wrapper.pruning_schedule, wrapper.method, wrapper.block_size).key


def _is_due(schedule: PruningSchedule, step: tf.Tensor, window: int) -> tf.Tensor:
    end_step = getattr(schedule, "end_step", -1)

    def due(step: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(schedule(step)[0]) | tf.equal(step, end_step)

    if window == 1:
        return due(step)
    steps = tf.maximum(step - tf.range(window, dtype=tf.int64), 0)
    return tf.reduce_any(tf.map_fn(due, steps, fn_output_signature=tf.bool))


def _refresh(group: Group, step: tf.Tensor, wrappers: Sequence[PruneLowMovement]) -> bool:
    method, layers = group.method, group.layers
    value = tf.convert_to_tensor(group.schedule(step)[1])
    # Each mask once, however many layers share it.
    places: dict[int, tuple[PruneLowMovement, int]] = {}
    for layer in layers:
        for i, mask in enumerate(layer.masks):
            places.setdefault(id(mask), (layer, i))
    importances = [layer.importance(i) for layer, i in places.values()]
    selected = method.select(importances, value)
    for (layer, i), importance, (mask, threshold) in zip(places.values(), importances, selected):
        if layer.shared_masks:
            mask = masks.keep_one(mask, importance)
        layer.masks[i].assign(mask)
        layer.thresholds[i].assign(threshold)
    if method.has_penalty:
        progress = tf.math.divide_no_nan(value, final_value(group.schedule))
        config = serialize_method(method)
        matrices = sum(
            layer.penalties for layer in wrappers if serialize_method(layer.method) == config
        )
        weight = method.penalty_weight(tf.cast(progress, tf.float32)) / matrices
        for layer in layers:
            layer.penalty_weight.assign(weight)
    if method.has_noise:
        for layer in layers:
            layer.noise_seed.assign([step, wrappers.index(layer)])
    return True


def overall_sparsity(wrappers: Iterable[PruneLowMovement]) -> tf.Tensor:
    """Fraction of zeros over all matrices of some layers: float32 scalar."""
    remaining, total = tf.constant(0, tf.int64), 0
    by_block: dict[int, list[tf.Variable]] = {}  # masks by the number of weights to an entry
    for wrapper in wrappers:
        if wrapper.shared_masks:
            remaining += tf.add_n(wrapper.remaining())
            total += sum(k.shape.num_elements() for k in wrapper.get_prunable_weights())
            continue
        rows, columns = wrapper.block_size
        by_block.setdefault(rows * columns, []).extend(wrapper.masks)
    for block, alike in by_block.items():
        remaining += block * tf.reduce_sum(topk.count_true_of_each(alike))
        total += block * sum(mask.shape.num_elements() for mask in alike)
    return tf.cast((total - remaining) / total, tf.float32)
