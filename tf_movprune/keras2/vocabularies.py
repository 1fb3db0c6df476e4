"""Vocabularies that lookup layers of tf_keras learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune.core.vocabulary import Vocabulary
from tf_movprune.keras2.compat import forget_functions, keras, lookup_layer_of
from tf_movprune.keras2.layer_tree import LayerTree

PreprocessingLayer = keras.layers.experimental.preprocessing.PreprocessingLayer


class _LearnedVocabulary(Vocabulary):
    """The vocabulary of a lookup layer.

    Args:
      name: name of the layer, and `/vocabulary`.
      handle: what stands for the vocabulary among the weights of the layer.
    """

    def __init__(self, name: str, handle: Any):
        super().__init__(name, lookup_layer_of(handle))
        self._handle = handle

    def tokens(self) -> np.ndarray:
        return self._handle.get_tensors()[0].numpy()

    def assign(self, tokens: Sequence[str] | np.ndarray) -> None:
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
    return _LearnedVocabulary(f"{outermost.name}/vocabulary", handle)


def recompute_constants(tree: LayerTree) -> None:
    """Lets preprocessing layers compute anew what they keep of their weights outside of them."""
    layers = [layer for layer in tree.layers() if isinstance(layer, PreprocessingLayer)]
    for layer in layers:
        layer.finalize_state()
    if layers:
        for layer in tree.layers():
            forget_functions(layer)
