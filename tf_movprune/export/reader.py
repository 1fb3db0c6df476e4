"""Weights of compressed files as NumPy arrays, in processes without TensorFlow and Keras.

    from tf_movprune.export import reader

    with reader.read("model.movprune") as weights:
        for name, about in weights.entries.items():
            print(name, about.shape, about.dtype)
        kernel = weights["classifier/kernel"]

It needs NumPy and zstandard, and the package itself lazy-loader. Files are checked and decoded by
the code of `load_compressed`, which gives the same arrays.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import reprlib
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_movprune.export.compressed_files.container import Container, open_container
from tf_movprune.export.compressed_files.table import Entry, parse_json

__all__ = ["CompressedWeights", "Entry", "read"]

_VOCABULARY = "/vocabulary"


class CompressedWeights(Mapping[str, np.ndarray]):
    """The weights of an open file by name, in the model's order, as `read` returns them.

    Each look-up decodes the one weight, and gives a new array; `dict(weights)` decodes all. Threads
    may share it. It is a context manager, which closes the file.

    Raises:
      ImportError: the weight is bfloat16, and ml_dtypes is missing.
      KeyError: no weight has the name.
      ValueError: the weight is not what the table of the file says, or the file is closed.
    """

    def __init__(self, container: Container, closing: contextlib.ExitStack):
        self._container = container
        self._closing = closing
        self._reading = threading.Lock()
        self._places = {entry.name: (entry, start) for entry, start in container.entries}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Name, `shape`, `dtype`, `stored` and compressed `sizes` of each weight; decodes none."""
        return types.MappingProxyType({name: entry for name, (entry, _) in self._places.items()})

    @property
    def model(self) -> dict[str, Any] | None:
        """The `class` and `config` of a Hugging Face model; None for other models."""
        return self._container.description

    @property
    def vocabularies(self) -> list[str]:
        """Names of the lookup layers whose vocabularies the file holds."""
        return [name.removesuffix(_VOCABULARY) for name in self if name.endswith(_VOCABULARY)]

    def vocabulary(self, layer: str) -> list[str] | list[int]:
        """The tokens that a lookup layer learned, without special ones.

        Raises:
          KeyError: no layer of this name has a vocabulary in the file.
          ValueError: the weight of this name holds no vocabulary.
        """
        array = self[layer + _VOCABULARY]
        if array.dtype != np.uint8:
            return array.tolist()
        try:
            tokens = parse_json(array.tobytes().decode())
            if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
                raise ValueError(f"Expected strings, got {reprlib.repr(tokens)}.")
        except ValueError as error:
            raise ValueError(
                f"Expected the vocabulary of {layer!r} as a JSON list of strings: {error}"
            ) from error
        return tokens

    def __getitem__(self, name: str) -> np.ndarray:
        entry, start = self._places[name]
        with self._reading:
            if self._container.file.closed:
                raise ValueError(
                    f"{self._container.path} is closed. Take weights out of it before that, or "
                    "read it again."
                )
            return self._container.array(entry, start)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<{len(self)} weights in {str(self._container.path)!r}>"

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> CompressedWeights:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> CompressedWeights:
    """Opens a file that `export_compressed` wrote, and checks all but what its weights decode to.

    The file may hold anything. Memory is in proportion to the shapes that it declares: look at
    `entries` before weights of somebody else's file are decoded.

    Args:
      path: the file.

    Returns:
      A mapping from names to NumPy arrays, which decodes each when it is asked for.

    Raises:
      ImportError: zstandard is missing.
      OSError: the file cannot be read.
      ValueError: the file is damaged, or of another format or version.
    """
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(open_container(pathlib.Path(path)))
        return CompressedWeights(container, stack.pop_all())
