"""Callbacks of tf_keras that choose among epochs, held back until the model is sparse."""

from __future__ import annotations

from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.once_sparse import OnceSparseHooks
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer_tree import built_layers, kernels_of


class OnceSparse(OnceSparseHooks, keras.callbacks.Callback):
    """Holds another callback of tf_keras back; see `tf_movprune.OnceSparse`."""

    def _find_kernels(self) -> list[MaskedKernel]:
        return kernels_of(built_layers(self.model).values())
