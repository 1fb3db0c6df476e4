"""Metrics and predictions of the model of a run."""

from __future__ import annotations

import pathlib

from tf_movprune.runs.evaluation import Outputs, evaluate_splits
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.opened_model import open_model
from tf_movprune.runs.preparation import prepare_evaluation
from tf_movprune.runs.record import RunPaths


def evaluate(
    folder: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    file: str | None = None,
    predictions: str | None = None,
) -> dict[str, float]:
    """Computes the metrics of the model of a run, and writes its predictions.

    Args:
      folder: folder of the run.
      data_dir: folder with the task's own files; that of the run unless given.
      file: a file of your own to evaluate on, like those that the run trained on.
      predictions: file to write, whose name gets that of the split if there are several; in the
        folder of the run unless given.

    Returns:
      Metrics by name.

    Raises:
      FileNotFoundError: there is no finished run, or no data.
      ValueError: data are malformed, or have labels that the model does not have.
    """
    run = RunPaths(folder)
    settings = run.settings()
    with shell_of(settings.library).precision(settings.precision):
        opened = open_model(run.path)
    if "max_length" not in opened.description:
        raise ValueError(f"{opened.folder} does not tell what its model is for: train it anew.")
    prepared = prepare_evaluation(
        settings, opened.model, opened.folder, opened.description, data_dir, file
    )
    outputs = Outputs(shell_of(settings.library), opened.model, jit_compile=settings.xla)
    return evaluate_splits(
        prepared,
        outputs,
        settings.evaluation_batch_size,
        lambda split: _target(run, split, file, predictions),
    )


def _target(run: RunPaths, split: str, file: str | None, predictions: str | None) -> pathlib.Path:
    """The file for the predictions on a split; never that of other data."""
    if predictions is not None:
        path = pathlib.Path(predictions)
        suffix = split.removeprefix("validation")
        return path.with_name(f"{path.stem}{suffix}{path.suffix}")
    return run.predictions(split if file is None else f"of-{pathlib.Path(file).stem}")
