"""First masks of kernels, and checks of methods whose masks keep the zeros of a sparse model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.counting import count_true, is_zero
from tf_movprune.core.granularity import WEIGHTS
from tf_movprune.core.masked_kernel import (
    MaskedKernel,
    Part,
    block_size_of,
    each_once,
    joined_weights,
    masked_parts,
)
from tf_movprune.core.settings import Settings
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import listed

NamedWeights = Sequence[tuple[str, Any]]
"""The prunable weights of a layer with their names."""

_MOST_NEW_ZEROS = 0.01  # of the weights that are trained, if training made them


def start_of_mask(settings: Settings, parts: Sequence[Part]) -> Callable[..., tf.Tensor]:
    """Initializer of a mask: all true, unless the method keeps the zeros that weights have."""

    def start(shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        if not settings.method.keeps_zeros:
            return tf.ones(shape, tf.bool)
        size = tf.TensorShape(shape).num_elements()
        weights, block_size = joined_weights(parts, size), block_size_of(parts, settings, size)
        importance = settings.method.importance(weights, None, block_size)
        ((mask, _),) = settings.method.select([importance], tf.ones([]))
        return tf.reshape(mask, shape)

    return start


def first_threshold(settings: Settings) -> float:
    """The lowest importance that a first mask keeps."""
    return 1.0 if settings.method.keeps_zeros else -np.inf


def check_built(layers: Iterable[tuple[Any, Settings]]) -> None:
    """Raises ValueError if layers without weights are to be pruned by a method that keeps zeros."""
    names = [
        repr(layer.name)
        for layer, settings in layers
        if settings.method.keeps_zeros and not layer.weights
    ]
    if names:
        raise ValueError(
            f"KeepZeros needs weights, and {listed(names)} has none yet. Call the model once on "
            "example inputs, for instance model(batch), and load its weights before pruning."
        )


def check_zeros(layers: Mapping[str, tuple[Sequence[MaskedKernel], NamedWeights]]) -> None:
    """Raises ValueError if methods that keep zeros find none, or would let some come back.

    Args:
      layers: masked kernels and weights of each pruned layer, by its path.
    """
    kernels = each_once(k for members, _ in layers.values() for k in _keeping(members))
    if not kernels:
        return
    paths = {
        id(weight): f"{path}.{name}"
        for path, (_, weights) in layers.items()
        for name, weight in weights
    }

    def named(weight: tf.Variable) -> str:
        return f"{paths.get(id(weight), weight.name)} {tuple(weight.shape)}"

    weights = [weight for weight, _ in masked_parts(kernels)]
    if not any(np.any(_zeros(weight)) for weight in weights):
        raise ValueError(
            f"Nothing is zero in {listed(map(named, weights))}: KeepZeros keeps "
            "the zeros that weights have when they are pruned. Load or assign sparse weights "
            "first, such as those of a stripped model; or prune by another method, such as "
            "tf_movprune.HardMovement()."
        )
    coarse = [kernel for kernel in kernels if kernel.settings.block_size != WEIGHTS]
    lost = [f"{count:,} of {named(weight)}" for weight, count, _ in _zeros_let_go(coarse)]
    if lost:
        sizes = dict.fromkeys(repr(kernel.settings.block_size) for kernel in coarse)
        raise ValueError(
            f"KeepZeros with block_size {' and '.join(sizes)} masks what is zero as a whole, and "
            f"other zeros would come back in training: {listed(lost)}. Leave block_size out for "
            "these layers: masks of single weights keep the zeros of blocks, heads and neurons "
            "too. An output layer that reads neurons needs a pattern of its own then."
        )


def check_anything_is_masked(kernels: Iterable[MaskedKernel]) -> None:
    """Raises ValueError if masks that are to keep zeros have none, and nothing can change them."""
    keeping = _keeping(kernels)
    if keeping and all(np.all(kernel.mask) for kernel in keeping):
        raise ValueError(
            "The masks of KeepZeros have no zeros: this model was made from a configuration, "
            "without the weights and masks that belong to it. Load them, or set_weights() of the "
            "pruned model; or prune a sparse model."
        )


def warn_if_zeros_are_elsewhere(kernels: Mapping[str, Sequence[MaskedKernel]], step: int) -> None:
    """Warns of zeros that masks do not keep, since weights were assigned after pruning.

    Args:
      kernels: masked kernels by the path of their layer.
      step: the step at which training starts; zeros that training made are not looked at, nor are
        so few that an earlier run may have made them.
    """
    if step > 0:
        return
    keeping = {path: _keeping(members) for path, members in kernels.items()}
    found = _zeros_let_go(each_once(kernel for members in keeping.values() for kernel in members))
    replaced = {id(weight) for weight, count, kept in found if count > _MOST_NEW_ZEROS * kept}
    others = [
        path
        for path, members in keeping.items()
        if any(id(weight) in replaced for weight, _ in masked_parts(members))
    ]
    if others:
        warn(
            f"Weights of {', '.join(others)} are zero where their masks do not keep it: KeepZeros "
            "looks at the weights when they are pruned. Load or assign sparse weights first, and "
            "prune the model then."
        )


def _keeping(kernels: Iterable[MaskedKernel]) -> list[MaskedKernel]:
    return [kernel for kernel in kernels if kernel.method.keeps_zeros]


def _zeros(weight: tf.Variable) -> tf.Tensor:
    return is_zero(tf.cast(tf.convert_to_tensor(weight), tf.float32))


def _zeros_let_go(kernels: Iterable[MaskedKernel]) -> list[tuple[tf.Variable, int, int]]:
    """The weights with zeros that none of their masks keeps, how many, and of how many entries."""
    found = []
    for weight, masked_by in masked_parts(kernels):
        masks = [part.expand(tf.identity(k.mask), k.block_size) for k, part in masked_by]
        trained = functools.reduce(tf.logical_and, masks)
        count = int(count_true(trained & _zeros(weight)))
        if count:
            found.append((weight, count, int(count_true(trained))))
    return found
