"""Making the masked kernels of a layer, and their variables, which belong to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.blocks import block_shape, check_blocks
from tf_movprune.core.kept_zeros import first_threshold, start_of_mask
from tf_movprune.core.masked_kernel import MaskedKernel, Part, block_size_of, joined_weights
from tf_movprune.core.matrix_layout import MatrixLayout, einsum_layout, matrix_shape
from tf_movprune.core.scores import SCORES_NAME, initial_scores
from tf_movprune.core.settings import Settings
from tf_movprune.core.variable_names import plain_name
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.kernel_attributes import Attribute, short_names

VARIABLE_NAMES = (SCORES_NAME, "mask", "threshold", "penalty_weight", "noise_seed")


@dataclasses.dataclass(eq=False)
class SharedKernel:
    """A masked kernel with parts in several layers, made by the first of their wrappers.

    Attributes:
      size: number of heads or neurons.
      parts: places of their weights, each with the axis along which unit follows unit.
      kernel: the kernel, once it is made.
    """

    size: int
    parts: Sequence[tuple[Attribute, int]]
    kernel: MaskedKernel | None = None


def matrix_shapes(
    path: str, layer: Layer, weights: Sequence[tf.Variable]
) -> dict[str, tuple[int, ...]]:
    """Shapes of kernels, or of their matrices, by the layer's path and the kernel's name.

    Args:
      path: path of the layer.
      layer: the layer without a wrapper.
      weights: its kernels.
    """
    layouts = _layouts(layer)
    return {
        f"{path}.{name}": matrix_shape(weight.shape.as_list(), layouts.get(id(weight)))
        for name, weight in short_names(weights)
    }


def _layouts(layer: Layer) -> dict[int, MatrixLayout]:
    """The matrices that the `EinsumDense` layers in a layer multiply with, by the kernel's id."""
    einsums = (x for x in (layer, *layer.submodules) if isinstance(x, keras.layers.EinsumDense))
    found = ((id(x.kernel), einsum_layout(x.equation)) for x in einsums if x.built)
    return {key: layout for key, layout in found if layout is not None}


def make_kernels(
    layer: Any,
    settings: Settings,
    weights: Sequence[tf.Variable],
    shared_kernels: Sequence[SharedKernel],
    held: Collection[int],
) -> tuple[list[MaskedKernel], list[MaskedKernel]]:
    """The masked kernels of a layer, and those among them that are made here.

    Args:
      layer: the wrapper that owns the variables that are made.
      settings: how the weights are pruned.
      weights: the prunable weights, each with a kernel of its own unless there are shared ones.
      shared_kernels: the heads and neurons that the weights have a part in.
      held: ids of the weights that the layer has itself.

    Raises:
      ValueError: a weight cannot be cut into blocks.
    """
    if not shared_kernels:
        size = settings.block_size
        check_blocks(matrix_shapes(layer.layer.name, layer.layer, weights), size)
        layouts = _layouts(layer.layer)
        parts = [Part.in_blocks(weight, layouts.get(id(weight)), size) for weight in weights]
        kernels = [
            make_kernel(layer, settings, [p], block_shape(p.covered_shape, size), p.weight)
            for p in parts
        ]
        return kernels, kernels
    kernels, made = [], []
    for shared in shared_kernels:
        if shared.kernel is None:
            parts = [
                Part(attribute.weight, axis, is_bias=attribute.name == "bias")
                for attribute, axis in shared.parts
            ]
            first = next(part.weight for part in parts if id(part.weight) in held)
            shared.kernel = make_kernel(layer, settings, parts, (shared.size,), first)
            made.append(shared.kernel)
        kernels.append(shared.kernel)
    return kernels, made


def masked_attributes(
    attributes: Mapping[int, Attribute],
    weights: Sequence[tf.Variable],
    kernels: Sequence[MaskedKernel],
) -> list[tuple[Attribute, list[tuple[MaskedKernel, Part]]]]:
    """Masked attributes and the kernels that mask them: of prunable weights, then of biases."""
    found: dict[int, tuple[Attribute, list[tuple[MaskedKernel, Part]]]] = {}
    for weight in weights:
        found[id(weight)] = attributes[id(weight)], []
    for kernel in kernels:
        for part in kernel.parts:
            key = id(part.weight)
            if key in attributes:
                found.setdefault(key, (attributes[key], []))[1].append((kernel, part))
    return list(found.values())


def make_kernel(
    layer: Layer,
    settings: Settings,
    parts: Sequence[Part],
    shape: tuple[int, ...],
    weight: tf.Variable,
) -> MaskedKernel:
    """A masked kernel whose variables are those of a layer, named after one of its weights."""
    method = settings.method

    def add(name: str, shape: Any, dtype: tf.DType, initializer: Any = "zeros", **kwargs: Any):
        return layer.add_weight(
            name, shape, dtype, initializer=initializer, experimental_autocast=False, **kwargs
        )

    def state(name: str, shape: Any, dtype: tf.DType, initializer: Any = "zeros") -> tf.Variable:
        return add(name, shape, dtype, initializer, trainable=False)

    with tf.name_scope(f"{plain_name(weight.name)}/"):
        scores = None
        if method.has_scores:
            start = _start_of_scores(settings, parts, math.prod(shape))
            scores = add(SCORES_NAME, shape, tf.float32, start, trainable=True)
        lowest = keras.initializers.Constant(first_threshold(settings))
        return MaskedKernel(
            settings,
            parts,
            scores=scores,
            mask=state("mask", shape, tf.bool, start_of_mask(settings, parts)),
            threshold=state("threshold", (), tf.float32, lowest),
            penalty_weight=state("penalty_weight", (), tf.float32) if method.has_penalty else None,
            # int32 variables have no place on a GPU.
            noise_seed=state("noise_seed", (2,), tf.int64) if method.has_noise else None,
        )


def _start_of_scores(settings: Settings, parts: Sequence[Part], size: int) -> Any:
    """Initializer of a score variable. Keras skips it for values that a checkpoint brings."""

    def start(shape, dtype=None, **kwargs):
        scores = initial_scores(
            settings.method.score_initializer,
            shape,
            lambda: joined_weights(parts, size),
            block_size_of(parts, settings, size),
            keras.initializers.get,
        )
        return settings.score_scale.to_variable(scores)

    return start
