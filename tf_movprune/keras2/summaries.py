"""The callback that writes the progress of pruning to TensorBoard."""

from __future__ import annotations

from tf_movprune.core.summaries import NamedKernels, SummaryHooks, named_kernels
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.kernel_attributes import short_names
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import built_layers


class PruningSummaries(SummaryHooks, keras.callbacks.Callback):
    """Writes summaries of tf_keras models; see `tf_movprune.PruningSummaries`."""

    _supports_tf_logs = True

    def _find_kernels(self) -> dict[str, NamedKernels]:
        return {path: _named_kernels(layer) for path, layer in built_layers(self.model).items()}


def _named_kernels(layer: PruneLowMovement) -> NamedKernels:
    names = [name for name, _ in short_names(layer.get_prunable_weights())]
    return named_kernels(layer.kernels, names)
