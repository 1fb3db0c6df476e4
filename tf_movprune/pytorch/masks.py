"""Masks from the scores in a checkpoint, as the code that trained it makes them in evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.hard_concrete import hard_concrete_gate
from tf_movprune.core.masks import global_topk_masks, minimum_count, threshold_masks, topk_mask
from tf_movprune.core.methods import L0, HardMovement, Magnitude, SoftMovement
from tf_movprune.core.stored_tensor import StoredTensor

MINIMUM = 0.005
"""Fraction of each matrix that the paper's code keeps above a threshold in any case."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredWeight:
    """A weight of a checkpoint, and its scores.

    Attributes:
      weight: the weight [out, in].
      scores: its scores, one for each block; or those of rows and of columns, None for either that
        has none. Empty for methods without scores.
    """

    weight: StoredTensor
    scores: Sequence[StoredTensor | None]

    @property
    def is_split(self) -> bool:
        """True if rows and columns have scores of their own, whose products count."""
        return len(self.scores) == 2

    @property
    def block_size(self) -> tuple[int, int]:
        """Rows and columns of the weight [out, in] that share a score."""
        if not self.scores:
            return 1, 1
        if not self.is_split:
            shape = self.scores[0].shape  # type: ignore[union-attr]
        else:
            shape = tuple(
                size if scores is None else scores.shape[0]
                for size, scores in zip(self.weight.shape, self.scores)
            )
        rows, columns = (size // count for size, count in zip(self.weight.shape, shape))
        return rows, columns

    def importance(self) -> np.ndarray:
        """Scores by row and column of blocks, or the magnitudes of the weights: float32."""
        if not self.scores:
            return np.abs(self.weight.array())
        if not self.is_split:
            return self.scores[0].array().astype(np.float32)  # type: ignore[union-attr]
        sizes = (size // block for size, block in zip(self.weight.shape, self.block_size))
        rows, columns = (
            np.ones(size, np.float32) if scores is None else scores.array().astype(np.float32)
            for size, scores in zip(sizes, self.scores)
        )
        return np.outer(rows, columns)

    def expand(self, mask: np.ndarray) -> np.ndarray:
        """Repeats a mask with an entry for each block over the weight."""
        rows, columns = self.block_size
        return mask.repeat(rows, axis=0).repeat(columns, axis=1)


class Masks:
    """The masks of the weights of a checkpoint.

    Args:
      weights: weights with scores, or all weights of a method without scores, by name.
      methods: the method of each.
      threshold: the checkpoint's final threshold: for `HardMovement` and `Magnitude` the fraction
        that stays, for `SoftMovement` the cut on the sigmoid of the scores; None if all are `L0`.
      masks_biases: whether the bias of a row is zero if all of the row is.
    """

    def __init__(
        self,
        weights: Mapping[str, ScoredWeight],
        methods: Mapping[str, Any],
        threshold: float | None = None,
        *,
        masks_biases: bool = False,
    ):
        self.weights, self.methods, self.threshold = weights, methods, threshold
        self.masks_biases = masks_biases
        together = [name for name in weights if getattr(methods[name], "scope", "") == "global"]
        self._global = self._global_masks(together) if together else {}

    def _global_masks(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The masks of weights that are selected together.

        The paper's code keeps all scores above the highest one that goes, and lets one more stay
        than the fraction says. Then it adds what a matrix has less than its minimum.
        """
        importances = [tf.constant(self._importance(name)) for name in names]
        total = sum(importance.shape.num_elements() for importance in importances)
        count = min(int(self.threshold * total) + 1, total)
        chosen, _ = global_topk_masks(importances, tf.constant(count, tf.int64))
        found = {}
        for name, mask, importance in zip(names, chosen, importances):
            given, size = self.methods[name].minimum_remaining, mask.shape.num_elements()
            least = int(MINIMUM * size) + 1 if given is None else minimum_count(size, given)
            enough, _ = topk_mask(importance, tf.constant(min(least, size), tf.int64))
            found[name] = (mask | enough).numpy()
        return found

    def _importance(self, name: str) -> np.ndarray:
        importance = self.weights[name].importance()
        if not np.isfinite(importance).all():
            raise ValueError(f"The scores of {name!r} are not all finite: none can be ranked.")
        return importance

    def entries(self, name: str) -> np.ndarray:
        """The mask of a weight, with one entry for each block: bool, or gates in float32."""
        if name in self._global:
            return self._global[name]
        method, importance = self.methods[name], tf.constant(self._importance(name))
        size = importance.shape.num_elements()
        if isinstance(method, L0):
            return hard_concrete_gate(importance).numpy()
        if isinstance(method, SoftMovement):
            minimum = min(int(method.minimum_remaining * size) + 1, size)
            return threshold_masks([importance], self.threshold, [minimum])[0].numpy()
        count = int(self.threshold * size)
        if method.minimum_remaining is not None:
            count = max(count, minimum_count(size, method.minimum_remaining))
        return topk_mask(importance, tf.constant(count, tf.int64))[0].numpy()

    def apply(self, name: str, values: np.ndarray) -> np.ndarray:
        """A weight times its mask, or a bias times that of its rows; other tensors as they are."""
        if name in self.weights:
            mask = self.weights[name].expand(self.entries(name))
        elif self.masks_biases and (weight := _weight_of(name)) in self.weights:
            rows = (self.entries(weight) != 0).any(axis=1)
            mask = rows.repeat(self.weights[weight].block_size[0])
        else:
            return values
        return values * mask.astype(values.dtype)


def _weight_of(bias: str) -> str:
    """The name of the weight of a layer, by that of its bias; empty for other tensors."""
    return f"{bias.removesuffix('.bias')}.weight" if bias.endswith(".bias") else ""


_METHODS: Mapping[str, Any] = {
    "topK": HardMovement(),
    "magnitude": Magnitude(),
    "l0": L0(),
    "sigmoied_threshold": SoftMovement(minimum_remaining=MINIMUM),
}


def method_of(name: Any, minimum: float) -> Any:
    """The method that the paper's code, and nn_pruning, call by a name.

    Args:
      name: the name, with a submethod of nn_pruning after a colon.
      minimum: fraction of each matrix that stays above a threshold in any case.

    Raises:
      ValueError: it is not known, or says too little.
    """
    plain = str(name).partition(":")[0]
    if plain == "threshold":
        raise ValueError(
            "The pruning method 'threshold' compares scores with a number, which no method here "
            "does. If it was used with --global_topk, pass method=tf_movprune.HardMovement("
            "scope='global') and the final fraction that stays as threshold."
        )
    if name is None:
        raise ValueError(
            "The checkpoint has scores, and config.json has no pruning_method. Pass the method: "
            "method=tf_movprune.HardMovement() for topK, SoftMovement() for sigmoied_threshold, "
            "Magnitude() or L0()."
        )
    if plain not in _METHODS:
        raise ValueError(
            f"The pruning method must be one of {', '.join(_METHODS)}, got {name!r}. Pass the "
            "method, such as tf_movprune.HardMovement()."
        )
    found = _METHODS[plain]
    if isinstance(found, SoftMovement):
        return dataclasses.replace(found, minimum_remaining=minimum)
    return found
