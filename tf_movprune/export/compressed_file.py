"""The container of a compressed file: a table of its weights, their bytes and a checksum.

docs/compressed_format.md has the format.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune.export.coding import EncodedWeight, decode, libraries

FORMAT = "tf_movprune.compressed"
VERSION = 1

_NO_CHECKSUM = "0" * 64


def write_container(encoded: Sequence[EncodedWeight], description: dict[str, Any] | None) -> bytes:
    """The bytes of a file.

    Args:
      encoded: its weights.
      description: description of the model, or None.
    """
    _, safetensors = libraries()
    table = {
        "checksum": _NO_CHECKSUM,
        "format": FORMAT,
        "version": VERSION,
        "model": description,
        "tensors": [weight.row for weight in encoded],
    }
    data = safetensors.numpy.save(
        {str(i): np.frombuffer(weight.payload, np.uint8) for i, weight in enumerate(encoded)},
        {FORMAT: json.dumps(table, separators=(",", ":"))},
    )
    return data.replace(_NO_CHECKSUM.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def read_container(path: pathlib.Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The description of the model in a file, and its arrays by name."""
    _, safetensors = libraries()
    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        table = json.loads(header["__metadata__"][FORMAT])
        checksum = table["checksum"].encode()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no checksum of export_compressed: it is another file, or damaged. Write "
            "or copy it again."
        ) from error
    found = hashlib.sha256(data.replace(checksum, _NO_CHECKSUM.encode(), 1)).hexdigest()
    if found.encode() != checksum:
        raise ValueError(
            f"{path} is damaged: its checksum is {found[:12]}..., and {table['checksum'][:12]}... "
            "was expected. Write or copy it again."
        )
    if table["version"] != VERSION:
        raise ValueError(
            f"{path} is of version {table['version']} of the format, and this is a reader of "
            f"version {VERSION}. Install the tf_movprune that wrote it, or a later one."
        )
    payloads = {name: entry["data"] for name, entry in safetensors.deserialize(data)}
    rows = table["tensors"]
    return table["model"], {
        row["name"]: decode(row, payloads[str(i)]) for i, row in enumerate(rows)
    }
