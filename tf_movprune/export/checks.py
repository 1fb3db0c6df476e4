"""Checks of what exports are given, before work is done."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_boolean, check_number
from tf_movprune.core.inference import Inference
from tf_movprune.core.user_warnings import warn

_SUFFIXES = {
    ".tflite": "export_tflite",
    ".movprune": "export_compressed",
    ".h5": "model.save",
    ".keras": "model.save",
    ".onnx": "export_onnx",
    ".pb": None,
    ".safetensors": None,
}
"""Suffixes of files in known formats, with the functions that write them."""


WITHOUT_STRINGS = (
    "Do so before {} is called, and export a model of the layers behind it; or use "
    "export_saved_model, which keeps all."
)


def check_path(path: Any, suffix: str | None = None) -> pathlib.Path:
    """Returns the path of an export.

    Args:
      path: what was given.
      suffix: the suffix of the format, which the path may lack; None for folders.

    Raises:
      TypeError: it is not a path.
      ValueError: its suffix is that of another format.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise TypeError(f"path must be a path such as 'exported{suffix or ''}', got {path!r}.")
    path = pathlib.Path(path)
    found = path.suffix.lower()
    if found in _SUFFIXES and found != suffix:
        writer = _SUFFIXES[found]
        raise ValueError(
            f"path must {f'end in {suffix!r}' if suffix else 'be that of a folder'}, got "
            f"{str(path)!r}, a name for another format"
            + (f", which {writer} writes." if writer else ".")
        )
    return path


def check_verification(verify: Any, atol: Any) -> None:
    """Raises TypeError or ValueError if arguments do not say how to compare an export."""
    check_boolean("verify", verify)
    if atol is not None:
        check_number("atol", atol, example=0.001, minimum=0)


def check_convertible(inference: Inference, file_kind: str, runtime: str) -> None:
    """Raises ValueError, before work is done, if an inference is known not to be convertible.

    Args:
      inference: what is to be converted.
      file_kind: name of the format, such as `"TFLite"`.
      runtime: name of what runs its files.
    """
    strings = [spec.name for spec in inference.specs if spec.dtype == tf.string]
    if strings:
        raise ValueError(
            f"The inputs {strings} of {inference.name!r} are strings, which {file_kind} files "
            f"cannot look up or split. {WITHOUT_STRINGS.format(runtime)}"
        )
    if inference.assigning:
        raise ValueError(
            f"{inference.name!r} changes variables when it is called "
            f"({', '.join(inference.assigning)}), as stateful layers and metrics do, which "
            f"{file_kind} files cannot. Make a state an input and an output, or use "
            "export_saved_model."
        )


def warn_of_constants(inference: Inference) -> None:
    """Warns of arguments of the model's call that a file does not take."""
    if inference.constants:
        listed = ", ".join(f"{name}={value!r}" for name, value in inference.constants.items())
        warn(
            f"The file is of {inference.name!r} called with the defaults {listed}. If it was "
            "called with tensors instead, or with other values, pass inputs=... with an array for "
            "each argument that the file is to take, by the name of the argument."
        )
