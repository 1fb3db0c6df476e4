"""The callback that records a training of Keras 3 models for reports."""

from __future__ import annotations

import keras

from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.run_recorder import RunRecorderHooks
from tf_movprune.keras3.layer_tree import built_layers, named_kernels, pruned_layers


class RunRecorder(RunRecorderHooks, keras.callbacks.Callback):
    """Records trainings of Keras 3 models; see `tf_movprune.RunRecorder`."""

    def _find_layers(self) -> NamedLayers:
        return named_kernels(built_layers(self.model)) if pruned_layers(self.model) else {}
