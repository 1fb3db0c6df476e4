"""Vocabularies that lookup layers learned, as vectors among the weights of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.keras2.compat import forget_functions, keras, lookup_layer_of
from tf_movprune.keras2.layer_tree import LayerTree

PreprocessingLayer = keras.layers.experimental.preprocessing.PreprocessingLayer


class Vocabulary:
    """The vocabulary of a StringLookup, IntegerLookup or TextVectorization, without special tokens.

    Integers are a vector of their dtype. Strings are a uint8 vector: the UTF-8 bytes of a JSON
    list.

    Args:
      name: name of the layer, and `/vocabulary`.
      handle: what stands for the vocabulary among the weights of the layer.
    """

    def __init__(self, name: str, handle: Any):
        layer: Any = lookup_layer_of(handle)
        self.name = name
        self._handle = handle
        self._layer = layer
        self._holds_strings = layer.vocabulary_dtype == "string"
        self.dtype = tf.as_dtype("uint8" if self._holds_strings else layer.vocabulary_dtype)
        self.shape = tf.TensorShape([None])

    def numpy(self) -> np.ndarray:
        (tokens,) = self._handle.get_tensors()
        if not self._holds_strings:
            return tokens.numpy()
        strings = [token.decode() for token in tokens.numpy()]
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
            elif size := len(self._handle.get_tensors()[0]):
                raise ValueError(f"it has no words, and the layer has {size}")
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            raise ValueError(
                f"{self.name!r} cannot be the vocabulary of its layer: {error}"
            ) from error
        return tokens

    def assign(self, tokens: Sequence[str] | np.ndarray) -> None:
        """Gives the layer what `checked` returned."""
        if len(tokens):  # a table cannot be made of none
            self._handle.set_weights([tokens])


def vocabulary_of(tree: LayerTree, handle: Any) -> Vocabulary:
    """The vocabulary that a weight which is not a variable stands for.

    Raises:
      ValueError: it stands for something else.
    """
    holders = [layer for layer in tree.layers() if any(handle is w for w in layer.weights)]
    if lookup_layer_of(handle) is None:
        raise ValueError(
            f"The layer {holders[-1].name!r} has a weight that is not a variable, but a "
            f"{type(handle).__name__}, which cannot be exported. Keep it in a tf.Variable, or "
            "export the model without this layer."
        )
    outermost = next((x for x in holders if isinstance(x, PreprocessingLayer)), holders[-1])
    return Vocabulary(f"{outermost.name}/vocabulary", handle)


def recompute_constants(tree: LayerTree) -> None:
    """Lets preprocessing layers compute anew what they keep of their weights outside of them."""
    layers = [layer for layer in tree.layers() if isinstance(layer, PreprocessingLayer)]
    for layer in layers:
        layer.finalize_state()
    if layers:
        for layer in tree.layers():
            forget_functions(layer)
