"""SavedModels with a named signature, checked against their models."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_boolean
from tf_movprune.core.inference import Inference
from tf_movprune.export.checks import check_path, check_verification, warn_of_constants
from tf_movprune.export.export_report import ExportReport, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.logs import unchanged_logging
from tf_movprune.export.portable_graphs import make_portable
from tf_movprune.export.protocol import shell_of
from tf_movprune.export.turns import one_at_a_time

_FILES = ("saved_model.pb", "saved_model.pbtxt", "fingerprint.pb", "keras_metadata.pb")
_PARTS = (*_FILES, "variables", "assets", "debug")
"""Names of the files and folders of a SavedModel, tf_keras's own among them."""


@one_at_a_time
def export_saved_model(
    model: Any,
    path: str | pathlib.Path,
    sequence_length: int | None = None,
    batch_size: int | None = None,
    *,
    keep_assertions: bool = True,
    verify: bool = True,
    atol: float | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a SavedModel for serving, loads it again and compares its outputs with the model's.

    The signature `serving_default` takes the model's inputs and gives its outputs by name:
    `input_ids`, `attention_mask`, ... and `logits` for Hugging Face classifiers. It loads with
    TensorFlow alone, has no training graph, and computes the exact GELU by operations that tf2onnx
    and TensorFlow.js have. The endpoint `serve` takes several inputs as a dict: so does
    `keras.layers.TFSMLayer(path)`. Zeros are stored as they are: compress the folder.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
      path: folder to write. An empty one, or a SavedModel, is replaced once the new one is
        verified, and files of others in it, such as `assets.extra`, are kept; other folders are
        not replaced.
      sequence_length: size of the open axes except the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      keep_assertions: whether the graph keeps its assertions, such as Hugging Face's that ids are
        in the vocabulary. TensorFlow.js has no such operation, and takes files without.
      verify: whether to reload and compare.
      atol: largest difference that passes; by default, 1e-4 times the larger of 1 and the largest
        output.
      inputs: arrays by input name to compare on; random ones by default. For a subclassed model,
        which is called as it was first called, they can be arrays by the names of arguments of its
        `call` instead: the file then takes these arguments, in these shapes apart from the first
        axis, and the others get their defaults.

    Returns:
      An `ExportReport`.

    Raises:
      OSError: the folder cannot be written. Nothing is left of it.
      RuntimeError: the reloaded model's outputs differ. Nothing is left of it.
      TypeError: `model` is not a Keras model, or an argument is of a wrong type.
      ValueError: the model is still pruned; its inputs or outputs are not known, or not dense
        tensors; it cannot take inputs of these sizes, has no open axis for `sequence_length`, or
        `inputs` does not fit it; or the suffix of `path` is one of files.

    Warns if arguments of the `call` of a subclassed model get their defaults.
    """
    path = check_path(path)
    check_verification(verify, atol)
    check_boolean("keep_assertions", keep_assertions)
    _check_replaceable(path)
    shell = shell_of(model)
    inference = shell.inference_of(model, sequence_length, batch_size, inputs)
    _ = inference.concrete  # raises here if the sizes are wrong
    if inputs is not None:
        inference.checked(inputs)
    example = inference.example(inputs) if verify else None
    warn_of_constants(inference)
    with unchanged_logging(), _folder(path.parent), replacing(path) as temporary:
        shell.write_saved_model(model, inference, str(temporary))
        make_portable(temporary, keep_assertions=keep_assertions)
        run = functools.partial(_outputs_of, inference)
        report = report_on(path, temporary, inference, inference, example, run, 1e-4, atol)
        _copy_files_of_others(path, temporary)
        return report


def _outputs_of(
    inference: Inference, _: pathlib.Path, written: pathlib.Path, inputs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The outputs of the SavedModel that was `written`, by name."""
    loaded = tf.saved_model.load(str(written))  # variables live as long as it does
    tensors = {s.name: tf.constant(inputs[s.name], s.dtype) for s in inference.specs}
    return loaded.signatures["serving_default"](**tensors)


def _copy_files_of_others(old: pathlib.Path, new: pathlib.Path) -> None:
    """Copies what is in the folder of a SavedModel and no part of it, if there is such a folder."""
    for item in old.iterdir() if old.is_dir() else ():
        if item.name in _PARTS:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)


def _check_replaceable(path: pathlib.Path) -> None:
    """Raises OSError if a folder cannot be written to `path`, or would replace something else."""
    if path.resolve().parent.exists():
        check_place(path, for_folder=True)
    if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").exists():
        raise FileExistsError(
            f"{str(path)!r} is a folder that holds no SavedModel, and would be replaced. Pass the "
            "path of a new folder in it."
        )


@contextlib.contextmanager
def _folder(path: pathlib.Path) -> Iterator[None]:
    """Makes a folder, and removes it, and those above it that it made, if something fails."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
