"""Pruned models whose scores and masks are those of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune.core.granularity import Blocks
from tf_movprune.core.hard_concrete import GATE_THRESHOLD
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.methods import L0, SoftMovement
from tf_movprune.core.ported_weight import PortedWeight
from tf_movprune.core.schedules import CubicSparsity, CubicThreshold
from tf_movprune.pruning import prune_low_movement
from tf_movprune.pytorch.masks import Masks
from tf_movprune.shells import module_for


def prune_like(
    model: Any,
    masks: Masks,
    ported: Sequence[PortedWeight],
    pruning_schedule: Any,
    score_learning_rate_multiplier: float | None,
) -> Any:
    """Prunes a model with the scores and masks of a checkpoint.

    Args:
      model: model with the unmasked weights of the checkpoint.
      masks: the masks of the checkpoint.
      ported: the weights of the model.
      pruning_schedule: schedule of the masks; None for one that stays at the checkpoint's value.
      score_learning_rate_multiplier: as in `prune_low_movement`.

    Returns:
      The pruned model.

    Raises:
      ValueError: a mask of the checkpoint cannot be had here.
    """
    _check_biases(masks, ported)
    shell = module_for(model, "pytorch_protocol")
    names = {id(weight.variable): weight.name for weight in ported}
    paths = {
        path: names[key]
        for key, path in shell.kernel_paths(model).items()
        if names.get(key) in masks.weights
    }
    entries = {path: _entries(masks, name) for path, name in paths.items()}
    settings: dict[str, Any] = {
        path: pruning_schedule or _constant(masks.methods[name], masks.threshold)
        for path, name in paths.items()
    }
    methods = {path: masks.methods[name] for path, name in paths.items()}
    schedules = {path: value for path, value in settings.items() if value is not None}
    pruned = prune_low_movement(
        model,
        schedules or None,
        methods,
        block_size={path: _blocks(masks, name) for path, name in paths.items()},
        score_learning_rate_multiplier=score_learning_rate_multiplier,
    )
    kernels = shell.masked_kernels(pruned)
    for path, (mask, importance) in entries.items():
        _assign(kernels[path], mask, importance, masks.threshold)
    return pruned


def _check_biases(masks: Masks, ported: Sequence[PortedWeight]) -> None:
    for weight in ported:
        values = np.ones(weight.shape, np.float32)
        if weight.name.endswith(".bias") and not masks.apply(weight.name, values).all():
            raise ValueError(
                f"The mask of the checkpoint masks {weight.name!r} too, with the rows of its layer "
                "(bias_mask), and no mask here is like that. Load the checkpoint without "
                "masks=True."
            )


def _constant(method: Any, threshold: Any) -> Any:
    """A schedule that stays at a checkpoint's final value."""
    if isinstance(method, L0):
        return None
    if isinstance(method, SoftMovement):
        return CubicThreshold(threshold, 0, 1, initial_threshold=threshold)
    sparsity = 1 - threshold
    return CubicSparsity(sparsity, 0, 1, initial_sparsity=sparsity)


def _blocks(masks: Masks, name: str) -> Blocks:
    """The block size of a kernel [in, out]."""
    scored = masks.weights[name]
    rows, columns = scored.block_size
    if scored.is_split:
        rows, columns = (
            size if scores is None else block
            for size, scores, block in zip(scored.weight.shape, scored.scores, (rows, columns))
        )
    return Blocks(columns, rows)


def _entries(masks: Masks, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a kernel [in, out], and its scores, with one entry for each block."""
    scored = masks.weights[name]
    mask, importance = masks.entries(name).T, scored.importance().T
    if not scored.is_split:
        return mask, importance
    if None not in scored.scores:
        raise ValueError(
            f"{name!r} has scores of rows and of columns, whose products decide: no mask here is "
            "like that. Load the checkpoint without masks=True."
        )
    axis = 0 if scored.scores[1] is None else 1
    first = (slice(1), slice(None)) if axis == 0 else (slice(None), slice(1))
    if (mask != mask[first]).any():
        raise ValueError(
            f"The mask of {name!r} ends within a row or column that shares a score. Load the "
            "checkpoint without masks=True."
        )
    return mask[first], importance[first]


def _assign(
    kernel: MaskedKernel, mask: np.ndarray, importance: np.ndarray, threshold: float | None
) -> None:
    if kernel.scores is not None:
        scores = kernel.settings.score_scale.to_variable(importance)
        kernel.scores.assign(np.reshape(scores, kernel.scores.shape))
    kernel.mask.assign(np.reshape(mask > 0, kernel.mask.shape))
    if isinstance(kernel.method, L0):
        kernel.threshold.assign(GATE_THRESHOLD)
    elif isinstance(kernel.method, SoftMovement):
        kernel.threshold.assign(threshold)
    else:
        kernel.threshold.assign(importance[mask].min(initial=np.inf))
