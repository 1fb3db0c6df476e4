"""Watching whether training of tf_keras models uses masked kernels, and nothing in their place."""

from __future__ import annotations

from typing import Any

from tf_movprune.core import kernel_usage
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer


class KernelUsage(kernel_usage.KernelUsage):
    """The usage of the masked kernels of a wrapper."""

    regularizers = "tf_keras.src.regularizers"

    def is_saving(self) -> bool:
        return compat.is_saving()

    def calling_layer(self) -> Layer | None:
        return compat.calling_layer()

    def training_mode(self) -> Any:
        return compat.training_mode()
