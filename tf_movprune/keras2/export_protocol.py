"""The functions of the shell for tf_keras that exports and reports call."""

from __future__ import annotations

import pathlib
from typing import Any

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compact import compacted, resized
from tf_movprune.keras2.inference import computing_in_float32, inference_of, write_saved_model
from tf_movprune.keras2.named_weights import assign_weights, named_weights
from tf_movprune.keras2.remaining_weights import remaining_weights
from tf_movprune.keras2.saving import check_stripped

__all__ = [
    "assign_weights",
    "check_stripped",
    "compacted",
    "computing_in_float32",
    "describe",
    "inference_of",
    "model_of",
    "named_weights",
    "remaining_weights",
    "write_saved_model",
]

describe = hugging_face.describe

_UNDESCRIBED = "a model that is not of Hugging Face's classes"


def model_of(cls: type, description: dict[str, Any] | None, path: str | pathlib.Path) -> Any:
    """Makes a model of a class like the one that was described.

    Raises:
      TypeError: models of the class are not made from a configuration.
      ValueError: the description is missing, or of another class.
    """
    if not hugging_face.has_configuration(cls):
        raise TypeError(
            f"Expected a built model, or the Hugging Face class of one, got the class "
            f"{cls.__name__}."
        )
    if description is None or description["class"] != cls.__name__:
        held = description["class"] if description else _UNDESCRIBED
        raise ValueError(
            f"{path} holds {held}, got the class {cls.__name__}. Pass the class of the model that "
            "was written, or a built model."
        )
    return resized(hugging_face.from_description(cls, description))
