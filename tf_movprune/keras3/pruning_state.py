"""What a pruned layer knows of its pruning: its masked kernels, and how training uses them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_movprune.core.kernel_usage import own_reads
from tf_movprune.core.masked_kernel import MaskedKernel, Part
from tf_movprune.core.recomputation import CallModes
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import Place
from tf_movprune.keras3.kernel_usage import KernelUsage
from tf_movprune.keras3.movement_mask import MovementMask

STATE = "_movement_state"  # the attribute of a pruned layer that holds it


class MaskedPlace(NamedTuple):
    """A place of a kernel, the masks that decide on it, each with its part, and the kernel.

    The place has a masked tensor while its layer computes, and the layer may call itself then.
    """

    place: Place
    masked_by: Sequence[tuple[MovementMask, Part]]
    variable: keras.Variable

    def masked(self, training: Any) -> tf.Tensor:
        """The tensor to compute with in place of the kernel."""
        with own_reads():
            tensor = tf.convert_to_tensor(self.variable)
            for mask, part in self.masked_by:
                tensor = mask.masked(part, tensor, training)
        return tensor


class PruningState:
    """What a pruned layer knows of its pruning.

    Attributes:
      guard: refuses training that refreshes no masks.
      usage: notes of what training computes with.
      modes: the modes in which it was called, for gradients that compute it anew.
      places: its masked kernels.
      masks: the names of the attributes that hold the masks which it owns, and these.
    """

    def __init__(self, layer: Layer):
        self.guard = TrainingGuard(layer.name)
        self.usage = KernelUsage(layer.name, self.guard, layer)
        self.modes = CallModes(layer.name)
        self.places: list[MaskedPlace] = []
        self.masks: dict[str, MovementMask] = {}
        self.lock = threading.RLock()  # threads take turns, since they share the attributes

    @property
    def kernels(self) -> list[MaskedKernel]:
        """The masked kernels that the layer has a part in."""
        records = (mask.record for place in self.places for mask, _ in place.masked_by)
        return list({id(record): record for record in records}.values())


def check_run(layer: Layer, trained: Collection[int]) -> None:
    """Raises ValueError if training did not use a pruned layer, or gave its scores no gradient.

    Args:
      layer: a pruned layer.
      trained: ids of the TensorFlow variables that are trained.
    """
    state = state_of(layer)
    names = kernel_names(layer, [masked.place for masked in state.places])
    learned = [
        name
        for name, masked in zip(names, state.places)
        if id(compat.tensorflow_variable(masked.variable)) in trained
        and all(mask.record.method.has_scores for mask, _ in masked.masked_by)
    ]
    state.usage.check_run(learned)


def is_pruned(layer: Any) -> bool:
    """Returns whether a layer computes with masked kernels."""
    return isinstance(layer, Layer) and STATE in vars(layer)


def state_of(layer: Layer) -> PruningState:
    """The state of a pruned layer."""
    return vars(layer)[STATE]


def kernel_names(layer: Layer, places: Sequence[Place]) -> list[str]:
    """Names of kernels within a layer, which tell those of several cells apart."""
    names = [place.short_name for place in places]
    if len(set(names)) == len(names):
        return names
    owners = list(dict.fromkeys(id(place.owner) for place in places))
    return [f"{n}_{owners.index(id(place.owner))}" for n, place in zip(names, places)]
