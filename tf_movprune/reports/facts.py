"""What a report says in words and numbers: headline, results, and how runs were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_movprune.reports.formats import (
    byte_count,
    duration,
    method_title,
    metric_name,
    metric_value,
    percent,
    plain,
)
from tf_movprune.reports.runs import Run


def headline(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, str]:
    """The `title` of a page, its `result` in one line, and a `subtitle`."""
    if len(runs) > 1:
        names = dict.fromkeys(subject(run) for run in runs)
        name = next(iter(names)) if len(names) == 1 else "Pruning"
        result, subtitle = _best(runs, labels)
        models = dict.fromkeys(str(run.info["model"]) for run in runs if run.info.get("model"))
        return {
            "title": f"{name}: {len(runs)} runs compared",
            "result": result,
            "subtitle": " · ".join([*([subtitle] if subtitle else []), *models]),
        }
    (run,) = runs
    parts = [
        run.info.get("model"),
        method_title(run.info["method"]) if run.info.get("method") else None,
        "with distillation" if run.info.get("distilled") else None,
        f"{steps:,.0f} steps" if (steps := _steps(run)) else None,
    ]
    return {
        "title": subject(run),
        "result": result_line(run),
        "subtitle": " · ".join(str(part) for part in parts if part),
    }


def subject(run: Run) -> str:
    """What a run is about: its task, or else the name of its folder."""
    return str(run.info.get("title") or run.info.get("task") or run.folder.resolve().name)


def result_line(run: Run) -> str:
    """The result of a run in one line, as far as it is known."""
    parts = []
    if run.result is not None and run.main_metric:
        value = metric_value(run.main_metric, run.result)
        parts.append(f"{value} {metric_name(run.main_metric)}")
    if run.remaining is not None and run.remaining < 1:
        parts.append(f"{percent(run.remaining)} of the pruned matrices")
    if len(parts) == 2:
        return " with ".join(parts)
    if not parts:
        return "No results were recorded"
    return f"{parts[0]} remain" if "matrices" in parts[0] else parts[0]


def _best(runs: Sequence[Run], labels: Sequence[str]) -> tuple[str, str]:
    """The result of the best pruned run, and what it is compared with."""
    names = {run.main_metric for run in runs if run.result is not None}
    known = [(r.result or 0.0, i, r) for i, r in enumerate(runs) if r.result is not None]
    pruned = [item for item in known if item[2].remaining is not None and item[2].remaining < 1]
    dense = [item[0] for item in known if item[2].remaining == 1]
    if len(names) != 1 or not pruned:
        return "", ""
    _, best, run = max(pruned, key=lambda item: item[0])
    label = labels[best]
    result = f"{label[:1].upper()}{label[1:]}: {result_line(run)}"
    if not dense:
        return result, f"best of {len(pruned)} pruned runs"
    metric = run.main_metric or ""
    without = f"{metric_value(metric, max(dense))} {metric_name(metric)} without pruning"
    return result, f"best of {len(pruned)} pruned runs · {without}" if len(pruned) > 1 else without


def stats(run: Run) -> list[tuple[str, str]]:
    """The numbers at the top of a page, and what they are."""
    found = []
    if run.result is not None and run.main_metric:
        found.append((metric_value(run.main_metric, run.result), metric_name(run.main_metric)))
    if run.remaining is not None:
        text = "of the prunable weights remain"
        if run.pruning.get("total"):
            text = f"of {run.pruning['total']:,.0f} prunable weights remain"
        found.append((percent(run.remaining), text))
    if (agreement := run.pruning.get("agreement")) is not None:
        found.append((percent(agreement, 0), "of what was kept magnitude would keep too"))
    if smallest := _smallest(run):
        found.append(smallest)
    if latency := _fastest(run):
        found.append(latency)
    if run.info.get("seconds"):
        found.append((duration(run.info["seconds"]), "of training"))
    return found


def _name(entry: Mapping[str, Any]) -> str:
    return " ".join(str(entry[k]) for k in ("format", "quantization") if entry.get(k))


def _smallest(run: Run) -> tuple[str, str] | None:
    if not run.sizes:
        return None
    size = min(run.sizes, key=lambda entry: entry["bytes"])
    largest = max(entry["bytes"] for entry in run.sizes)
    times = largest / size["bytes"]
    smaller = f", {times:.1f} times smaller than the largest format" if times >= 1.05 else ""
    return byte_count(size["bytes"]), f"as {_name(size)}{smaller}"


def _fastest(run: Run) -> tuple[str, str] | None:
    entries = [e for e in run.info.get("latency") or () if e.get("milliseconds")]
    if not entries:
        return None
    entry = min(entries, key=lambda e: e["milliseconds"])
    return f"{entry['milliseconds']:.1f} ms", f"for one input, {_name(entry)}"


def table(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """The `columns` and `rows` of a comparison, without columns that no run fills."""
    metric = next((run.main_metric for run in runs if run.main_metric), None)
    columns: dict[str, list[str | None]] = {
        "run": list(labels),
        "remaining weights": [None if r.remaining is None else percent(r.remaining) for r in runs],
        metric_name(metric or "result"): [
            metric_value(r.main_metric, r.result)
            if r.main_metric and r.result is not None
            else None
            for r in runs
        ],
        "smallest file": [(_smallest(r) or (None,))[0] for r in runs],
        "latency": [(_fastest(r) or (None,))[0] for r in runs],
        "agrees with magnitude": [
            None if r.pruning.get("agreement") is None else percent(r.pruning["agreement"], 0)
            for r in runs
        ],
        "steps": [f"{steps:,.0f}" if (steps := _steps(r)) else None for r in runs],
        "time": [duration(r.info["seconds"]) if r.info.get("seconds") else None for r in runs],
        "seed": [None if r.info.get("seed") is None else str(r.info["seed"]) for r in runs],
    }
    columns = {name: values for name, values in columns.items() if any(values)}
    return {"columns": [*columns], "rows": list(zip(*columns.values()))}


def _steps(run: Run) -> float | None:
    return run.history[-1]["step"] if run.history else None


def facts(run: Run) -> dict[str, Any]:
    """How a run was made: tables by title, `commands`, and a list of what is `missing`."""
    info = run.info
    data = {
        f"{split}, {key}": plain(value)
        for split, found in (info.get("data") or {}).items()
        for key, value in (found.items() if isinstance(found, dict) else [("data", found)])
    }
    metrics = info.get("metrics") or {}
    of_run = {
        "model": info.get("model"),
        "library": info.get("library"),
        "method": info.get("method"),
        "pruned in pieces of": info.get("structure"),
        "seed": info.get("seed"),
        "machine": info.get("machine"),
        "started": info.get("started"),
        "finished": info.get("finished"),
        "time": duration(info["seconds"]) if info.get("seconds") else None,
    }
    tables = {
        "Run": {name: plain(value) for name, value in of_run.items() if value is not None},
        "Results": {metric_name(k): _number(k, v) for k, v in metrics.items()},
        "Data": data,
        "Settings": {name: plain(value) for name, value in (info.get("settings") or {}).items()},
        "Versions": {name: plain(value) for name, value in (info.get("versions") or {}).items()},
    }
    commands = [str(command) for command in info.get("commands") or ()]
    missing = [name.lower() for name, rows in tables.items() if not rows and name != "Run"]
    if not commands:
        missing.append("commands")
    if not info.get("latency"):
        missing.append("latency")
    if info and not info.get("finished"):
        missing.append("the end of the run, which may have been interrupted")
    return {
        "tables": {name: rows for name, rows in tables.items() if rows},
        "commands": commands,
        "missing": missing,
    }


def _number(name: str, value: Any) -> str:
    return metric_value(name, value) if isinstance(value, int | float) else plain(value)
