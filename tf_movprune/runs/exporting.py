"""Exports of opened models, into their formats' usual places."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection
from typing import Any

from tf_movprune.export.compressed import export_compressed
from tf_movprune.export.onnx import export_onnx
from tf_movprune.export.saved_model import export_saved_model
from tf_movprune.export.tflite import export_tflite
from tf_movprune.pytorch.save import save_pytorch
from tf_movprune.reports.run_folder import write_json
from tf_movprune.runs.opened_model import OpenedModel, tokenizer_in

FORMATS = {
    "tflite": "model.tflite",
    "onnx": "model.onnx",
    "saved_model": "saved_model",
    "compressed": "model.movprune",
    "pytorch": "pytorch",
}
"""Formats, and the names of their files."""

_DEFAULT = {"tflite": "int8", "onnx": "none", "compressed": "int8"}


def check_options(
    names: Collection[str], sequence_length: int | None, quantization: str | None
) -> None:
    """Raises ValueError for an option that one of the formats, or all of them, cannot heed."""
    if sequence_length is not None and "tflite" not in names:
        raise ValueError(
            f"sequence_length is for tflite, got {', '.join(names)}, whose inputs take any length. "
            "Leave it out."
        )
    others = [name for name in names if name not in _DEFAULT]
    if quantization is not None and others:
        raise ValueError(
            f"quantization is for {', '.join(_DEFAULT)}, not for {', '.join(others)}. Export these "
            "by themselves."
        )


def export_model(
    opened: OpenedModel,
    name: str,
    path: str | pathlib.Path | None = None,
    *,
    sequence_length: int | None = None,
    quantization: str | None = None,
) -> Any:
    """Writes a model in a format.

    Args:
      opened: the model.
      name: one of `FORMATS`.
      path: where to; `exports/` beside the model unless given.
      sequence_length: tokens of the inputs; the length that a run trained with unless given, and
        none if the model is not one of a task.
      quantization: "none", "float16", "int8" or "int4"; each format has a default.

    Returns:
      What there is to say about the file.

    Raises:
      ValueError: the format has no such quantization, or takes no length.
    """
    check_options([name], sequence_length, quantization)
    is_of_run = opened.folder.name == "model" or opened.folder.is_file()
    beside = opened.folder.parent if is_of_run else opened.folder
    target = pathlib.Path(path or beside / "exports" / FORMATS[name])
    target.parent.mkdir(parents=True, exist_ok=True)
    quantization = quantization or _DEFAULT.get(name)
    numbers: dict[str, Any] = {"quantization": None if quantization == "none" else quantization}
    length = sequence_length or opened.description.get("max_length")
    lengths: dict[str, Any] = {} if length is None else {"sequence_length": length}
    if name == "tflite":
        return export_tflite(opened.model, target, **numbers, **lengths)
    if name == "onnx":
        return export_onnx(opened.model, target, **numbers)
    if name == "saved_model":
        return export_saved_model(opened.model, target)
    if name == "compressed":
        return export_compressed(opened.model, target, **numbers)
    return _export_pytorch(opened, target)


def _export_pytorch(opened: OpenedModel, target: pathlib.Path) -> str:
    """Writes a folder for PyTorch, with the tokenizer and the names of the labels."""
    tokenizer = tokenizer_in(opened.folder, opened.library, opened.model)
    save_pytorch(opened.model, target, tokenizer=tokenizer and tokenizer.original)
    if names := opened.description.get("label_names"):
        config = json.loads((target / "config.json").read_text(encoding="utf-8"))
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: i for i, name in enumerate(names)}
        write_json(target / "config.json", config)
    also = " and a tokenizer" if tokenizer else ""
    return f"{target}: model.safetensors and config.json{also} for PyTorch."
