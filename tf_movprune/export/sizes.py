"""Bytes that a stripped model takes in each of several formats."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune.core.named_weights import PARTS, NamedWeight
from tf_movprune.export.compressed import part_sizes
from tf_movprune.export.compressed_files.coding import QUANTIZATIONS, encode_all, stored_as
from tf_movprune.export.protocol import shell_of

_LARGEST = "dense float32"


@dataclasses.dataclass(frozen=True)
class SizeReport:
    """Bytes by format and part of the model. Printing the report gives a table.

    The formats are `dense`; `bitmap`, one bit for each element and the values of the non-zeros;
    `gzip`, the dense form after `gzip -6`; `compressed`, a file of `export_compressed` without its
    header; and `bound`, the bound of that file. Each name ends with the type of the values, such as
    `dense int8`; biases and LayerNorm stay float32.
    """

    bytes: dict[str, dict[str, int]]

    def total(self, name: str) -> int:
        """Bytes of the whole model in one format."""
        return sum(self.bytes[name].values())

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Returns `{format: {"embeddings": ..., "layers": ..., "other": ..., "all": ...}}`."""
        return {name: {**parts, "all": self.total(name)} for name, parts in self.bytes.items()}

    def __str__(self) -> str:
        columns = (*PARTS, "all")
        header = f"{'bytes':18}" + "".join(f" {column:>13}" for column in columns) + "  smaller"
        largest = self.total(_LARGEST)
        lines = [
            f"{name:18}"
            + "".join(f" {sizes[column]:>13,}" for column in columns)
            + f" {largest / sizes['all']:>7.1f}x"
            for name, sizes in self.as_dict().items()
        ]
        return "\n".join([header, *lines])


def size_report(model: Any, *, quantizations: Sequence[str | None] = QUANTIZATIONS) -> SizeReport:
    """Computes the bytes that a model's weights take in each format, by part.

    The parts follow from where a weight lies, whether it was pruned or not: `embeddings` are
    embedding layers, and all that Hugging Face's models hold under that name; `layers` are those
    that `prune_low_movement` prunes by default, with their biases, and whole blocks of Hugging
    Face's encoders and decoders; `other` is the rest: output layers, poolers, recurrent layers,
    normalization between layers, vocabularies.

    Args:
      model: a built model without pruning wrappers.
      quantizations: types of the values: `"int8"`, `"float16"`, and None for float32. Fewer take
        less time. `dense float32` is always reported.

    Returns:
      A `SizeReport`; print it.

    Raises:
      ImportError: zstandard is missing.
      TypeError: `model` is not a Keras model.
      ValueError: the model is still pruned or not built, or int8 or float16 cannot hold a weight.
    """
    weights = shell_of(model).named_weights(model)
    sizes: dict[str, dict[str, int]] = {}
    chosen = [q for q in reversed(QUANTIZATIONS) if q in quantizations]
    for quantization in chosen:
        values = quantization or "float32"
        for name in ("dense", "bitmap", "gzip"):
            sizes[f"{name} {values}"] = dict.fromkeys(PARTS, 0)
        for part in PARTS:
            data = bytearray()
            for weight in (weight for weight in weights if weight.part == part):
                dense, bitmap = _plain_bytes(weight, quantization)
                data += dense
                sizes[f"bitmap {values}"][part] += bitmap
            sizes[f"dense {values}"][part] = len(data)
            sizes[f"gzip {values}"][part] = len(gzip.compress(data, 6)) if data else 0
        compressed = part_sizes(weights, encode_all(weights, quantization))
        sizes[f"compressed {values}"] = {part: size.bytes for part, size in compressed.items()}
        sizes[f"bound {values}"] = {part: round(size.bound) for part, size in compressed.items()}
    formats = [quantization or "float32" for quantization in chosen]
    names = ("dense", "gzip", "bitmap", "compressed", "bound")
    found = {f"{n} {v}": sizes[f"{n} {v}"] for n in names for v in formats}
    return SizeReport({_LARGEST: _dense_float32(weights), **found})


def _dense_float32(weights: Sequence[NamedWeight]) -> dict[str, int]:
    """Bytes by part of the weights as they are, without quantization."""
    sizes = dict.fromkeys(PARTS, 0)
    for weight in weights:
        sizes[weight.part] += stored_as(weight, None)[0].nbytes
    return sizes


def _plain_bytes(weight: NamedWeight, quantization: str | None) -> tuple[bytes, int]:
    """A weight's dense bytes, scales included, and the number of bytes of its sparse form."""
    stored, scales, _ = stored_as(weight, quantization)
    scale_bytes = b"" if scales is None else scales.tobytes()
    bitmap = -(-stored.size // 8) + int(np.count_nonzero(stored)) * stored.itemsize
    return stored.tobytes() + scale_bytes, bitmap + len(scale_bytes)
