"""The callback that writes the progress of pruning to TensorBoard."""

from __future__ import annotations

from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.summaries import SummaryHooks
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer_tree import built_layers, named_kernels


class PruningSummaries(SummaryHooks, keras.callbacks.Callback):
    """Writes summaries of tf_keras models; see `tf_movprune.PruningSummaries`."""

    _supports_tf_logs = True

    def _find_layers(self) -> NamedLayers:
        return named_kernels(built_layers(self.model))
