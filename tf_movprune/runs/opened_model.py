"""Models in folders of runs, presets and Hugging Face folders, for whoever was given a path."""

from __future__ import annotations

import functools
import pathlib
from typing import Any, NamedTuple

from tf_movprune.compaction import load_compacted
from tf_movprune.core.load_errors import named_errors
from tf_movprune.core.user_warnings import warn
from tf_movprune.pytorch.load import load_pytorch, local_folder
from tf_movprune.pytorch.weight_files import TOKENIZER_FILES
from tf_movprune.runs.libraries import library_of, shell_of
from tf_movprune.runs.record import RunPaths, description_of, model_folder, write_description


class OpenedModel(NamedTuple):
    """A plain model, and what is known of it.

    Attributes:
      model: the model.
      folder: the folder or file that it was loaded from.
      library: "keras_hub" or "transformers"; None for a model of Keras's own layers.
      description: what the run wrote about it: `task`, `kind`, `label_names`, `max_length`.
    """

    model: Any
    folder: pathlib.Path
    library: str | None
    description: dict[str, Any]


def open_model(path: str | pathlib.Path, library: str | None = None) -> OpenedModel:
    """Loads the model in the folder of a run or of a model, or in a `.keras` file.

    Args:
      path: the folder or file.
      library: "keras_hub" or "transformers", if the folder does not tell.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: it is no model, or one of another kind.
    """
    path = pathlib.Path(path)
    folder = model_folder(path)
    if path.is_file():
        return OpenedModel(load_compacted(path), path, None, {})
    description = description_of(folder)
    if library is None:
        record = RunPaths(path).record_file
        library = RunPaths(path).library() if record.is_file() else library_of(folder)
    shell = shell_of(library)
    with named_errors(folder, "holds no model that can be loaded"):
        model = shell.load_saved(folder, load_pytorch)
    return OpenedModel(model, folder, library, description)


def save_model(opened: OpenedModel, output: str | pathlib.Path) -> None:
    """Writes a model into a new folder, with the tokenizer of the one that it was opened from.

    Raises:
      FileExistsError: there is something in the way.
    """
    output = pathlib.Path(output)
    if opened.library is None and output.suffix != ".keras":
        raise ValueError(f"The model is a .keras file: name one to write, got {output}.")
    _check_free(output)
    if opened.library is None:
        opened.model.save(output)
        return
    shell = shell_of(opened.library)
    tokenizer = shell.tokenizer_of(str(opened.folder), opened.model)
    shell.save(opened.model, tokenizer, str(output), opened.description.get("label_names", ()))
    if opened.description:
        write_description(output, **opened.description)


def import_checkpoint(
    folder: str, output: str | pathlib.Path, library: str, threshold: float | None = None
) -> Any:
    """Loads a checkpoint of PyTorch, and writes it as a model of a library with its tokenizer.

    Args:
      folder: folder, or name of a repository on the Hugging Face hub.
      output: folder to write.
      library: "keras_hub" or "transformers".
      threshold: final threshold of a checkpoint with scores.

    Returns:
      The model.

    Raises:
      FileExistsError: there is something in the way.
      ValueError: the checkpoint cannot be read.
    """
    _check_free(pathlib.Path(output))
    shell = shell_of(library)
    place = local_folder(folder, "auto")
    model = shell.load_checkpoint(place, functools.partial(load_pytorch, threshold=threshold))
    tokenizer = tokenizer_in(place, library, model)
    if tokenizer is None:
        warn(f"{place} has no tokenizer, and {output} gets none.")
    shell.save(model, tokenizer, str(output))
    return model


def tokenizer_in(folder: pathlib.Path, library: str | None, model: Any) -> Any:
    """The tokenizer of a model in its folder; None if it has none."""
    if library is None or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return shell_of(library).tokenizer_of(str(folder), model)


def _check_free(output: pathlib.Path) -> None:
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists. Name a new folder.")
