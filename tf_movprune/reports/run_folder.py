"""The folder of a run: what is written there while it trains."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_movprune.export.files import replacing

RUN, HISTORY, PRUNING = "run.json", "history.jsonl", "pruning.json"
FORMAT = 1
"""Version of the format of these files."""


class RunFolder:
    """Writes the files of a run. The folder is made if there is none.

    Args:
      path: the folder.

    Raises:
      OSError: it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, step: int) -> bool:
        """Cuts off the lines of the history after a step, and removes what a later one wrote.

        Args:
          step: the step at which training begins, or goes on.

        Returns:
          True if there is a line of that step.
        """
        pruning = self.path / PRUNING
        if pruning.exists() and not _is_of_step(_text(pruning), step):
            pruning.unlink()
        file = self.path / HISTORY
        if not file.exists():
            return False
        lines = _text(file).splitlines()
        steps = [_record(line).get("step") for line in lines]
        kept = [line for line, at in zip(lines, steps) if isinstance(at, int) and at <= step]
        if kept != lines:
            with replacing(file) as new:
                new.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        return step in steps

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line to the history, which is on its way to the disk when this returns."""
        with open(self.path / HISTORY, "a", encoding="utf-8") as file:
            file.write(as_json(record) + "\n")

    def write_pruning(self, statistics: Mapping[str, Any]) -> None:
        """Writes `pruning.json`, whole or not at all, with the `churn` of the history added up."""
        file, churn = self.path / HISTORY, 0.0
        if file.exists():
            found = [_record(line).get("churn") for line in _text(file).splitlines()]
            churn = sum(value for value in found if isinstance(value, int | float))
        write_json(self.path / PRUNING, {"format": FORMAT, **statistics, "churn": churn})


def _is_of_step(text: str, last: int) -> bool:
    """Returns whether statistics were written at a step, or before it."""
    step = _record(text).get("step")
    return isinstance(step, int) and step <= last


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with replacing(path) as new:
        new.write_text(as_json(value) + "\n", encoding="utf-8")


def as_json(value: Any) -> str:
    """JSON on one line, with null for numbers that are not finite, which JSON does not have."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(file: pathlib.Path) -> str:
    """The text of a file that may be damaged."""
    return file.read_text(encoding="utf-8", errors="replace")


def _record(line: str) -> dict[str, Any]:
    """The record on a line; empty if it was not written to its end, or is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
