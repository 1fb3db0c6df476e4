"""One small file for the weights of a stripped model: sparse, quantized and entropy-coded."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_choice
from tf_movprune.core.named_weights import PARTS, NamedWeight
from tf_movprune.export.checks import check_path
from tf_movprune.export.compressed_files.coding import (
    QUANTIZATIONS,
    EncodedWeight,
    encode_all,
    scales_of,
)
from tf_movprune.export.compressed_files.container import Container, container_of, open_container
from tf_movprune.export.compressed_files.table import Entry
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.turns import one_at_a_time

# Elements of a vocabulary that any file may have, and that each of its bytes may stand for: words
# hardly repeat.
_MOST_TO_A_FILE, _MOST_TO_A_BYTE = 1 << 20, 1024


@dataclasses.dataclass(frozen=True)
class PartSize:
    """Bytes of one part of a model: in the file, in memory, and a bound.

    `bound` is n·H(p)/8 + nnz·(bytes per value), summed over the weights: it takes zeros to be
    anywhere with the same probability, and values as they are. The file can be below it if zeros
    lie together or values compress. `dense` is the size of the weights in memory.
    """

    bytes: int
    bound: float
    dense: int
    remaining: int
    total: int

    @property
    def ratio(self) -> float:
        """Bytes in the file over the bound."""
        return self.bytes / self.bound if self.bound else float("nan")

    @property
    def times_smaller(self) -> float:
        """Bytes in memory over bytes in the file."""
        return self.dense / self.bytes if self.bytes else float("nan")


@dataclasses.dataclass(frozen=True)
class CompressedReport:
    """Sizes of a file of `export_compressed`, and how far it is from the model's weights.

    `parts` has the sizes of `"embeddings"`, `"layers"` and `"other"`; `size_report` says what these
    are. `max_abs_error` is the largest difference from a float32 weight, read back from the file;
    `rounded_to_zero` counts weights that became zero.
    """

    path: pathlib.Path
    bytes: int
    quantization: str | None
    parts: dict[str, PartSize]
    max_abs_error: float
    rounded_to_zero: int

    @property
    def total(self) -> PartSize:
        """The whole file, with its header."""
        fields: dict[str, Any] = {f.name: 0 for f in dataclasses.fields(PartSize)}
        for part in self.parts.values():
            fields = {name: value + getattr(part, name) for name, value in fields.items()}
        return PartSize(**{**fields, "bytes": self.bytes})

    @property
    def bound(self) -> float:
        return self.total.bound

    @property
    def ratio(self) -> float:
        """Bytes of the file over the bound."""
        return self.total.ratio

    @property
    def times_smaller(self) -> float:
        """Bytes of the weights in memory over those of the file."""
        return self.total.times_smaller

    def __str__(self) -> str:
        def row(name: str, size: PartSize) -> str:
            share = size.remaining / size.total if size.total else 0
            return (
                f"{name:10} {share:>9.2%} {size.dense:>13,} {size.bytes:>13,} {size.bound:>13,.0f} "
                f"{size.ratio:>7.3f} {size.times_smaller:>7.1f}x"
            )

        error = f"largest error {self.max_abs_error:.2g}, {self.rounded_to_zero:,} rounded to zero"
        header = self.bytes - sum(size.bytes for size in self.parts.values())
        lines = [
            f"{self.path}: {self.quantization or 'float32'}, {self.bytes:,} bytes; {error}",
            f"{'':10} {'remaining':>9} {'float32':>13} {'file':>13} {'bound':>13} {'/ bound':>7} "
            f"{'smaller':>8}",
            *(row(name, size) for name, size in self.parts.items() if size.total),
            f"{'header':10} {'':>9} {'':>13} {header:>13,}",
            row("all", self.total),
        ]
        return "\n".join(lines)


@one_at_a_time
def export_compressed(
    model: Any, path: str | pathlib.Path, *, quantization: str | None = "int8"
) -> CompressedReport:
    """Writes all weights of a model into one small file, for storage and transfer.

    Each weight is stored sparsely or densely, whichever is smaller; the positions of non-zeros take
    within a few percent of their entropy. Zeros stay zeros. The file is read back and compared
    before it takes its place, so that an earlier file of this name is replaced by a whole one or
    not at all.

    Args:
      model: a built model without pruning wrappers.
      path: file to write.
      quantization: storage type of float32 matrices, convolutions and embeddings. `"int8"` has a
        scale for each output channel, in embeddings for each row, with errors of at most half a
        step, below which weights become zero; `"float16"`; or None for float32 without loss.
        Biases, LayerNorm, what preprocessing layers learned and weights that are not float32 are
        always stored as they are.

    Returns:
      A `CompressedReport`; print it.

    Raises:
      ImportError: zstandard is missing.
      OSError: the file cannot be written. Nothing is left of it.
      RuntimeError: the file differs when it is read back. Nothing is left of it.
      TypeError: `model` is not a Keras model, or the format does not have the type of a weight.
      ValueError: the model is still pruned or not built, `quantization` is not known, int8 or
        float16 cannot hold a weight that is not finite or too large, or a layer has a table that is
        not a vocabulary.
    """
    check_choice("quantization", quantization, QUANTIZATIONS)
    path = check_path(path, ".movprune")
    check_place(path)
    shell = shell_of(model)
    weights = shell.named_weights(model)
    encoded = encode_all(weights, quantization)
    data = container_of([(e.entry, e.payload) for e in encoded], shell.describe(model))
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        errors = _errors(path, temporary, weights)
    return CompressedReport(
        path=path,
        bytes=len(data),
        quantization=quantization,
        parts=part_sizes(weights, encoded),
        max_abs_error=max(error for error, _ in errors),
        rounded_to_zero=sum(rounded for _, rounded in errors),
    )


def load_compressed(path: str | pathlib.Path, model: Any = None) -> Any:
    """Loads a file that `export_compressed` wrote.

    The file may hold anything. Names, shapes and dtypes are compared with the model's before
    anything is decompressed, and memory is in proportion to them, or to the shapes that the file
    declares if there is no model. Weights change once all are decoded.

    The vocabulary that a lookup layer learned is a weight named `<layer>/vocabulary`: integers, or
    the UTF-8 bytes of a JSON list of strings.

    Args:
      path: the file.
      model: None; a built model of the same architecture; or the Hugging Face class of the model
        that was written, such as `TFBertForSequenceClassification`, to make a model of the same
        configuration.

    Returns:
      If `model` is None, a dict of NumPy arrays by name, in the model's order: the model's names
      for its weights without `:0`, with `#1`, `#2` ... after those that occurred before. Otherwise
      the model, with its weights assigned. Names may differ in the numbers that Keras gives to
      layers (`dense_3`), if their order is the same.

    Raises:
      ImportError: zstandard is missing.
      OSError: the file cannot be read.
      TypeError: `path` is not a path, or `model` is neither a Keras model nor the class of one.
      ValueError: the file is damaged, of another format or version; or names, shapes or dtypes are
        not the model's. None of its weights has changed then. Floats may be of another precision.
    """
    if not isinstance(path, str | os.PathLike):
        are_swapped = isinstance(model, str | os.PathLike)
        remedy = "; path and model are swapped" if are_swapped else ""
        raise TypeError(
            "Expected load_compressed(path, model) with the path of a file such as "
            f"'model.movprune' first, got {reprlib.repr(path)}{remedy}."
        )
    path = pathlib.Path(path)
    if model is None:
        with open_container(path) as container:
            return dict(container.arrays())
    shell = shell_of(model)
    shell.check_loadable(model)
    with open_container(path) as container:
        specs = _specs(container)
        if isinstance(model, type):
            model = shell.model_of(model, container.description, specs, path)
        weights = shell.matching_weights(model, specs, path)
        _check_vocabularies(container, weights)
        shell.assign_weights(model, weights, dict(container.arrays()), path)
    return model


def _specs(container: Container) -> dict[str, tf.TensorSpec]:
    """Shapes and dtypes of the weights by name, in the model's order."""
    return {
        entry.name: tf.TensorSpec(entry.shape, entry.dtype, entry.name)
        for entry, _ in container.entries
    }


def _check_vocabularies(container: Container, weights: Mapping[str, Any]) -> None:
    """Raises ValueError if a weight of any size that fits would be far larger than its bytes."""
    for entry, _ in container.entries:
        size = sum(entry.sizes)
        most = max(_MOST_TO_A_FILE, _MOST_TO_A_BYTE * size)
        if None in weights[entry.name].shape and entry.elements > most:
            raise ValueError(
                f"{container.path} is damaged, or was not written by export_compressed. Expected a "
                f"vocabulary in {entry.name!r}, got {entry.elements:,} elements in {size:,} bytes. "
                "Write or copy it again."
            )


def part_sizes(weights: list[NamedWeight], encoded: list[EncodedWeight]) -> dict[str, PartSize]:
    sizes = {}
    for part in PARTS:
        those = [(w.array, e) for w, e in zip(weights, encoded) if w.part == part]
        sizes[part] = PartSize(
            bytes=sum(len(e.payload) for _, e in those),
            bound=sum(e.bound for _, e in those),
            dense=sum(array.nbytes for array, _ in those),
            remaining=sum(e.remaining for _, e in those),
            total=sum(array.size for array, _ in those),
        )
    return sizes


def _errors(
    path: pathlib.Path, written: pathlib.Path, weights: list[NamedWeight]
) -> list[tuple[float, int]]:
    """The largest error of each weight in a file, and how many entries became zero."""
    try:
        with open_container(written) as container:
            pairs = zip(weights, container.entries, container.arrays(), strict=True)
            return [_compare(path, w, entry, found) for w, (entry, _), (_, found) in pairs]
    except ValueError as error:
        raise RuntimeError(f"{path} cannot be read back. The file was removed.") from error


def _compare(
    path: pathlib.Path, weight: NamedWeight, entry: Entry, found: np.ndarray
) -> tuple[float, int]:
    """The largest error of a weight that was read back, and how many entries became zero."""
    array = weight.array
    if entry.stored == entry.dtype:
        # Bytes would differ in the sign of zeros.
        is_same = (found == array) | ((found != found) & (array != array))
        if found.dtype == array.dtype and found.shape == array.shape and is_same.all():
            return 0.0, 0
        raise RuntimeError(f"{weight.name!r} read back for {path} differs. The file was removed.")
    if entry.axis is not None:
        allowed = scales_of(array, entry.axis) * np.float32(0.50001)  # the division rounds, too
        allowed += np.finfo(np.float32).tiny  # smaller weights may have no scale
    else:
        allowed = np.abs(array) * np.float32(2**-11) + np.float32(2**-25)
    error = np.abs(found - array)
    if not (error <= allowed).all() or np.any(found[array == 0]):
        raise RuntimeError(
            f"{weight.name!r} read back for {path} is off by up to {error.max():.3g}, more than "
            f"rounding to {entry.stored} explains, or has lost zeros. The file was removed."
        )
    return float(error.max(initial=0)), int(np.sum((found == 0) & (array != 0)))
