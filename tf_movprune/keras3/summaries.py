"""The callback that writes the progress of pruning of Keras 3 models to TensorBoard."""

from __future__ import annotations

import keras

from tf_movprune.core.summaries import NamedKernels, SummaryHooks, named_kernels
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import kernel_places
from tf_movprune.keras3.layer_tree import built_layers
from tf_movprune.keras3.pruning_state import state_of


class PruningSummaries(SummaryHooks, keras.callbacks.Callback):
    """Writes summaries of Keras 3 models; see `tf_movprune.PruningSummaries`."""

    def _find_kernels(self) -> dict[str, NamedKernels]:
        return {path: _named_kernels(layer) for path, layer in built_layers(self.model).items()}


def _named_kernels(layer: Layer) -> NamedKernels:
    names = [place.short_name for place in kernel_places(layer)]
    return named_kernels(state_of(layer).kernels, names)
