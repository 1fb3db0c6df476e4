"""SavedModels with a named signature, checked against their models."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.export.export_report import ExportReport, largest_difference, report_on
from tf_movprune.export.files import check_place, replacing
from tf_movprune.export.protocol import shell_of


def export_saved_model(
    model: Any,
    path: str | pathlib.Path,
    sequence_length: int | None = None,
    batch_size: int | None = None,
    *,
    verify: bool = True,
    atol: float | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a SavedModel for serving, loads it again and compares its outputs with the model's.

    The signature `serving_default` takes the model's inputs and gives its outputs by name:
    `input_ids`, `attention_mask`, ... and `logits` for Hugging Face classifiers. It loads with
    TensorFlow alone, and has no training graph. Zeros are stored as they are: compress the folder.

    Args:
      model: a built model without pruning wrappers. Subclassed models must have been called once.
      path: folder to write. An existing one is replaced once the new one is verified.
      sequence_length: size of the open axes except the first; None leaves them open.
      batch_size: size of the first axis; None leaves it open.
      verify: whether to reload and compare.
      atol: largest difference that passes; by default, 1e-4 times the larger of 1 and the largest
        output.
      inputs: arrays by input name to compare on; random ones by default.

    Returns:
      An `ExportReport`.

    Raises:
      OSError: the folder cannot be written. Nothing is left of it.
      RuntimeError: the reloaded model's outputs differ. Nothing is left of it.
      TypeError: `model` is not a Keras model, a size is not an integer, or `inputs` is not a
        mapping.
      ValueError: the model is still pruned, its inputs are not known, it cannot take inputs of
        these sizes, or `inputs` does not fit it.
    """
    shell = shell_of(model)
    inference = shell.inference_of(model, sequence_length, batch_size)
    examples = inference.example_inputs(inputs)
    _ = inference.concrete  # raises here if the sizes are wrong
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)  # TensorFlow does it too
    check_place(path, for_folder=True)
    with replacing(path) as temporary:
        shell.write_saved_model(model, inference, str(temporary))
        difference = None
        if verify:
            loaded = tf.saved_model.load(str(temporary)).signatures["serving_default"]
            outputs = loaded(**{name: tf.constant(x) for name, x in examples.items()})
            difference = largest_difference(path, inference.run(examples), outputs, 1e-4, atol)
        return report_on(path, temporary, inference, difference)
