"""A table of runs in Markdown, in which runs that differ in their seed alone share a line."""

from __future__ import annotations

from collections.abc import Sequence

from tf_movprune.reports.formats import (
    as_fraction,
    is_in_percent,
    method_and_structure,
    metric_name,
    metric_value,
    percent,
)
from tf_movprune.reports.runs import Run

_SEED_ALONE = ("seed", "output_dir", "teacher", "cache_dir")  # the teacher has the run's seed


def comparison(runs: Sequence[Run]) -> str:
    """A Markdown table of several runs.

    The last column is the mean of the main metric over that of the dense runs, if there are any.

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
    names = [name for name in dict.fromkeys([main, *known]) if name and not name.endswith("loss")]
    groups = _groups(runs)
    dense = [run for run in runs if run.info.get("method") == "dense"]
    base = _mean(dense, main)
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


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs with the same settings but for the seed, in the order in which the first ones stand."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        settings = run.info.get("settings") or {"folder": str(run.folder)}
        # Older runs lack what is off if it is not set.
        kept = {k: v for k, v in settings.items() if v and k not in _SEED_ALONE}
        key = repr(sorted(kept.items())) + method_and_structure(run)
        found.setdefault(key, []).append(run)
    return list(found.values())


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
