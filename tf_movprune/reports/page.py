"""One page that shows recorded runs."""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tf_movprune.export.files import check_place, replacing
from tf_movprune.reports.facts import facts, headline, stats, table
from tf_movprune.reports.formats import labels
from tf_movprune.reports.runs import Run, load_run

Folder = str | os.PathLike[str]


def report(folder_or_runs: Folder | Sequence[Folder], path: Folder | None = None) -> pathlib.Path:
    """Draws runs on one HTML page, to look at, print or send.

    The page needs no other file, no network and no JavaScript, follows the reader's choice of a
    light or dark display, and fits a phone. It shows the result; metric, loss, sparsity and changes
    of masks over training; what remains by layer, matrix, head and neuron; weights against scores;
    agreement with magnitude pruning; sizes; and all that was recorded of settings, versions, data
    and commands. Several runs are compared. What was not recorded is left out, and the page says
    so.

    Args:
      folder_or_runs: the folder of a run, which a training or `RunRecorder` wrote, or several.
      path: the file to write; `report.html` in the first folder unless given.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: a folder holds no run, or there is no folder for `path`.
      ImportError: matplotlib or jinja2 is missing.
      OSError: `path` cannot be written.
      ValueError: there are no runs, or a file of one is damaged.
    """
    if isinstance(folder_or_runs, str | os.PathLike):
        folder_or_runs = [folder_or_runs]
    folders = list(folder_or_runs)
    if not folders:
        raise ValueError("report needs the folder of at least one run, got an empty list.")
    for name in ("matplotlib", "jinja2"):
        _check_package(name)
    runs = [load_run(folder) for folder in folders]
    file = runs[0].folder / "report.html" if path is None else pathlib.Path(path)
    check_place(file)
    text = _render(runs)
    with replacing(file) as new:
        new.write_text(text, encoding="utf-8")
    return file


def _render(runs: Sequence[Run]) -> str:
    from tf_movprune.reports import sections
    from tf_movprune.reports.drawing import style

    names = labels(runs)
    with style():
        if len(runs) == 1:
            found = sections.details(runs[0])
        else:
            found = [sections.comparison(runs, names)]
            found += [sections.summary(run, name) for run, name in zip(runs, names)]
    return _template().render(
        **headline(runs, names),
        stats=stats(runs[0]) if len(runs) == 1 else [],
        table=table(runs, names) if len(runs) > 1 else None,
        sections=found,
        facts=[(name, facts(run)) for run, name in zip(runs, names)],
    )


def _template() -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.jinja")


def _check_package(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'Reports need {name}. Install it with `pip install "tf_movprune[reports]"`.'
        ) from error
