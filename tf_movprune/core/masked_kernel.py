"""A masked kernel: its variables, and the weights that they decide on."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_movprune.core.blocks import expand_blocks, expand_units
from tf_movprune.core.counting import count_true_of_each
from tf_movprune.core.granularity import Blocks
from tf_movprune.core.matrix_layout import PLAIN, MatrixLayout, matrix_shape
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.settings import Settings


class Part(NamedTuple):
    """A weight that a mask decides on.

    An ordinary kernel is one part, which its mask covers block by block. A head or a neuron has
    parts in several layers, and its mask has one entry for each run of entries along an axis.
    """

    weight: tf.Variable
    axis: int | None = None
    """The axis along which unit follows unit; None if the mask covers the weight in blocks."""

    is_bias: bool = False
    """True if the weight is masked but not counted, like the biases of heads and neurons."""

    layout: MatrixLayout | None = None
    """The matrix of the weight that blocks cover; None if they are single weights, or units."""

    @classmethod
    def in_blocks(
        cls, weight: tf.Variable, layout: MatrixLayout | None, block_size: tuple[int, int]
    ) -> Part:
        """A kernel as the only part of its mask.

        Args:
          weight: the kernel.
          layout: its matrix, if it is one.
          block_size: rows and columns of a block.
        """
        is_covered_as_it_is = block_size == (1, 1) or layout == PLAIN
        return cls(weight, layout=None if is_covered_as_it_is else layout)

    @property
    def covered_shape(self) -> tuple[int, ...]:
        """Shape of what a mask covers in blocks."""
        return matrix_shape(tuple(self.weight.shape), self.layout)

    def rows(self, size: int) -> tf.Tensor:
        """The weight in float32: a row for each of `size` units, or the matrix of blocks."""
        weights = tf.cast(tf.convert_to_tensor(self.weight), tf.float32)
        if self.layout is not None:
            return self.layout.to_matrix(weights)
        if self.axis is None:
            return weights
        order = [self.axis, *(i for i in range(weights.shape.rank) if i != self.axis)]
        return tf.reshape(tf.transpose(weights, order), [size, -1])

    def expand(self, entries: tf.Tensor, block_size: tuple[int, int]) -> tf.Tensor:
        """Repeats the entries of a mask or of scores over the weights that they stand for."""
        if self.layout is not None:
            matrix = expand_blocks(entries, block_size)
            return self.layout.to_kernel(matrix, tuple(self.weight.shape))
        if self.axis is None:
            return expand_blocks(entries, block_size)
        return expand_units(entries, tuple(self.weight.shape), self.axis)


def joined_weights(parts: Sequence[Part], size: int) -> tf.Tensor:
    """Weights that a mask of `size` entries decides on: the float32 kernel, or a row per unit."""
    return tf.concat([part.rows(size) for part in parts], axis=-1)


def block_size_of(parts: Sequence[Part], settings: Settings, size: int) -> tuple[int, int]:
    """Rows and columns of the joined weights that one entry of a mask stands for."""
    if isinstance(settings.block_size, Blocks):
        return settings.block_size
    return 1, sum(part.weight.shape.num_elements() for part in parts) // size


@dataclasses.dataclass(eq=False)
class MaskedKernel:
    """Scores, mask and threshold of a kernel, and the parts that it is made of.

    Attributes:
      settings: schedule, method and granularity of its pruning.
      parts: the weights that the mask decides on.
      mask: bool variable, one entry for each block or unit.
      threshold: float32 scalar variable: the lowest importance that is kept; for `SoftMovement` the
        cut on the sigmoid of the scores; -inf before the first refresh, if there is any.
      scores: float32 variable of the shape of the mask, in the units of `settings.score_scale`;
        None for methods without scores.
      penalty_weight: float32 scalar variable; None for methods without a penalty.
      noise_seed: int64 variable of shape [2]; None for methods without noise.
    """

    settings: Settings
    parts: Sequence[Part]
    mask: tf.Variable
    threshold: tf.Variable
    scores: tf.Variable | None = None
    penalty_weight: tf.Variable | None = None
    noise_seed: tf.Variable | None = None

    @property
    def method(self) -> PruningMethod:
        return self.settings.method

    @property
    def variables(self) -> list[tf.Variable]:
        found = (self.scores, self.mask, self.threshold, self.penalty_weight, self.noise_seed)
        return [variable for variable in found if variable is not None]

    @property
    def size(self) -> int:
        """Number of entries of the mask."""
        return self.mask.shape.num_elements()

    @property
    def has_units(self) -> bool:
        """True if the mask decides on heads or neurons."""
        return not isinstance(self.settings.block_size, Blocks)

    @property
    def block_size(self) -> tuple[int, int]:
        """Rows and columns of `weights()` that one entry of the mask stands for."""
        return block_size_of(self.parts, self.settings, self.size)

    def weights(self) -> tf.Tensor:
        """Unmasked weights that the mask decides on: the float32 kernel, or a row per unit."""
        return joined_weights(self.parts, self.size)

    def paper_scores(self) -> tf.Tensor | None:
        """Scores as in the paper, with a gradient that is handed on unscaled."""
        return None if self.scores is None else self.settings.score_scale.to_scores(self.scores)

    def importance(self) -> tf.Tensor:
        """Importance of each entry of the mask to the method: float32 tensor."""
        importance = self.method.importance(self.weights(), self.paper_scores(), self.block_size)
        return tf.reshape(importance, self.mask.shape)

    def masked(self, part: Part, weight: tf.Tensor, *, training: bool) -> tf.Tensor:
        """The tensor to compute with in place of a part.

        Args:
          part: one of `parts`.
          weight: its value, in the precision of the computation.
          training: whether methods with noise draw it.
        """
        scores = self.paper_scores()
        if scores is not None:
            scores = part.expand(scores, self.block_size)
        mask = part.expand(tf.convert_to_tensor(self.mask), self.block_size)
        seed = None
        if self.noise_seed is not None and training:
            seed = tf.convert_to_tensor(self.noise_seed)
        return self.method.mask_kernel(weight, scores, mask, seed)

    def penalty(self) -> tf.Tensor:
        """Penalty that this kernel adds to the loss: float32 scalar."""
        return self.penalty_weight * self.method.penalty(self.paper_scores())


def each_once(kernels: Iterable[MaskedKernel]) -> list[MaskedKernel]:
    """Kernels in their order, without repeating those that several layers share."""
    return list({id(kernel): kernel for kernel in kernels}.values())


def masked_parts(
    kernels: Iterable[MaskedKernel],
) -> list[tuple[tf.Variable, list[tuple[MaskedKernel, Part]]]]:
    """The weights that count towards sparsity, each with all that masks it."""
    found: dict[int, tuple[tf.Variable, list[tuple[MaskedKernel, Part]]]] = {}
    for kernel in kernels:
        for part in kernel.parts:
            if not part.is_bias:
                found.setdefault(id(part.weight), (part.weight, []))[1].append((kernel, part))
    return list(found.values())


def remaining(
    weights: Sequence[tuple[tf.Variable, list[tuple[MaskedKernel, Part]]]],
) -> list[tf.Tensor]:
    """Counts the entries of each weight that all its masks keep: int64 scalars.

    Masks along different axes keep the product of what each keeps. Others are multiplied out.
    """
    kernels = list({id(k): k for _, masked_by in weights for k, _ in masked_by}.values())
    counts = dict(zip(map(id, kernels), tf.unstack(count_true_of_each([k.mask for k in kernels]))))
    found = []
    for weight, masked_by in weights:
        size = weight.shape.num_elements()
        axes = [part.axis for _, part in masked_by]
        if len(axes) == 1 or (None not in axes and len(set(axes)) == len(axes)):
            kept = tf.constant(size // math.prod(kernel.size for kernel, _ in masked_by), tf.int64)
            for kernel, _ in masked_by:
                kept *= counts[id(kernel)]
        else:
            masks = [part.expand(tf.identity(k.mask), k.block_size) for k, part in masked_by]
            kept = count_true_of_each([functools.reduce(tf.logical_and, masks)])[0]
        found.append(kept)
    return found


def overall_sparsity(kernels: Iterable[MaskedKernel]) -> tf.Tensor:
    """The fraction of zeros over all weights that some kernels mask: float32 scalar."""
    weights = masked_parts(kernels)
    total = sum(weight.shape.num_elements() for weight, _ in weights)
    return tf.cast((total - tf.add_n(remaining(weights))) / total, tf.float32)
