"""The layers of a Keras 3 model whose hidden states a student may learn."""

from __future__ import annotations

from tf_movprune.core.hidden_layers import Layers
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.keras_hub import blocks
from tf_movprune.keras3.layer_tree import walk


def layers_with_states(model: Layer) -> Layers:
    """The layers of a model by path, and the blocks of KerasHub's backbones among them."""
    layers = walk(model)
    return Layers(model.name, layers, list(blocks(model, layers)))
