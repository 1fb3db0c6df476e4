"""Moving masks forward: which are due at a step, and computing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from tf_movprune._keras import Layer, PruningSchedule
from tf_movprune.methods import PruningMethod
from tf_movprune.serialization import serialize_method, serialize_schedule
from tf_movprune.traversal import pruned_layers
from tf_movprune.wrapper import PruneLowMovement


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
    any_due = tf.constant(False)
    for schedule, method, group in groups(wrappers):
        has_begun = step >= getattr(schedule, "begin_step", 0)
        due = has_begun & (force | _is_due(schedule, step, window))
        sparsity = tf.convert_to_tensor(schedule(step)[1])
        tf.cond(due, lambda g=group, m=method, s=sparsity: _select(g, m, s), lambda: False)
        any_due |= due
    return any_due


def groups(
    wrappers: Iterable[PruneLowMovement],
) -> list[tuple[PruningSchedule, PruningMethod, list[PruneLowMovement]]]:
    """Layers with equal schedules and methods: their matrices are selected together."""
    found: dict[str, list[PruneLowMovement]] = {}
    for wrapper in wrappers:
        key = [serialize_schedule(wrapper.pruning_schedule), serialize_method(wrapper.method)]
        found.setdefault(repr(key), []).append(wrapper)
    return [(group[0].pruning_schedule, group[0].method, group) for group in found.values()]


def _is_due(schedule: PruningSchedule, step: tf.Tensor, window: int) -> tf.Tensor:
    end_step = getattr(schedule, "end_step", -1)

    def due(step: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(schedule(step)[0]) | tf.equal(step, end_step)

    if window == 1:
        return due(step)
    steps = tf.maximum(step - tf.range(window, dtype=tf.int64), 0)
    return tf.reduce_any(tf.map_fn(due, steps, fn_output_signature=tf.bool))


def _select(group: Sequence[PruneLowMovement], method, sparsity: tf.Tensor) -> bool:
    importances = [importance for layer in group for importance in layer.importances()]
    variables = [pair for layer in group for pair in zip(layer.masks, layer.thresholds)]
    for (mask, threshold), new in zip(variables, method.select(importances, sparsity)):
        mask.assign(new[0])
        threshold.assign(new[1])
    return True


def overall_sparsity(wrappers: Iterable[PruneLowMovement]) -> tf.Tensor:
    """Fraction of zeros over all matrices of some layers: float32 scalar."""
    remaining, total = tf.constant(0, tf.int64), 0
    for wrapper in wrappers:
        block = wrapper.block_size[0] * wrapper.block_size[1]
        for mask in wrapper.masks:
            remaining += block * tf.math.count_nonzero(mask)
            total += block * mask.shape.num_elements()
    return tf.cast((total - remaining) / total, tf.float32)
