"""The layers of a tf_keras model whose hidden states a student may learn."""

from __future__ import annotations

from tf_movprune.core.hidden_layers import Layers
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.hugging_face import is_encoder_layer
from tf_movprune.keras2.layer_tree import LayerTree, by_path, is_wrapper


def layers_with_states(model: Layer) -> Layers:
    """The layers of a model by path, and the encoder layers of Hugging Face's among them."""
    layers = by_path(LayerTree(model).walk(is_wrapper))
    return Layers(model.name, layers, [path for path in layers if is_encoder_layer(path)])
