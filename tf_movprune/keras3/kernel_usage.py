"""Watching whether training of Keras 3 models uses masked kernels, and nothing in their place."""

from __future__ import annotations

from typing import Any

from tf_movprune.core import kernel_usage
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer


class KernelUsage(kernel_usage.KernelUsage):
    """The usage of the masked kernels of a pruned layer."""

    regularizers = "keras.src.regularizers.regularizers"
    operations = "keras.src.ops.", "keras.src.backend.", "keras.src.utils."

    def is_saving(self) -> bool:
        return False  # exports trace pruned models as training does

    def calling_layer(self) -> Layer | None:
        return compat.calling_layer()

    def training_mode(self) -> Any:
        return compat.training_modes()[0]
