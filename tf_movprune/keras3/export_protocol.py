"""The functions of the shell for Keras 3 that exports and reports call."""

from tf_movprune.keras3.compact import compacted
from tf_movprune.keras3.described_model import describe, model_of
from tf_movprune.keras3.inference import (
    computing_in_float32,
    inference_of,
    write_saved_model,
)
from tf_movprune.keras3.named_weights import (
    assign_weights,
    check_loadable,
    matching_weights,
    named_weights,
)
from tf_movprune.keras3.remaining_weights import remaining_weights
from tf_movprune.keras3.saving import check_stripped

__all__ = [
    "assign_weights",
    "check_loadable",
    "check_stripped",
    "compacted",
    "computing_in_float32",
    "describe",
    "inference_of",
    "matching_weights",
    "model_of",
    "named_weights",
    "remaining_weights",
    "write_saved_model",
]
