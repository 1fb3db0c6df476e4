"""The callback that writes the progress of pruning of Keras 3 models to TensorBoard."""

from __future__ import annotations

import keras

from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.summaries import SummaryHooks
from tf_movprune.keras3.layer_tree import built_layers, named_kernels


class PruningSummaries(SummaryHooks, keras.callbacks.Callback):
    """Writes summaries of Keras 3 models; see `tf_movprune.PruningSummaries`."""

    def _find_layers(self) -> NamedLayers:
        return named_kernels(built_layers(self.model))
