"""The weights in a folder of Hugging Face, in whatever files they are."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from tf_movprune.core.json_files import read_object
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.pytorch.bin_files import read_bin

SAFETENSORS = "model.safetensors"
TF_WEIGHTS = "tf_model.h5"
_BIN = "pytorch_model.bin"
_INDEX = ".index.json"
_POINTER = b"version https://git-lfs"
PYTORCH_FILES = (SAFETENSORS, SAFETENSORS + _INDEX, _BIN, _BIN + _INDEX)
"""Names of files with PyTorch's weights, in the order in which they are looked for."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"),
)
"""Names of files that tokenizers are made of."""

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": ml_dtypes.bfloat16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of PyTorch's weights in a folder, the one to read first."""
    return [folder / name for name in PYTORCH_FILES if (folder / name).is_file()]


def read_weights(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Reads which tensors a file, or those that an index names, hold.

    Those of a TF class get the names, and the layout, of PyTorch.

    Raises:
      ImportError: it is a safetensors file, and the package safetensors is missing; or a file of a
        TF class, and transformers is.
      ValueError: the file is damaged, of another kind, or the index does not fit its files.
    """
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull in "
                f"{path.parent}, or download it."
            )
    if path.name == TF_WEIGHTS:
        return _read_tf_weights(path)
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_bin(path)


def _read_shards(index: pathlib.Path) -> dict[str, StoredTensor]:
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise ValueError(f"{index} has no weight_map from names of tensors to files.")
    found: dict[str, StoredTensor] = {}
    there = {path.name for path in index.parent.iterdir() if path.is_file()}
    for file in sorted(set(places.values())):
        path = index.parent / file
        is_name = pathlib.PurePath(file).name == file and not file.endswith(_INDEX)
        if not (is_name and file in there):
            raise ValueError(f"{index} names the file {file!r}, which is not beside it.")
        tensors = read_weights(path)
        expected = {name for name, place in places.items() if place == file}
        if set(tensors) != expected:
            differing = sorted(set(tensors) ^ expected)
            raise ValueError(f"{index} and {file} do not agree on where {differing[0]!r} is.")
        found |= tensors
    return found


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file.

    Raises:
      ValueError: it is no JSON object.
    """
    return read_object(path) if path.is_file() else {}


# ---- safetensors


def _opened(path: pathlib.Path) -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            f"{path} needs the package safetensors: pip install safetensors."
        ) from error
    try:
        return safetensors.safe_open(path, "np")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or damaged: {error}. Download it again."
        ) from error


def metadata(path: pathlib.Path) -> Mapping[str, str]:
    """What a safetensors file says of itself."""
    with _opened(path) as file:
        return file.metadata() or {}


def _read_safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    kind = metadata(path).get("format", "pt")
    if kind != "pt":
        raise ValueError(
            f"{path} holds weights of format {kind!r}, not PyTorch's. Load it with from_pretrained "
            "of a TF class, or tf_movprune.load_compacted if the model was compacted."
        )
    found = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise ValueError(f"{path} has {name!r} of the unknown type {part.get_dtype()}.")
            dtype = np.dtype(_DTYPES[part.get_dtype()])
            read = functools.partial(_read_tensor, path, name)
            found[name] = StoredTensor(tuple(part.get_shape()), dtype, read)
    return found


def _read_tensor(path: pathlib.Path, name: str) -> np.ndarray:
    with _opened(path) as file:
        return file.get_tensor(name)


# ---- weights of TF classes


def _read_tf_weights(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Reads the weights of a TF class under the names, and in the layout, of PyTorch.

    Raises:
      ImportError: the package transformers, which knows the names, is missing.
      ValueError: it is no file of weights.
    """
    from tf_movprune.keras2.hugging_face import pytorch_name

    found = {}
    try:
        with h5py.File(path) as file:
            for layer in map(_text, file.attrs["layer_names"]):
                group = file[layer]
                for name in map(_text, group.attrs["weight_names"]):
                    data = group[name]
                    if data.external or data.is_virtual or data.dtype.kind not in "fiu":
                        raise ValueError(f"{name!r} is no array of numbers in the file")
                    pytorch, is_transposed = pytorch_name(name, data.shape)
                    shape = data.shape[::-1] if is_transposed else data.shape
                    place = f"{group.name}/{name}"
                    read = functools.partial(_read_h5, path, place, is_transposed)
                    found[pytorch] = StoredTensor(tuple(shape), data.dtype, read)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no file of weights of a TF class: {error}.") from error
    return found


def _text(name: str | bytes) -> str:
    """A name in a file of Keras, which older releases wrote as bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)


def _read_h5(path: pathlib.Path, place: str, is_transposed: bool) -> np.ndarray:
    with h5py.File(path) as file:
        values = file[place][()]
    return values.T if is_transposed else values
