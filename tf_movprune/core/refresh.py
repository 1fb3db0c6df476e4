"""Refreshes of masks: which are due at a step, and their computation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.masks import keep_one
from tf_movprune.core.schedules import Ramp
from tf_movprune.core.settings import config_of


def refresh_masks(
    kernels: Iterable[MaskedKernel],
    step: tf.Tensor,
    *,
    window: int | tf.Tensor = 1,
    force: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Recomputes the masks that were due at one of the last `window` steps up to `step`.

    Their sparsity is that of `step` itself. A schedule's `end_step` is always due, and fixed masks
    are never.

    Args:
      kernels: masked kernels, each once.
      step: int64 scalar.
      window: steps since the last call, at least 1.
      force: bool scalar; if true, all masks are due whose schedule has begun and is not over: one
        that never fires again fixes its masks.

    Returns:
      bool scalar, true if any mask was recomputed.
    """
    kernels = list(kernels)
    any_due = tf.constant(False)
    for group in groups(kernels):
        ramp = group[0].settings.ramp
        if ramp.is_fixed:
            continue
        due = (_may_refresh(ramp, step) & force) | _is_due(ramp, step, window)
        tf.cond(due, lambda group=group: _refresh(group, step, kernels), lambda: False)
        any_due |= due
    return any_due


def is_idle(kernels: Sequence[MaskedKernel], step: int, window: int, sparsity: float) -> bool:
    """Returns whether a refresh at a step would change nothing.

    Args:
      kernels: masked kernels, each once.
      step: the number of optimizer steps taken so far.
      window: steps since the last refresh, at least 1.
      sparsity: the overall sparsity of the masks.
    """
    for kernel, *_ in groups(kernels):
        ramp = kernel.settings.ramp
        if ramp.is_fixed or not bool(_is_due(ramp, tf.constant(step, tf.int64), window)):
            continue
        keeps_all = ramp.value_name == "sparsity" and sparsity == ramp.value_at(step) == 0
        if not keeps_all or kernel.method.has_penalty or kernel.noise_seed is not None:
            return False
    return True


def groups(kernels: Iterable[MaskedKernel]) -> list[list[MaskedKernel]]:
    """Kernels with equal schedules, methods and block sizes, which are selected together.

    The groups, and the kernels in each, are in the order of `kernels`.
    """
    found: dict[str, list[MaskedKernel]] = {}
    for kernel in kernels:
        found.setdefault(kernel.settings.key, []).append(kernel)
    return list(found.values())


def _may_refresh(ramp: Ramp, step: tf.Tensor) -> tf.Tensor:
    has_begun = step >= ramp.begin_step
    return has_begun if ramp.last_step is None else has_begun & (step <= ramp.last_step)


def _is_due(ramp: Ramp, step: tf.Tensor, window: int | tf.Tensor) -> tf.Tensor:
    def due(step: tf.Tensor) -> tf.Tensor:
        fires = tf.convert_to_tensor(ramp.schedule(step)[0])
        return fires if ramp.end_step is None else fires | tf.equal(step, ramp.end_step)

    if isinstance(window, int) and window == 1:
        return due(step)
    steps = tf.maximum(step - tf.range(window, dtype=tf.int64), 0)
    return tf.reduce_any(tf.map_fn(due, steps, fn_output_signature=tf.bool))


def _refresh(
    group: Sequence[MaskedKernel], step: tf.Tensor, kernels: Sequence[MaskedKernel]
) -> bool:
    settings = group[0].settings
    method, ramp = settings.method, settings.ramp
    value = tf.convert_to_tensor(ramp.schedule(step)[1])
    importances = [kernel.importance() for kernel in group]
    selected = method.select(importances, value)
    for kernel, importance, (mask, threshold) in zip(group, importances, selected):
        kernel.mask.assign(keep_one(mask, importance) if kernel.has_units else mask)
        kernel.threshold.assign(threshold)
    if method.has_penalty:
        progress = tf.math.divide_no_nan(value, ramp.final_value)
        # The penalty is a mean over all matrices of the method, whatever their schedules.
        config = config_of(method)
        matrices = sum(config_of(kernel.method) == config for kernel in kernels)
        weight = method.penalty_weight(tf.cast(progress, tf.float32)) / matrices
        for kernel in group:
            if kernel.penalty_weight is not None:
                kernel.penalty_weight.assign(weight)
    for kernel in group:
        if kernel.noise_seed is not None:
            kernel.noise_seed.assign([step, kernels.index(kernel)])
    return True
