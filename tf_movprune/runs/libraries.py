"""The modules that know the models of a library.

Each has the functions `load`, `load_saved`, `load_checkpoint`, `tokenizer_of`, `label_names`,
`masked_layers`, `freeze_embeddings`, `set_dropout`, `inputs`, `labels`, `logits`, `compile_for`,
`state`, `trainable_weights`, `save`, `precision` and `seed`, and the module `callbacks` of its
Keras.
"""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

from tf_movprune.core.json_files import read_object

_SHELLS = {"keras_hub": "keras3", "transformers": "keras2"}


def shell_of(library: str) -> Any:
    """The module for the models of a library, "keras_hub" or "transformers".

    Raises:
      ValueError: `library` is neither.
    """
    if library not in tuple(_SHELLS):
        raise ValueError(f"library must be one of {', '.join(_SHELLS)}, got {library!r}.")
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
    return "keras_hub" if "registered_name" in read_object(config) else "transformers"
