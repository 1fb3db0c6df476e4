"""Checks of what exports are given, before work is done."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from tf_movprune.core.arguments import check_boolean, check_number
from tf_movprune.core.inference import Inference
from tf_movprune.core.user_warnings import warn

_SUFFIXES = {
    ".tflite": "export_tflite",
    ".movprune": "export_compressed",
    ".h5": "model.save",
    ".keras": "model.save",
    ".onnx": None,
    ".pb": None,
    ".safetensors": None,
}
"""Suffixes of files in known formats, with the functions that write them."""


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


def warn_of_constants(inference: Inference) -> None:
    """Warns of arguments of the model's call that a file does not take."""
    if inference.constants:
        listed = ", ".join(f"{name}={value!r}" for name, value in inference.constants.items())
        warn(
            f"The file is of {inference.name!r} called with the defaults {listed}. If it was "
            "called with tensors instead, or with other values, pass inputs=... with an array for "
            "each argument that the file is to take, by the name of the argument."
        )
