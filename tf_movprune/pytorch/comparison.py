"""The comparison of two files with weights of one model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.encoder_families import Family, with_todays_names
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.pytorch.scores import split_scores
from tf_movprune.pytorch.sizes import cut, found_sizes
from tf_movprune.pytorch.weight_files import read_weights


def differing_weight(
    tensors: Mapping[str, StoredTensor],
    sizes: Sequence[EncoderSizes],
    family: Family,
    config: Mapping[str, Any],
    other: pathlib.Path,
) -> str | None:
    """Finds what makes another file another function, in words; None if it is the same one.

    A file of full size is the same function as one without some of its heads if these heads do
    nothing in it.

    Args:
      tensors: weights by name.
      sizes: the sizes of their encoder layers.
      family: the kind of the encoder.
      config: configuration beside both files.
      other: file of PyTorch, or of a TF class.
    """
    theirs, _ = split_scores(with_todays_names(read_weights(other), family), other)
    their_sizes = found_sizes(theirs, config, family, other, may_be_whole=True)
    for index, (size, their_size) in enumerate(zip(sizes, their_sizes)):
        if not set(size.heads) <= set(their_size.heads) or size.neurons != their_size.neurons:
            return f"the sizes of layer {index}"
        for head in sorted(set(their_size.heads) - set(size.heads)):
            if _does_something(theirs, family, index, their_size.heads.index(head), their_size):
                return f"head {head} of layer {index}, which only {other.name} has"
    theirs = cut(theirs, family, their_sizes, sizes, is_padding=False)
    for name in sorted(tensors.keys() ^ theirs.keys()):
        if ".pooler." not in name:  # which some classes have though nothing reads it
            return f"{name!r}, which only one of them has"
    for name in tensors:
        if name not in theirs:
            continue
        if not np.array_equal(tensors[name].array(), theirs[name].array(), equal_nan=True):
            return repr(name)
    return None


def _does_something(
    tensors: Mapping[str, StoredTensor], family: Family, index: int, place: int, size: EncoderSizes
) -> bool:
    """Returns whether a head of a layer, at some place in its matrices, changes the output."""
    value, output = (
        f"{family.block(index)}{layer}" for layer in (family.value, family.attention_output)
    )
    bias, matrix = tensors[f"{value}.bias"].array(), tensors[f"{value}.weight"].array()
    reads = tensors[f"{output}.weight"].array()
    step = len(matrix) // len(size.heads)
    head = slice(place * step, (place + 1) * step)
    return bool(reads[:, head].any() and (matrix[head].any() or bias[head].any()))
