"""Recorded runs, as they are read from their folders."""

from __future__ import annotations

import dataclasses
import json
import numbers
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tf_movprune.reports.run_folder import FORMAT, HISTORY, PRUNING, RUN

_NO_FILES = ("bound", "bitmap")
_TEXT, _NUMBER, _OBJECT, _LIST = "a string", "a number", "an object", "a list"
_TYPES = {_TEXT: str, _NUMBER: numbers.Real, _OBJECT: dict, _LIST: list}
_RUN = {
    **dict.fromkeys(("task", "title", "model", "library", "method", "structure"), _TEXT),
    **dict.fromkeys(("machine", "started", "finished", "main_metric"), _TEXT),
    **dict.fromkeys(("final_sparsity", "seconds", "remaining"), _NUMBER),
    **dict.fromkeys(("settings", "versions", "data", "metrics", "sparsity"), _OBJECT),
    **dict.fromkeys(("commands", "sizes", "latency"), _LIST),
}
_SIZE = {"format": _TEXT, "quantization": _TEXT, "bytes": _NUMBER, "gzip_bytes": _NUMBER}
_LATENCY = {"format": _TEXT, "milliseconds": _NUMBER, "relative": _NUMBER}
_LINE = {
    **dict.fromkeys(("step", "loss", "learning_rate", "sparsity", "churn"), _NUMBER),
    "metrics": _OBJECT,
}
_PRUNING = {
    **dict.fromkeys(("remaining", "total", "agreement"), _NUMBER),
    **dict.fromkeys(("matrices", "heads", "neurons", "groups"), _LIST),
}
_MATRIX = {
    **dict.fromkeys(("path", "title"), _TEXT),
    **dict.fromkeys(("layer", "remaining", "total", "agreement"), _NUMBER),
}
_HEADS = {"layer": _NUMBER, "remaining": _LIST}
_NEURONS = dict.fromkeys(("layer", "kept", "total"), _NUMBER)
_GROUP = {
    **dict.fromkeys(("name", "method", "pieces", "quantity", "shown"), _TEXT),
    "scores_start_from": _TEXT,
    **dict.fromkeys(("kernels", "entries", "kept", "threshold"), _NUMBER),
    **dict.fromkeys(("histogram", "points"), _OBJECT),
}
_HISTOGRAM = dict.fromkeys(("edges", "kept", "pruned"), _LIST)
_POINTS = {**dict.fromkeys(("weight", "score", "kept"), _LIST), "weight_is": _TEXT}


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that was recorded of a run. Whatever is missing in its files is missing here.

    Attributes:
      folder: where it was read from.
      info: contents of `run.json`: settings and results.
      history: lines of `history.jsonl`, by step.
      pruning: contents of `pruning.json`.
    """

    folder: pathlib.Path
    info: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    pruning: Mapping[str, Any]

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Steps, and the numbers that the history has for a key at these steps."""
        found = [(line["step"], line[key]) for line in self.history if line.get(key) is not None]
        return [step for step, _ in found], [value for _, value in found]

    def metric_series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps, and a metric at these steps: of validation or held-out data if it is known."""
        lines = [(line["step"], line.get("metrics") or {}) for line in self.history]
        names = [f"val_{name}", f"val_held_out_{name}", name]
        name = next((n for n in names if any(n in metrics for _, metrics in lines)), name)
        found = [(s, m[name]) for s, m in lines if isinstance(m.get(name), numbers.Real)]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def main_metric(self) -> str | None:
        """Name of the metric that the run is judged by; None if no metric is known."""
        if self.info.get("main_metric"):
            return self.info["main_metric"]
        names = [*(self.info.get("metrics") or {})]
        names += [name for line in self.history for name in line.get("metrics") or {}]
        names = [name.removeprefix("val_") for name in names]
        return next((name for name in names if not name.endswith("loss")), None)

    @property
    def result(self) -> float | None:
        """The main metric at the end."""
        value = (self.info.get("metrics") or {}).get(self.main_metric)
        if isinstance(value, numbers.Real):
            return float(value)
        values = self.metric_series(self.main_metric)[1] if self.main_metric else []
        return values[-1] if values else None

    @property
    def sizes(self) -> list[Mapping[str, Any]]:
        """Known sizes, without those that `size_report` only computes."""
        entries = self.info.get("sizes") or ()
        names = [str(size.get("format")) for size in entries]
        return [s for s, n in zip(entries, names) if s.get("bytes") and not n.startswith(_NO_FILES)]

    @property
    def remaining(self) -> float | None:
        """The share of prunable weights that remains at the end; 1 for a dense run."""
        if self.info.get("remaining") is not None:
            return float(self.info["remaining"])
        if self.pruning.get("total"):
            return self.pruning["remaining"] / self.pruning["total"]
        sparsity = self.series("sparsity")[1]
        if sparsity:
            return 1 - sparsity[-1]
        return 1.0 if self.info.get("method") == "dense" else None


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Reads the folder of a run, of which some files may be missing.

    Raises:
      FileNotFoundError: there is no run in the folder, or no folder.
      ValueError: a file is not what a run has: its name, and the line, are in the message.
    """
    path = pathlib.Path(folder)
    if not any((path / name).is_file() for name in (RUN, HISTORY, PRUNING)):
        what = "holds no run" if path.is_dir() else "is not a folder"
        raise FileNotFoundError(
            f"{str(path)!r} {what}: expected {RUN}, {HISTORY} or {PRUNING} in it. Pass the output "
            "folder of a training, or record one with tf_movprune.RunRecorder(folder)."
        )
    info, pruning = _read_object(path / RUN), _read_object(path / PRUNING)
    _check(path / RUN, "", info, _RUN)
    for kind, types in (("sizes", _SIZE), ("latency", _LATENCY)):
        _check_items(path / RUN, kind, info.get(kind), types)
    _check(path / PRUNING, "", pruning, _PRUNING)
    kinds = {"matrices": _MATRIX, "heads": _HEADS, "neurons": _NEURONS, "groups": _GROUP}
    for kind, types in kinds.items():
        _check_items(path / PRUNING, kind, pruning.get(kind), types)
    for group in pruning.get("groups") or ():
        for key, types in (("histogram", _HISTOGRAM), ("points", _POINTS)):
            _check(path / PRUNING, f"{key}.", group.get(key) or {}, types)
    return Run(path, info, _read_history(path / HISTORY), pruning)


def _read_object(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    value = _parse(file, _text(file), 1)
    if not isinstance(value, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object, got {_shown(value)}.")
    if value.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{str(file)!r} has the format {value['format']!r}, but this version of tf_movprune "
            f"reads {FORMAT}. Update tf_movprune."
        )
    return value


def _read_history(file: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a history; the last one may have been cut short."""
    if not file.is_file():
        return []
    text, found = _text(file), []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        is_cut = number == len(lines)  # no line break after it
        if not line.strip():
            continue
        try:
            record = _parse(file, line, number)
        except ValueError:
            if is_cut:
                break
            raise
        where = f"line {number}: "
        if not isinstance(record, dict) or record.get("step") is None:
            raise ValueError(
                f"{str(file)!r}, {where}expected an object with a step, got {_shown(record)}."
            )
        _check(file, where, record, _LINE)
        found.append(record)
    return sorted(found, key=lambda record: record["step"])


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(file)!r} is not UTF-8 text: {error}. Restore it, or remove it from the run."
        ) from error


def _parse(file: pathlib.Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line = first_line + getattr(error, "lineno", 1) - 1
        raise ValueError(
            f"{str(file)!r}, line {line}: this is not JSON: {getattr(error, 'msg', error)}. "
            "Restore the file, or remove it from the run."
        ) from error


def _check_items(
    file: pathlib.Path, key: str, items: Sequence[Any] | None, types: Mapping[str, str]
) -> None:
    for i, item in enumerate(items or ()):
        if not isinstance(item, dict):
            raise ValueError(f"{str(file)!r}: {key}[{i}] must be an object, got {_shown(item)}.")
        _check(file, f"{key}[{i}].", item, types)


def _check(
    file: pathlib.Path, where: str, value: Mapping[str, Any], types: Mapping[str, str]
) -> None:
    """Raises ValueError if a key that is there is of another type; null counts as missing."""
    for key, kind in types.items():
        found = value.get(key)
        is_wrong = isinstance(found, bool) or not isinstance(found, _TYPES[kind])
        if found is not None and is_wrong:
            raise ValueError(f"{str(file)!r}: {where}{key} must be {kind}, got {_shown(found)}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
