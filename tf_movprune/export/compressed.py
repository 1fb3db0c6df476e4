"""One small file for the weights of a stripped model: sparse, quantized and entropy-coded.

docs/compressed_format.md has the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.export.coding import (
    EncodedWeight,
    NamedWeight,
    check_values,
    decode,
    encode,
    libraries,
    scales_of,
)
from tf_movprune.export.files import check_place, replacing
from tf_movprune.keras2.checks import check_stripped
from tf_movprune.keras2.compact import resized
from tf_movprune.keras2.compat import check_keras_object, keras
from tf_movprune.keras2.targets import ENCODER_LAYER, default_layers, is_hugging_face
from tf_movprune.keras2.tree import walk

FORMAT = "tf_movprune.compressed"
VERSION = 1
PARTS = ("embeddings", "encoder", "other")

_NO_CHECKSUM = "0" * 64


@dataclasses.dataclass(frozen=True)
class PartSize:
    """Bytes of one part of a model, in the file and otherwise.

    `bound` is n·H(p)/8 + nnz·(bytes per value), summed over the weights: zeros that are anywhere
    with the same probability, and values as they are. The file can be below it where zeros lie
    together or values compress. `dense` is what the weights take in memory.
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
    """What `export_compressed` wrote, and how far it is from the model's weights.

    `parts` has the sizes of `"embeddings"`, `"encoder"` (the layers that are pruned by default, or
    the whole encoder layers of Hugging Face models) and `"other"`. `max_abs_error` is the largest
    difference from a float32 weight, read back from the file; `rounded_to_zero` counts weights that
    were not zero and are now.
    """

    path: pathlib.Path
    bytes: int
    values: str
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
            f"{self.path}: {self.values}, {self.bytes:,} bytes; {error}",
            f"{'':10} {'remaining':>9} {'float32':>13} {'file':>13} {'bound':>13} {'/ bound':>7} "
            f"{'smaller':>8}",
            *(row(name, size) for name, size in self.parts.items()),
            f"{'header':10} {'':>9} {'':>13} {header:>13,}",
            row("all", self.total),
        ]
        return "\n".join(lines)


def export_compressed(
    model: keras.Model, path: str | pathlib.Path, *, values: str = "int8"
) -> CompressedReport:
    """Writes all weights of a model into one small file, for storage and transfer.

    Each weight is stored sparsely or densely, whichever is smaller; the positions of non-zeros take
    within a few percent of their entropy. Zeros stay zeros. The file is read back and compared
    before it takes its place, so that an earlier file of this name is replaced by a whole one or
    not at all.

    Args:
      model: a built model without pruning wrappers.
      path: file to write.
      values: what float32 matrices, convolutions and embeddings are stored as. `"int8"`: a scale
        for each output channel, in embeddings for each row, with errors of at most half a step,
        below which weights become zero; `"float16"`; or `"float32"`, without loss. Biases,
        LayerNorm and weights that are not float32 are stored as they are in each case.

    Returns:
      A `CompressedReport`; print it.

    Raises:
      ImportError: zstandard or safetensors is missing.
      OSError: the file cannot be written. Nothing is left of it.
      RuntimeError: what was read back differs. Nothing is left of it.
      TypeError: not a Keras model, or a weight of a type that the format does not have.
      ValueError: the model is still pruned or not built, `values` is not known, or int8 or float16
        cannot hold a weight that is not finite or too large.
    """
    check_values(values)
    path = pathlib.Path(path)
    check_place(path)
    weights = named_weights(model)
    encoded = [encode(weight, values) for weight in weights]
    data = _file_of(encoded, _model_info(model))
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        _, arrays = _read(temporary)
        errors = [_compare(path, w, e.row, arrays[w.name]) for w, e in zip(weights, encoded)]
    return CompressedReport(
        path=path,
        bytes=len(data),
        values=values,
        parts=part_sizes(weights, encoded),
        max_abs_error=max(error for error, _ in errors),
        rounded_to_zero=sum(rounded for _, rounded in errors),
    )


def load_compressed(path: str | pathlib.Path, model: Any = None) -> Any:
    """Reads what `export_compressed` wrote.

    Args:
      path: the file.
      model: None; a built model of the same architecture; or the Hugging Face class of the model
        that was written, such as `TFBertForSequenceClassification`, to make one as it was
        configured.

    Returns:
      Without a model a dict of NumPy arrays by name, in the model's order: the model's names for
      its weights without `:0`, with `#1`, `#2` ... after those that occurred before. With a model
      that model, its weights assigned. Names may differ in the numbers that Keras gives to layers
      (`dense_3`), if their order is the same.

    Raises:
      ImportError: zstandard or safetensors is missing.
      OSError: the file cannot be read.
      TypeError: `model` is neither a Keras model nor the class of one.
      ValueError: the file is damaged, of another format or version; or names or shapes are not the
        model's, in which case none of its weights has changed.
    """
    info, arrays = _read(pathlib.Path(path))
    if model is None:
        return arrays
    if isinstance(model, type):
        model = _new_model(model, info, path)
    _assign(model, arrays, path)
    return model


def named_weights(model: keras.Model) -> list[NamedWeight]:
    """The weights of a stripped model, in its order.

    Raises:
      TypeError: not a Keras model.
      ValueError: it has pruning wrappers, or no weights.
    """
    check_stripped(model)
    if not (model.built and model.weights):
        raise ValueError(
            f"{model.name!r} has no weights. Call the model once on example inputs before "
            "exporting."
        )
    parts: dict[int, str] = {}
    pruned = {id(layer) for layer in default_layers(model).values()}
    for path, layer in walk(model):
        part = None
        if ENCODER_LAYER.search(f"{path}.") or id(layer) in pruned:
            part = "encoder"
        elif isinstance(layer, keras.layers.Embedding) or "embeddings" in path.split("."):
            part = "embeddings"
        if part:
            for weight in layer.weights:
                parts.setdefault(id(weight), part)
    names = _unique_names(model.weights)
    return [
        NamedWeight(name, parts.get(id(weight), "other"), weight.numpy())
        for name, weight in zip(names, model.weights)
    ]


def _unique_names(weights: Iterable[tf.Variable]) -> list[str]:
    names: dict[str, None] = {}
    for weight in weights:
        name = base = weight.name.removesuffix(":0")
        count = 0
        while name in names:
            count += 1
            name = f"{base}#{count}"
        names[name] = None
    return list(names)


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


def _file_of(encoded: list[EncodedWeight], info: dict[str, Any] | None) -> bytes:
    _, safetensors = libraries()
    table = {
        "checksum": _NO_CHECKSUM,
        "format": FORMAT,
        "version": VERSION,
        "model": info,
        "tensors": [weight.row for weight in encoded],
    }
    data = safetensors.numpy.save(
        {str(i): np.frombuffer(weight.payload, np.uint8) for i, weight in enumerate(encoded)},
        {FORMAT: json.dumps(table, separators=(",", ":"))},
    )
    return data.replace(_NO_CHECKSUM.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def _read(path: pathlib.Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """What was stored about the model, and arrays by name."""
    _, safetensors = libraries()
    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        table = json.loads(header["__metadata__"][FORMAT])
        checksum = table["checksum"].encode()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no checksum of export_compressed: it is another file, or damaged. Write "
            "or copy it again."
        ) from error
    found = hashlib.sha256(data.replace(checksum, _NO_CHECKSUM.encode(), 1)).hexdigest()
    if found.encode() != checksum:
        raise ValueError(
            f"{path} is damaged: its checksum is {found[:12]}..., and {table['checksum'][:12]}... "
            "was expected. Write or copy it again."
        )
    if table["version"] != VERSION:
        raise ValueError(
            f"{path} is of version {table['version']} of the format, and this is a reader of "
            f"version {VERSION}. Install the tf_movprune that wrote it, or a later one."
        )
    payloads = {name: entry["data"] for name, entry in safetensors.deserialize(data)}
    rows = table["tensors"]
    return table["model"], {
        row["name"]: decode(row, payloads[str(i)]) for i, row in enumerate(rows)
    }


def _compare(
    path: pathlib.Path, weight: NamedWeight, row: dict[str, Any], found: np.ndarray
) -> tuple[float, int]:
    """The largest error of a weight that was read back, and how many of it became zero."""
    array = weight.array
    if row["stored"] == row["dtype"]:
        # Bytes would differ in the sign of zeros.
        is_same = (found == array) | ((found != found) & (array != array))
        if found.dtype == array.dtype and found.shape == array.shape and is_same.all():
            return 0.0, 0
        raise RuntimeError(f"{weight.name!r} read back for {path} differs. The file was removed.")
    if "axis" in row:
        allowed = scales_of(array, row["axis"]) * np.float32(0.50001)  # the division rounds, too
    else:
        allowed = np.abs(array) * np.float32(2**-11) + np.float32(2**-25)
    error = np.abs(found - array)
    if not (error <= allowed).all() or np.any(found[array == 0]):
        raise RuntimeError(
            f"{weight.name!r} read back for {path} is off by up to {error.max():.3g}, more than "
            f"rounding to {row['stored']} explains, or has lost zeros. The file was removed."
        )
    return float(error.max(initial=0)), int(np.sum((found == 0) & (array != 0)))


def _model_info(model: keras.Model) -> dict[str, Any] | None:
    """The class and configuration of a Hugging Face model, without the path it was loaded from."""
    if not is_hugging_face(model):
        return None
    config = json.loads(model.config.to_json_string(use_diff=True))
    config.pop("_name_or_path", None)
    return {"class": type(model).__name__, "config": config}


def _new_model(cls: Any, info: dict[str, Any] | None, path: str | pathlib.Path) -> keras.Model:
    if not (issubclass(cls, keras.Model) and getattr(cls, "config_class", None)):
        raise TypeError(
            f"Expected a built model, or the Hugging Face class of one, got the class "
            f"{cls.__name__}."
        )
    if info is None or info["class"] != cls.__name__:
        held = info["class"] if info else "a model that is not of Hugging Face's classes"
        raise ValueError(
            f"{path} holds {held}, got the class {cls.__name__}. Pass the class of the model that "
            "was written, or a built model."
        )
    return resized(cls(cls.config_class.from_dict(info["config"])))


def _assign(model: keras.Model, arrays: dict[str, np.ndarray], path: str | pathlib.Path) -> None:
    check_keras_object(model, keras.Model, "a built tf_keras model")
    check_stripped(model)
    variables = dict(zip(_unique_names(model.weights), model.weights))
    if set(arrays) != set(variables):
        variables = dict(zip(_renumbered(variables), variables.values()))
        arrays = dict(zip(_renumbered(arrays), arrays.values()))
    missing = [name for name in variables if name not in arrays]
    extra = [name for name in arrays if name not in variables]
    if missing or extra:
        raise ValueError(
            f"The weights in {path} are not those of {model.name!r}. Missing in the file: "
            f"{_listed(missing)}. Missing in the model: {_listed(extra)}. (Numbers of layers are "
            "counted anew here.) Build the model that was written, and call it once."
        )
    pairs = [(variables[name], array) for name, array in arrays.items()]
    wrong = [
        f"{variable.name} {tuple(variable.shape)}, in the file {array.shape}"
        for variable, array in pairs
        if tuple(variable.shape) != array.shape
    ]
    if wrong:
        raise ValueError(f"Shapes in {path} are not those of {model.name!r}: {_listed(wrong)}.")
    for variable, array in pairs:
        variable.assign(tf.cast(array, variable.dtype))


def _renumbered(names: Iterable[str]) -> list[str]:
    """Names with layers numbered as in a new process, in the order in which they occur."""
    ranks: dict[tuple[str, str], dict[str, int]] = {}

    def rank(parent: str, component: str) -> str:
        base = re.sub(r"_\d+$", "", component)
        among = ranks.setdefault((parent, base), {})
        number = among.setdefault(component, len(among))
        return f"{base}_{number}" if number else base

    def renumbered(name: str) -> str:
        components = name.split("/")
        parents = ["/".join(components[:i]) for i in range(len(components))]
        return "/".join(map(rank, parents, components))

    return [renumbered(name) for name in names]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more
