"""The pieces that are kept or masked as one: single weights, blocks, heads or neurons."""

from __future__ import annotations

import enum
import numbers
from typing import Any, NamedTuple

from tf_movprune.core.arguments import check_integer


class _Size(NamedTuple):
    rows: int
    columns: int


class Blocks(_Size):
    """Blocks of a matrix that are kept or masked as one; attention's kernels count as matrices.

    Args:
      rows: size along the inputs of a Keras kernel [in, out], at least 1.
      columns: size along its outputs, at least 1.
    """

    __slots__ = ()

    def __new__(cls, rows: int, columns: int) -> Blocks:
        rows = check_integer("rows", rows, example=4, minimum=1)
        columns = check_integer("columns", columns, example=1, minimum=1)
        return super().__new__(cls, rows, columns)

    def __repr__(self) -> str:
        return f"Blocks({self.rows}, {self.columns})"


class Units(enum.Enum):
    """Parts of a model whose weights lie in several layers and stay or go as one."""

    HEADS = "heads"
    NEURONS = "neurons"

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"tf_movprune.{self.name}"


HEADS = Units.HEADS
"""Attention heads: each is kept or masked as one, with one score over all its weights.

Query heads that share a key and a value head are one with it.
"""

NEURONS = Units.NEURONS
"""Neurons between two dense layers: each is kept or masked as one, with one score."""

WEIGHTS = Blocks(1, 1)
"""Single weights: each is kept or masked by itself."""

BLOCKS_FLOAT32 = Blocks(4, 1)
"""Blocks that LiteRT multiplies natively in float32."""

BLOCKS_INT8 = Blocks(16, 1)
"""Blocks that LiteRT multiplies natively in int8."""


def check_block_size(block_size: Any) -> Blocks | Units:
    """Returns `Blocks` or `Units`; two integers stand for blocks.

    Raises:
      TypeError: `block_size` is neither.
      ValueError: a size is less than 1.
    """
    if isinstance(block_size, Units):
        return block_size
    is_pair = isinstance(block_size, (tuple, list)) and len(block_size) == 2
    if not is_pair or not all(isinstance(size, numbers.Integral) for size in block_size):
        raise TypeError(
            "block_size must be the rows and columns of a block, such as (4, 4) or "
            "tf_movprune.Blocks(4, 4), or for models tf_movprune.HEADS, tf_movprune.NEURONS or a "
            f"mapping from path patterns, got {block_size!r}."
        )
    if min(block_size) < 1:
        raise ValueError(f"block_size must be two integers of at least 1, got {block_size!r}.")
    return Blocks(*block_size)
