"""The callback that records a training of tf_keras models for reports."""

from __future__ import annotations

from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.run_recorder import RunRecorderHooks
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer_tree import built_layers, named_kernels, pruned_layers


class RunRecorder(RunRecorderHooks, keras.callbacks.Callback):
    """Records trainings of tf_keras models; see `tf_movprune.RunRecorder`."""

    _supports_tf_logs = True

    def _find_layers(self) -> NamedLayers:
        return named_kernels(built_layers(self.model)) if pruned_layers(self.model) else {}
