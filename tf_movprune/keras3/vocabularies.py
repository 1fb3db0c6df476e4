"""Vocabularies that lookup layers of Keras 3 learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from tf_movprune.core.vocabulary import Vocabulary
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer


class _LearnedVocabulary(Vocabulary):
    """The vocabulary of a lookup layer."""

    def tokens(self) -> np.ndarray:
        return np.asarray(self._layer.get_vocabulary(include_special_tokens=False))

    def assign(self, tokens: Sequence[str] | np.ndarray) -> None:
        if len(tokens):  # a table cannot be made of none
            self._layer.set_vocabulary(tokens)


def learned_vocabularies(layers: Iterable[Layer]) -> list[Vocabulary]:
    """The vocabularies that are not in the configurations of their layers, each once.

    Raises:
      ValueError: a layer learned something that is neither a vocabulary nor a variable.
    """
    found: dict[int, Vocabulary] = {}
    for layer in layers:
        lookup = compat.lookup_layer(layer)
        has_bins = isinstance(layer, keras.layers.Discretization) and layer.num_bins is not None
        is_weighted = lookup is not None and lookup.output_mode == "tf_idf"
        if has_bins or (is_weighted and lookup.input_vocabulary is None):
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) learned numbers that are no "
                "variables, and cannot be exported. Give them to the layer when it is made, or "
                "export the model without it."
            )
        if lookup is not None and lookup.input_vocabulary is None:
            found.setdefault(id(lookup), _LearnedVocabulary(f"{layer.name}/vocabulary", lookup))
    return list(found.values())


def recompute_constants(layers: Iterable[Layer]) -> None:
    """Lets normalization compute anew what it keeps of its weights outside of them.

    Functions that were compiled with what layers knew before are forgotten.
    """
    layers = list(layers)
    for layer in layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    if any(compat.lookup_layer(x) or isinstance(x, keras.layers.Normalization) for x in layers):
        for layer in layers:
            compat.forget_functions(layer)
