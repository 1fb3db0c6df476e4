"""Options of `tf-movprune train`, made from the fields of its settings."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from tf_movprune.runs.presets import settings_of
from tf_movprune.runs.record import RunPaths
from tf_movprune.runs.settings import TrainSettings, folder_of
from tf_movprune.runs.unused_options import unused_options

_NO_TEACHER = "none"
GROUPS = ("data", "model", "pruning", "training", "distillation", "run")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each setting, in groups."""
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(TrainSettings):
        if not field.metadata:
            continue
        _add(groups[field.metadata["group"]], field)


def _add(group: Any, field: dataclasses.Field[Any]) -> None:
    text, choices = field.metadata["help"], field.metadata["choices"]
    options: dict[str, Any] = {"default": argparse.SUPPRESS}
    default = field.default
    if default is not None and field.type != "bool":
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += f" ({shown})"
    if field.type == "bool":
        off = f"--no-{field.name}" if default else None
        options |= {"action": argparse.BooleanOptionalAction}
        text += f" (default; {off} turns it off)" if off else ""
    elif str(field.type).startswith("tuple"):
        fixed = "..." not in str(field.type)
        options |= {"type": int, "nargs": 2 if fixed else "+", "metavar": "N"}
    elif choices:
        options |= {"choices": choices}
    else:
        kind = _KINDS[str(field.type).removesuffix(" | None")]
        options |= {"type": kind, "metavar": _METAVARS[kind]}
    group.add_argument(f"--{field.name}", help=text.replace("%", "%%"), **options)


def options_table() -> str:
    """The settings as Markdown: a table for each group, for the documentation."""
    lines = []
    for group in GROUPS:
        lines += [f"## {group.capitalize()}", "", "| option | default | |", "|---|---|---|"]
        for field in dataclasses.fields(TrainSettings):
            if field.metadata.get("group") == group:
                choices = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
                text = field.metadata["help"] + (f": {choices}" if choices else "")
                lines.append(f"| `{field.name}` | {_shown(field.default)} | {text} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _shown(default: Any) -> str:
    if default is None:
        return ""
    text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"`{text}`"


def _step(text: str) -> float | int:
    """A number of steps, or a fraction of the run if it has a point."""
    try:
        return int(text)
    except ValueError:
        return float(text)


_step.__name__ = "number"  # as argparse calls it in messages

_KINDS: dict[str, Any] = {"int": int, "float": float, "str": str, "float | int": _step}
_METAVARS = {int: "N", float: "X", str: "NAME", _step: "STEP"}


def settings_from(arguments: argparse.Namespace) -> TrainSettings:
    """The settings of a preset, if one is named, and of the options that were given.

    In a run that is resumed, its own settings hold if no option is given.

    Raises:
      TypeError, ValueError: see `TrainSettings`; an option has no effect beside the others.
    """
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    given = {k: v for k, v in vars(arguments).items() if k in names}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if given.get("teacher") == _NO_TEACHER:
        given["teacher"] = None
    rest = _settings_before(arguments, given) if arguments.resume else {}
    preset = _preset(arguments, {**rest, **given})
    if "num_train_epochs" in given:
        preset.pop("num_train_steps", None)
    settings = TrainSettings(**{**rest, **preset, **given})
    unused = unused_options(vars(settings))
    for name in given:
        if name in unused:  # with its default, which the settings cannot tell from no option
            raise ValueError(unused[name])
    return settings


def _settings_before(arguments: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run to go on with; none if there is no run."""
    run = RunPaths(folder_of({**_preset(arguments, given), **given}))
    return dataclasses.asdict(run.settings()) if run.record_file.is_file() else {}


def _preset(arguments: argparse.Namespace, others: dict[str, Any]) -> dict[str, Any]:
    if arguments.preset is None:
        return {}
    return settings_of(arguments.preset, arguments.task, others)
