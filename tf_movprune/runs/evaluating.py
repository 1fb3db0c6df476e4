"""Metrics and predictions of the model of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from tf_movprune.core.arguments import check_integer
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
    max_validation_examples: int | None = None,
    predictions: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Computes the metrics of the model of a run, and writes its predictions.

    Args:
      folder: folder of the run.
      data_dir: folder with the task's own files; that of the run unless given.
      file: a file of your own to evaluate on, like those that the run trained on.
      max_validation_examples: evaluate on the first so many; on all unless given, also if the run
        was evaluated on fewer.
      predictions: file to write, whose name gets that of the split if there are several; in the
        folder of the run unless given.
      say: is called with what is evaluated on.

    Returns:
      Metrics by name.

    Raises:
      FileNotFoundError: there is no finished run, or no data.
      ValueError: both a folder and a file are given, or data are malformed, or have labels that
        the model does not have.
    """
    if data_dir is not None and file is not None:
        raise ValueError(f"data_dir {data_dir} and file {file} are both given. Pass one of them.")
    if max_validation_examples is not None:
        check_integer("max_validation_examples", max_validation_examples, example=1, minimum=1)
    run = RunPaths(folder)
    settings = run.settings()
    with shell_of(settings.library).precision(settings.precision):
        opened = open_model(run.path)
    if "max_length" not in opened.description:
        raise ValueError(f"{opened.folder} does not tell what its model is for: train it anew.")
    prepared = prepare_evaluation(
        settings,
        opened.model,
        opened.folder,
        opened.description,
        data_dir,
        file,
        max_validation_examples,
        say,
    )
    if settings.max_validation_examples != max_validation_examples and file is None:
        mine = (
            "all" if (most := settings.max_validation_examples) is None else f"the first {most:,}"
        )
        say(f"The metrics in {run.record_file} are those of {mine} of them.")
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
