"""The modules that know the models of a library.

Each has the functions `load`, `load_saved`, `load_checkpoint`, `tokenizer_of`, `label_names`,
`masked_layers`, `freeze_embeddings`, `set_dropout`, `inputs`, `labels`, `logits`, `compile_for`,
`state`, `trainable_weights`, `save`, `precision` and `seed`, and the module `callbacks` of its
Keras.
"""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any

_SHELLS = {"keras_hub": "keras3", "transformers": "keras2"}


def shell_of(library: str) -> Any:
    """The module for the models of a library, "keras_hub" or "transformers"."""
    return importlib.import_module(f"tf_movprune.{_SHELLS[library]}.task_models")


def library_of(folder: pathlib.Path) -> str:
    """The library whose models a folder holds.

    Raises:
      ValueError: the folder does not tell.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(
            f"{folder} has no config.json: it is not the folder of a run, of a preset of KerasHub, "
            "or of a Hugging Face model."
        )
    content = json.loads(config.read_text(encoding="utf-8"))
    return "keras_hub" if "registered_name" in content else "transformers"
