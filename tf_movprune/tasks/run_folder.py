"""The folder of a run: its record, its phases, and where each file is."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

from tf_movprune.tasks.settings import TrainSettings

FORMAT = 1
_PACKAGES = (
    "tensorflow",
    "keras",
    "keras-hub",
    "tf-keras",
    "transformers",
    "numpy",
    "tensorflow-datasets",
)


class RunFolder:
    """Paths in the folder of a run, and its record in `run.json`.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.record_file = self.path / "run.json"
        self.model = self.path / "model"
        self.teacher = self.path / "teacher"
        self.exports = self.path / "exports"
        self.report = self.path / "report.html"

    def checkpoints(self, phase: str) -> pathlib.Path:
        """The folder of a phase's checkpoints."""
        return self.path / "checkpoint" / phase

    def read(self) -> dict[str, Any]:
        """The record of the run.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is no JSON, or of another format.
        """
        if not self.record_file.is_file():
            raise FileNotFoundError(
                f"{self.path} has no run.json: it is not the folder of a run. Pass the --output_dir "
                "of `tf-movprune train`."
            )
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.record_file} is damaged: {error}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(
                f"{self.record_file} must be a record of format {FORMAT}, got "
                f"{record.get('format') if isinstance(record, dict) else record!r}."
            )
        return record

    def write(self, record: dict[str, Any]) -> None:
        """Replaces the record of the run, at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.record_file, record)

    def update(self, **values: Any) -> dict[str, Any]:
        """Changes entries of the record, and returns it."""
        record = {**self.read(), **values}
        self.write(record)
        return record

    def settings(self) -> TrainSettings:
        """The settings that the run was begun with."""
        return TrainSettings.from_dict(self.read()["settings"])


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file of JSON, which is there whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)


def now() -> str:
    """The time, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    from tf_movprune import __version__

    return {"tf_movprune": __version__, **found}


def machine() -> str:
    """The processor, and how many cores are there."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if "model name" in line)
            return next(names, "") or platform.processor()
    except OSError:
        return platform.processor() or platform.system()
