"""Vocabularies that lookup layers learned, as vectors among the weights of a model."""

from __future__ import annotations

import abc
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class Vocabulary(abc.ABC):
    """The vocabulary of a StringLookup, IntegerLookup or TextVectorization, without special tokens.

    Integers are a vector of their dtype. Strings are a uint8 vector: the UTF-8 bytes of a JSON
    list.

    Args:
      name: name of the layer, and `/vocabulary`.
      layer: the lookup layer.
    """

    def __init__(self, name: str, layer: Any):
        self.name = name
        self._layer = layer
        self._holds_strings = layer.vocabulary_dtype == "string"
        self.dtype = tf.as_dtype("uint8" if self._holds_strings else layer.vocabulary_dtype)
        self.shape = tf.TensorShape([None])

    @abc.abstractmethod
    def tokens(self) -> np.ndarray:
        """The integers, or the strings as bytes or str."""

    @abc.abstractmethod
    def assign(self, tokens: Sequence[str] | np.ndarray) -> None:
        """Gives the layer what `checked` returned."""

    def numpy(self) -> np.ndarray:
        tokens = self.tokens()
        if not self._holds_strings:
            return np.asarray(tokens, self.dtype.as_numpy_dtype)
        strings = [token.decode() if isinstance(token, bytes) else token for token in tokens]
        return np.frombuffer(json.dumps(strings, ensure_ascii=False).encode(), np.uint8)

    def checked(self, array: np.ndarray) -> Sequence[str] | np.ndarray:
        """The tokens of a vector that `numpy` returned.

        Raises:
          ValueError: the layer cannot have them.
        """
        tokens: Any = array
        try:
            if self._holds_strings:
                tokens = json.loads(array.tobytes())
                if not (isinstance(tokens, list) and all(isinstance(t, str) for t in tokens)):
                    raise ValueError("it is not a list of strings")
            if len(tokens):
                copy = type(self._layer).from_config(self._layer.get_config())
                is_weighted = self._layer.output_mode == "tf_idf"
                copy.set_vocabulary(tokens, np.ones(len(tokens)) if is_weighted else None)
            elif size := len(self.tokens()):
                raise ValueError(f"it has no words, and the layer has {size}")
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            raise ValueError(
                f"{self.name!r} cannot be the vocabulary of its layer: {error}"
            ) from error
        return tokens
