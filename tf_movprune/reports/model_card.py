"""Model cards in the format of the Hugging Face hub, written from the record of a run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_choice
from tf_movprune.core.matrix_places import MATRIX_TITLES, place_of
from tf_movprune.reports.evaluated_on import evaluated_on, is_part
from tf_movprune.reports.formats import (
    byte_count,
    method_title,
    metric_name,
    metric_value,
    percent,
)
from tf_movprune.reports.loading_snippets import COMPACTED, KINDS, loading_snippet

_PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "questions": "question-answering",
}
_LIBRARIES = {"keras_hub": "keras-hub"}  # names on the hub, if they are others
_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
_GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")
_DATASETS = {
    **dict.fromkeys(_GLUE, "nyu-mll/glue"),
    **dict.fromkeys(("squad", "squad_v1", "squad_v1.1"), "rajpurkar/squad"),
    **dict.fromkeys(("squad_v2", "squad_v2.0"), "rajpurkar/squad_v2"),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_card(info: Mapping[str, Any], kind: str, *, is_pair: bool = False) -> str:
    """A README.md for the folder of a model, as far as the run tells.

    Args:
      info: contents of the `run.json` of a run. `license`, `language` and `label_names` are used
        too if they are there; nothing is guessed of a license.
      kind: "classification", "regression" or "questions".
      is_pair: whether the model reads two texts at a time.

    Raises:
      ValueError: `kind` is another one.
    """
    check_choice("kind", kind, KINDS)
    front = "\n".join(f"{key}: {_yaml(value)}" for key, value in _metadata(info, kind).items())
    parts = [f"---\n{front}\n---", f"# {_title(info)}", _introduction(info)]
    parts += [_results(info), _pruned(info)]
    parts.append(f"## How to load\n\n{loading_snippet(info, kind, is_pair=is_pair)}")
    parts.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(info)))
    commands = [_printable(_without_places(str(c))) for c in info.get("commands") or ()]
    if lines := "\n".join(filter(None, commands)):
        parts.append(f"## How it was made\n\n```sh\n{lines}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(info: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The front matter, without what is not known."""
    task, model = info.get("task"), str(info.get("model") or "")
    library = info.get("library")
    is_pruned = info.get("method") not in (None, "dense")
    tags = ["movement-pruning", "pruned", "sparse"] if is_pruned else ["fine-tuned"]
    base = "" if _is_local(info) else model.removeprefix("hf://")
    found = {
        "language": info.get("language") or ("en" if task in _DATASETS else None),
        "license": info.get("license"),
        "library_name": _LIBRARIES.get(str(library), library),
        "pipeline_tag": _PIPELINES[kind],
        "tags": [*tags, "tf_movprune"],
        "base_model": base if _HUB_NAME.fullmatch(base) else None,
        "datasets": [_DATASETS[task]] if task in _DATASETS else None,
        "metrics": list(
            dict.fromkeys(
                _METRICS.get(metric, metric)
                for metric in (evaluated_on(info, name).metric for name in _metrics(info))
            )
        ),
        "model-index": _index(info, kind),
    }
    return {key: value for key, value in found.items() if value}


def _index(info: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    task, metrics = info.get("task"), _metrics(info)
    if not metrics or not task:
        return []
    dataset = {"name": str(info.get("title") or task), "type": _DATASETS.get(task, str(task))}
    if task in _GLUE:
        dataset["config"] = task
    results: dict[str, dict[str, Any]] = {}
    for name, value in metrics.items():
        on = evaluated_on(info, name)
        title = dataset["name"] if on.is_whole else f"{dataset['name']}, {on.text}"
        result = {
            "task": {"type": _PIPELINES[kind], "name": _PIPELINES[kind].replace("-", " ")},
            "dataset": {**dataset, "name": title, "split": on.split},
            "metrics": [],
        }
        results.setdefault(on.text, result)["metrics"].append(
            {
                "type": _METRICS.get(on.metric, on.metric),
                "name": metric_name(on.metric),
                "value": round(value, 5),
            }
        )
    return [{"name": _title(info), "results": list(results.values())}]


def _metrics(info: Mapping[str, Any]) -> dict[str, float]:
    """The results of a run, without losses."""
    found = info.get("metrics") or {}
    return {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not str(name).endswith("loss")
    }


def _is_local(info: Mapping[str, Any]) -> bool:
    """Returns True if a model started from a folder on the machine that it was trained on."""
    model = str(info.get("model") or "")
    return info.get("model_is_local", bool(re.match(r"[/~.\\]|\w:", model)))


def _model(info: Mapping[str, Any]) -> str:
    """The model that training started from; of a folder the last part alone."""
    model = str(info.get("model") or "A model")
    return _last_part(model) if _is_local(info) else model


def _title(info: Mapping[str, Any]) -> str:
    model = _model(info).split("/")[-1]
    task = info.get("title") or info.get("task")
    remaining = info.get("remaining")
    text = f"{model} for {task}" if task else model
    if remaining is not None and remaining < 1:
        text += f", its encoder pruned to {percent(remaining)}"
    return _printable(text)


def _introduction(info: Mapping[str, Any]) -> str:
    method, task = info.get("method"), info.get("title") or info.get("task")
    text = f"`{_model(info)}`" + (", a local model," if _is_local(info) else ",")
    text += f" fine-tuned on {_part_of_training_data(info)}{task}" if task else " fine-tuned"
    if method not in (None, "dense"):
        text += f" while {method_title(str(method))} chose which of its weights stay"
    if info.get("distilled"):
        text += " and a dense teacher showed it what to answer"
    return _printable(f"{text}. Made with `tf_movprune`.")


def _part_of_training_data(info: Mapping[str, Any]) -> str:
    """The number of examples that were chosen to train on, as text; empty for all of them."""
    found = (info.get("data") or {}).get("train") or {}
    is_chosen = is_part(found, (info.get("settings") or {}).get("max_train_examples"))
    return f"{found['examples']:,} examples, chosen at random, of " if is_chosen else ""


def _results(info: Mapping[str, Any]) -> str:
    rows = []
    for name, value in _metrics(info).items():
        on = evaluated_on(info, name)
        rows.append((f"{metric_name(on.metric)} on {on.text}", metric_value(on.metric, value)))
    if info.get("remaining") is not None:
        rows.append(("prunable weights that remain", percent(info["remaining"])))
    for size in info.get("sizes") or ():
        name = " ".join(str(size[k]) for k in ("format", "quantization") if size.get(k))
        if size.get("bytes") and not name.startswith(("bound", "bitmap")):
            rows.append((f"size, {name}", byte_count(size["bytes"])))
    for latency in info.get("latency") or ():
        if latency.get("milliseconds"):
            name = " ".join(str(latency[k]) for k in ("format", "quantization") if latency.get(k))
            rows.append((f"latency, {name}", f"{latency['milliseconds']:.1f} ms"))
    if not rows:
        return ""
    machine = f"\n\nMeasured on {_cell(info['machine'])}." if info.get("machine") else ""
    return f"## Results\n\n{_table(('', 'result'), rows)}{machine}"


def _pruned(info: Mapping[str, Any]) -> str:
    """A table of what remains of each kind of matrix."""
    if info.get("method") in (None, "dense"):
        return ""
    text = {
        "weights": "Single weights were pruned: what is pruned is zero.",
        "blocks": "Blocks of weights were pruned: what is pruned is zero.",
    }.get(str(info.get("structure")), "")
    if info.get("structure") in COMPACTED:
        text = "Whole attention heads or neurons were pruned, and removed: matrices are smaller."
    sums: dict[str, np.ndarray] = {}
    for path, weight in ((info.get("sparsity") or {}).get("weights") or {}).items():
        title = place_of(path).title
        numbers = np.array([weight["remaining"], weight["total"]])
        sums[title] = sums.get(title, np.zeros(2, np.int64)) + numbers
    order = {title: i for i, title in enumerate(MATRIX_TITLES)}
    titles = sorted(sums, key=lambda title: order.get(title, len(order)))
    rows = [(t, percent(sums[t][0] / sums[t][1]), f"{sums[t][1]:,}") for t in titles[:40]]
    table = _table(("matrices", "remaining", "of weights"), rows) if rows else ""
    return "\n\n".join(part for part in ("## What was pruned", text, table) if part)


def _limits(info: Mapping[str, Any]) -> Iterator[str]:
    is_pruned = info.get("method") not in (None, "dense")
    if is_pruned and info.get("structure") not in COMPACTED:
        yield (
            "The zeros lie in ordinary dense matrices. They make compressed files smaller, but "
            "most runtimes do not compute faster with them."
        )
    if is_pruned and info.get("structure") in COMPACTED:
        yield "Loaders that do not know of removed heads and neurons refuse the weights: see above."
    seed = f" with seed {info['seed']}" if info.get("seed") is not None else ""
    yield f"The results are those of one run{seed}. Other seeds give somewhat other results."
    if is_pruned:
        yield (
            "Pruning costs rare cases more than frequent ones. Measure on your own data before "
            "relying on the model."
        )
    yield "What the base model has learned from its training data, errors and biases too, remains."


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: Any) -> str:
    return _printable(str(text)).replace("|", "\\|")


def _without_places(command: str) -> str:
    """A command line without where files were on the machine.

    Keeps the last part of absolute paths, and of those that leave the folder of the command.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # it was not written by a shell
        return ""
    found = []
    for word in words:
        option, equals, value = word.rpartition("=")
        found.append(f"{option}{equals}{_last_part(value)}" if _PLACE.search(value) else word)
    return shlex.join(found)


_PLACE = re.compile(r"^[/\\~]|^\w:[/\\]|(^|[/\\])\.\.([/\\]|$)")
"""Paths that tell of the machine: absolute ones, those of a home, and those with ".." in them."""


def _last_part(path: str) -> str:
    """The last part of a path; "." if it has no name of its own."""
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return "." if last in ("", "..") or re.fullmatch(r"~.*|\w:", last) else last


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c == "\u202f")


def _yaml(value: Any) -> str:
    """A value in JSON, which YAML includes, over several lines if it is long."""
    text = _printable(json.dumps(value, ensure_ascii=False))
    if len(text) <= 90:
        return text
    lines = json.dumps(value, ensure_ascii=False, indent=2).splitlines()
    return "\n  ".join(["", *map(_printable, lines)])
