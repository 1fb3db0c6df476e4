"""The functions of the shell for tf_keras that exports and reports call."""

from __future__ import annotations

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compact import compacted
from tf_movprune.keras2.described_model import model_of
from tf_movprune.keras2.inference import computing_in_float32, inference_of, write_saved_model
from tf_movprune.keras2.named_weights import (
    assign_weights,
    check_loadable,
    matching_weights,
    named_weights,
)
from tf_movprune.keras2.remaining_weights import remaining_weights
from tf_movprune.keras2.saving import check_stripped

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

describe = hugging_face.describe
