"""Callbacks of Keras 3 that choose among epochs, held back until the model is sparse."""

from __future__ import annotations

import keras

from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.once_sparse import OnceSparseHooks
from tf_movprune.keras3.layer_tree import built_layers, kernels_of


class OnceSparse(OnceSparseHooks, keras.callbacks.Callback):
    """Holds another callback of Keras 3 back; see `tf_movprune.OnceSparse`."""

    def _find_kernels(self) -> list[MaskedKernel]:
        return kernels_of(built_layers(self.model).values())
