"""The functions of the shell for Keras 3 that PyTorch checkpoints need."""

from tf_movprune.keras3.pytorch_configs import describe, source_of, write_tokenizer
from tf_movprune.keras3.pytorch_models import check_model_class, model_of
from tf_movprune.keras3.pytorch_weights import (
    adapted,
    added_weights,
    kernel_paths,
    masked_kernels,
    ported_weights,
    unread_weights,
)

__all__ = [
    "adapted",
    "added_weights",
    "check_model_class",
    "describe",
    "kernel_paths",
    "masked_kernels",
    "model_of",
    "ported_weights",
    "source_of",
    "unread_weights",
    "write_tokenizer",
]
