"""A table of runs in Markdown, in which runs that differ in their seed alone share a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_movprune.reports.formats import (
    as_fraction,
    is_in_percent,
    method_and_structure,
    metric_name,
    metric_value,
    percent,
)
from tf_movprune.reports.runs import Run

_OF_A_SEED = ("seed", "output_dir", "teacher", "cache_dir")
"""Settings that may be others in runs that differ in their seed alone."""


def comparison(runs: Sequence[Run]) -> str:
    """A Markdown table of several runs.

    The last column is the mean of the main metric over that of the dense runs, if these share a
    line: among several dense models, none is the one to compare with.

    Args:
      runs: runs of one task.

    Raises:
      ValueError: the runs are of several tasks.
    """
    tasks = list(dict.fromkeys(str(run.info.get("title") or run.info.get("task")) for run in runs))
    if len(tasks) > 1:
        raise ValueError(
            f"One table is of one task, got runs of {', '.join(tasks)}. Make a table of each."
        )
    main = next((run.main_metric for run in runs if run.main_metric), None)
    known = (name for run in runs for name in run.info.get("metrics") or {})
    names = [name for name in dict.fromkeys([main, *known]) if name and not _is_minor(name)]
    groups = _groups(runs)
    dense = [group for group in groups if group[0].info.get("method") == "dense"]
    base = _mean(dense[0], main) if len(dense) == 1 else None
    lines = [["method", "remaining", *map(metric_name, names), *(["of dense"] if base else [])]]
    lines.append(["---"] * len(lines[0]))
    for group in groups:
        left = [run.remaining for run in group if run.remaining is not None]
        line = [method_and_structure(group[0])]
        line.append(percent(sum(left) / len(left)) if left else "")
        line += [_values(group, name) for name in names]
        if base:
            mean = _mean(group, main)
            line.append("" if mean is None else percent(mean / base))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("\u202f", " ")


def _is_minor(name: str) -> bool:
    """Returns whether a metric is a loss, or of held-out examples, beside those of validation."""
    return name.endswith("loss") or name.startswith("held_out_")


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone, in the order in which the first ones stand."""
    groups: list[list[Run]] = []
    for run in runs:
        group = next((g for g in groups if all(_is_other_seed(run, other) for other in g)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return groups


def _is_other_seed(run: Run, other: Run) -> bool:
    """Returns True if two runs differ in their seed, and in nothing else that counts.

    The teacher of a run may be that of the other but for the seed in its name.
    """
    if _kept(run) != _kept(other) or method_and_structure(run) != method_and_structure(other):
        return False
    seeds, teachers = zip(*((_seed(r), _settings(r).get("teacher") or "") for r in (run, other)))
    if seeds[0] == seeds[1]:
        return False
    named = [teachers[i].replace(str(seeds[i]), str(seeds[1 - i])) for i in (0, 1)]
    return teachers[0] == teachers[1] or named[0] == teachers[1] or named[1] == teachers[0]


def _kept(run: Run) -> dict[str, Any]:
    """The settings that runs have in common if they differ in their seed alone."""
    # Older runs lack what is off if it is not set.
    return {k: v for k, v in _settings(run).items() if v and k not in _OF_A_SEED}


def _settings(run: Run) -> dict[str, Any]:
    return run.info.get("settings") or {"folder": str(run.folder)}


def _seed(run: Run) -> Any:
    return _settings(run).get("seed", run.info.get("seed"))


def _numbers(group: Sequence[Run], name: str | None) -> list[float]:
    values = [(run.info.get("metrics") or {}).get(name) for run in group]
    return [float(value) for value in values if isinstance(value, int | float)]


def _mean(group: Sequence[Run], name: str | None) -> float | None:
    numbers = _numbers(group, name)
    return sum(numbers) / len(numbers) if numbers else None


def _values(group: Sequence[Run], name: str) -> str:
    """The values of a metric: the mean, and in brackets each of several."""
    numbers, mean = _numbers(group, name), _mean(group, name)
    if mean is None:
        return ""
    text = metric_value(name, mean)
    if len(numbers) == 1:
        return text
    each = [100 * as_fraction(n) if is_in_percent(name) else n for n in numbers]
    digits = 1 if is_in_percent(name) else 3
    return f"{text} ({', '.join(f'{n:.{digits}f}' for n in each)})"
