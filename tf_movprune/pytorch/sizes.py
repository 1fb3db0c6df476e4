"""Sizes of encoder layers in a checkpoint, and tensors that are cut or padded to others."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.encoder_families import Family
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.pytorch.weight_files import metadata

SIZES = "tf_movprune_sizes"
"""Entry in a safetensors file that says which heads and neurons of each layer are padding."""


_TABLES = {  # keys of a configuration, the tensors that they count, and along which axis
    "vocab_size": ("{}.embeddings.word_embeddings.weight", 0),
    "max_position_embeddings": ("{}.embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("{}.embeddings.token_type_embeddings.weight", 0),
    "embedding_size": ("{}.embeddings.word_embeddings.weight", 1),
}
_HEADS = ("qa_outputs.weight", "classifier.weight", "classifier.out_proj.weight")


def check_tables(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, Any],
    family: Family,
    path: pathlib.Path,
) -> None:
    """Refuses a configuration by which a model would be larger than its weights, before it is made.

    Raises:
      ValueError: a number of words, positions, segments or labels is not that of the weights, or
        words or positions are missing.
    """
    wanted = [
        (key, template.format(family.prefix), axis, config[key])
        for key, (template, axis) in _TABLES.items()
        if key in config
    ]
    labels = {"num_labels": config.get("num_labels"), "id2label": config.get("id2label")}
    for key, value in labels.items():
        if value is not None:
            count = len(value) if isinstance(value, (dict, list)) else value
            wanted += [(key, name, 0, count) for name in _HEADS if name in tensors]
    for name in (_TABLES["vocab_size"][0], _TABLES["max_position_embeddings"][0]):
        if name.format(family.prefix) not in tensors:
            raise ValueError(f"{path} must have {name.format(family.prefix)!r}, and has not.")
    for key, name, axis, count in wanted:
        shape = tensors[name].shape if name in tensors else ()
        if shape and (len(shape) <= axis or shape[axis] != count):
            raise ValueError(
                f"{name} in {path} is of another shape than config.json says: {shape}, and "
                f"{key} is {count}."
            )


def found_sizes(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, Any],
    family: Family,
    path: pathlib.Path,
    *,
    may_be_whole: bool,
) -> list[EncoderSizes]:
    """What is left of each encoder layer, by the shapes of its weights.

    Args:
      tensors: the weights of a checkpoint by name.
      config: its configuration, whose `pruned_heads` says which heads are gone.
      family: the kind of its encoder.
      path: its file, for messages.
      may_be_whole: whether layers may have all heads in spite of `pruned_heads`. Files of TF
        classes on the hub were converted before heads were removed.

    Raises:
      ValueError: a matrix is missing, or `pruned_heads` does not agree with its shape.
    """
    width, heads = family.size(config, "width"), family.size(config, "head_count")
    layers = family.size(config, "layer_count")
    if width % heads:
        raise ValueError(
            f"{family.width} {width} in config.json is no multiple of {family.head_count} {heads}."
        )
    removed = _removed_heads(config, heads, layers)
    found = []
    for index in range(layers):
        block = family.block(index)
        names = [f"{block}{layer}.weight" for layer in (family.query, family.intermediate)]
        missing = [name for name in names if name not in tensors or len(tensors[name].shape) != 2]
        if missing:
            raise ValueError(
                f"{path} must have a matrix {missing[0]!r} for layer {index} of {layers}, and has "
                "none."
            )
        rows, neurons = (tensors[name].shape[0] for name in names)
        if tensors[names[0]].shape[1] != width or not neurons:
            raise ValueError(
                f"{names[0]!r} in {path} must read {family.width} {width} numbers, and a neuron be "
                f"left, got the shapes {tensors[names[0]].shape} and {tensors[names[1]].shape}."
            )
        gone = removed.get(index, set())
        left, rest = divmod(rows, width // heads)
        if left == heads and may_be_whole:
            gone = set()
        if rest or not 0 < left == heads - len(gone):
            raise ValueError(
                f"pruned_heads in config.json removes {len(gone)} of {heads} heads from layer "
                f"{index}, but {names[0]!r} of shape {tensors[names[0]].shape} in {path} has "
                f"{rows / (width // heads):g} heads of {width // heads}. Correct pruned_heads, or "
                "use the file that goes with it."
            )
        found.append(EncoderSizes(tuple(x for x in range(heads) if x not in gone), neurons))
    return found


def _removed_heads(config: Mapping[str, Any], heads: int, layers: int) -> dict[int, set[int]]:
    found = {}
    pruned = config.get("pruned_heads") or {}
    try:
        for layer, removed in pruned.items():
            if int(layer) not in range(layers) or any(x not in range(heads) for x in removed):
                raise ValueError("out of range")
            found[int(layer)] = set(removed)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"pruned_heads in config.json must map layers below {layers} to lists of heads below "
            f"{heads}, got {pruned!r}."
        ) from error
    return found


def recorded_sizes(path: pathlib.Path, sizes: Sequence[EncoderSizes]) -> list[EncoderSizes] | None:
    """The sizes that a file had before `save_pytorch` padded it; None if it says nothing.

    Raises:
      ValueError: they are not part of the sizes that it has.
    """
    if path.suffix != ".safetensors" or SIZES not in (said := metadata(path)):
        return None
    try:
        found = [EncoderSizes(tuple(heads), neurons) for heads, neurons in json.loads(said[SIZES])]
        if len(found) != len(sizes):
            raise ValueError(f"it is of {len(found)} layers, and there are {len(sizes)}")
        for recorded, size in zip(found, sizes):
            is_part = recorded.heads and set(recorded.heads) <= set(size.heads)
            is_sorted = list(recorded.heads) == sorted(set(recorded.heads))
            numbers = (*recorded.heads, recorded.neurons)
            is_whole = all(type(number) is int for number in numbers)
            if not (is_part and is_sorted and is_whole and 0 < recorded.neurons <= size.neurons):
                raise ValueError(f"{recorded} is no part of {size}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no valid entry {SIZES}, which says what is padding: {error}. Save its "
            "tensors without that entry to load them in the size that they have."
        ) from error
    return found


def to_json(sizes: Sequence[EncoderSizes]) -> str:
    """The text from which `recorded_sizes` reads sizes."""
    return json.dumps([[size.heads, size.neurons] for size in sizes])


# ---- tensors of other sizes


def places(
    family: Family, old: Sequence[EncoderSizes], new: Sequence[EncoderSizes], head_size: int
) -> Iterator[tuple[str, int, np.ndarray, int]]:
    """The tensors that depend on the sizes of encoder layers.

    Args:
      family: the kind of the encoder.
      old: sizes of its layers.
      new: smaller ones, or the same.
      head_size: rows of a head in the matrices of query, key and value.

    Yields:
      The name of a tensor, the axis along which its units follow each other, the places of the new
      entries among the old ones, and the number of the old ones.
    """
    for index, (have, want) in enumerate(zip(old, new, strict=True)):
        block = family.block(index)
        kept = np.searchsorted(have.heads, want.heads)
        rows = (kept[:, None] * head_size + np.arange(head_size)).ravel()
        for layer in (family.query, family.key, family.value):
            for part in ("weight", "bias"):
                yield f"{block}{layer}.{part}", 0, rows, len(have.heads) * head_size
        yield f"{block}{family.attention_output}.weight", 1, rows, len(have.heads) * head_size
        neurons = np.arange(want.neurons)
        for part in ("weight", "bias"):
            yield f"{block}{family.intermediate}.{part}", 0, neurons, have.neurons
        yield f"{block}{family.output}.weight", 1, neurons, have.neurons


def cut(
    tensors: Mapping[str, StoredTensor],
    family: Family,
    sizes: Sequence[EncoderSizes],
    new: Sequence[EncoderSizes],
    *,
    is_padding: bool = True,
) -> dict[str, StoredTensor]:
    """Tensors of smaller encoder layers.

    Args:
      tensors: tensors by name.
      family: the kind of the encoder.
      sizes: the sizes that they have.
      new: those that they get.
      is_padding: whether all that goes has to be zero, else reading a tensor raises ValueError.
    """
    first = tensors[f"{family.block(0)}{family.query}.weight"]
    head_size = first.shape[0] // len(sizes[0].heads)
    found = dict(tensors)
    for name, axis, kept, size in places(family, sizes, new, head_size):
        tensor = tensors.get(name)
        if tensor is None or len(tensor.shape) <= axis or tensor.shape[axis] != size:
            continue  # a wrong shape is told of when the tensor is used
        shape = (*tensor.shape[:axis], len(kept), *tensor.shape[axis + 1 :])
        read = functools.partial(_read_cut, name, tensor, axis, kept, is_padding)
        found[name] = StoredTensor(shape, tensor.dtype, read)
    return found


def _read_cut(
    name: str, tensor: StoredTensor, axis: int, kept: np.ndarray, is_padding: bool
) -> np.ndarray:
    values = tensor.read()
    if is_padding and np.delete(values, kept, axis).any():
        raise ValueError(f"{name!r} has numbers where the file says that there is padding.")
    return np.take(values, kept, axis)


def pad(
    arrays: dict[str, np.ndarray],
    family: Family,
    sizes: Sequence[EncoderSizes],
    new: Sequence[EncoderSizes],
    head_size: int,
) -> None:
    """Pads the tensors of encoder layers to larger sizes, with zeros, in place of the arrays."""
    for name, axis, kept, size in places(family, new, sizes, head_size):
        if name in arrays:
            values = arrays[name]
            padded = np.zeros((*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype)
            padded[(slice(None),) * axis + (kept,)] = values
            arrays[name] = padded
