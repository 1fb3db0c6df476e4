"""Files of JSON that anybody may have written."""

from __future__ import annotations

import json
import pathlib
from typing import Any


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not JSON in UTF-8, nested too deeply, or something else than an object.
    """
    return parse_object(path.read_bytes(), path)


def parse_object(data: bytes, path: pathlib.Path) -> dict[str, Any]:
    """The object in the bytes of a JSON file, which errors call `path`; see `read_object`."""
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(found).__name__}.")
    return found
