"""Numbers and names of runs as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_movprune.reports.runs import Run

_PERCENT = frozenset({"accuracy", "f1", "exact_match", "exact", "accuracy_and_f1"})
_METRICS = {
    "f1": "F1",
    "exact_match": "exact match",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
_SHORT = {
    **dict.fromkeys(("HardMovement", "hard"), "hard movement"),
    **dict.fromkeys(("SoftMovement", "soft"), "soft movement"),
    **dict.fromkeys(("Magnitude", "magnitude"), "magnitude"),
    **dict.fromkeys(("L0", "l0"), "L0"),
}
_METHODS = {
    **{method: f"{short} pruning" for method, short in _SHORT.items()},
    **dict.fromkeys(("L0", "l0"), "L0 regularisation"),
    "KeepZeros": "fixed zeros",
    "dense": "fine-tuning without pruning",
}


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent, such as `"10 %"` or `"8.4 %"`, with a narrow space."""
    return f"{100 * fraction:.{digits}f}".removesuffix("." + "0" * digits) + "\u202f%"


def metric_name(name: str) -> str:
    """The name of a metric in words."""
    return _METRICS.get(name, name.replace("_", " "))


def is_in_percent(name: str) -> bool:
    """Returns whether a metric is usually given in percent."""
    return name in _PERCENT


def metric_value(name: str, value: float) -> str:
    """A metric's value: in percent if that is usual, whether it is stored as a fraction or not."""
    if is_in_percent(name):
        return percent(as_fraction(value))
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def as_fraction(value: float) -> float:
    """A metric that is usually given in percent, as a fraction."""
    return value if abs(value) <= 1 else value / 100


def byte_count(count: float) -> str:
    """A number of bytes in kB, MB or GB of 1,000s."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.{0 if value >= 100 else 1}f}\u202f{unit}"
    return f"{count:.0f}\u202fbytes"


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def method_title(method: str) -> str:
    """A method in words, such as "hard movement pruning"."""
    return _METHODS.get(method, method)


def plain(value: Any) -> str:
    """A setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)


def labels(runs: Sequence[Run]) -> list[str]:
    """A short label for each run, which tells it from the others."""
    labels = [_label(run) for run in runs]
    for more in (_structure, _remaining, lambda run: run.folder.resolve().name):
        added: dict[str, set[str]] = {}
        for label, run in zip(labels, runs):
            added.setdefault(label, set()).add(more(run))
        labels = [
            f"{label} {more(run)}".rstrip() if len(added[label]) > 1 else label
            for label, run in zip(labels, runs)
        ]
    return labels


def method_and_structure(run: Run) -> str:
    """The method of a run, whether it has a teacher, and what stays or goes as one."""
    return f"{_label(run)} {_structure(run)}".rstrip()


def _label(run: Run) -> str:
    method = run.info.get("method")
    name = _SHORT.get(method, method) if method else run.folder.resolve().name
    return f"{name}, distilled" if run.info.get("distilled") else str(name)


def _structure(run: Run) -> str:
    structure = run.info.get("structure")
    return "" if structure in (None, "weights") else str(structure)


def _remaining(run: Run) -> str:
    return "" if run.remaining in (None, 1.0) else percent(run.remaining or 0.0, 0)
