"""The folder of a run: its record, its phases, and where each file is."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

from tf_movprune.core.json_files import read_object
from tf_movprune.reports.run_folder import FORMAT, RUN, write_json
from tf_movprune.runs.settings import KINDS, LIBRARIES, TrainSettings

_DESCRIPTION = "tf_movprune.json"
_DESCRIBED: dict[str, Callable[[Any], bool]] = {
    "kind": lambda value: value in (*KINDS, "questions"),
    "label_names": lambda value: (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    ),
    **dict.fromkeys(("max_length", "stride"), lambda value: type(value) is int and value > 0),
    "has_unanswerable": lambda value: isinstance(value, bool),
    "is_pair": lambda value: value is None or isinstance(value, bool),
}
"""These functions tell whether a run can have written a value of a model's description."""
_PACKAGES = (
    "tensorflow",
    "keras",
    "keras-hub",
    "tf-keras",
    "transformers",
    "numpy",
    "tensorflow-datasets",
)


class RunPaths:
    """Paths in the folder of a run, and its record in `run.json`.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.record_file = self.path / RUN
        self.model = self.path / "model"
        self.teacher = self.path / "teacher"
        self.report = self.path / "report.html"
        self.lock = self.path / "run.lock"

    def history(self, phase: str) -> pathlib.Path:
        """The folder that the history of a phase is recorded in; of "train" that of the run."""
        return self.path if phase == "train" else self.path / "phases" / phase

    @property
    def all_checkpoints(self) -> pathlib.Path:
        """The folder of the checkpoints of all phases."""
        return self.path / "checkpoint"

    def checkpoints(self, phase: str) -> pathlib.Path:
        """The folder of a phase's checkpoints."""
        return self.all_checkpoints / phase

    def predictions(self, split: str) -> pathlib.Path:
        """The file of the predictions on a split."""
        return self.path / f"predictions-{split}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """A scope in which no other process writes into the folder.

        The operating system ends a lock with its process, so that one that was killed leaves none.

        Raises:
          RuntimeError: another process is in such a scope.
        """
        import filelock

        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.lock, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RuntimeError(
                f"Another process is training in {self.path}. Wait for its end, or pass another "
                "--output_dir."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def read(self) -> dict[str, Any]:
        """The record of the run.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is no JSON object, or of another format.
        """
        if not self.record_file.is_file():
            raise FileNotFoundError(
                f"{self.path} has no run.json: it is not the folder of a run. Pass the "
                "--output_dir of `tf-movprune train`."
            )
        record = read_object(self.record_file)
        if record.get("format") != FORMAT:
            raise ValueError(
                f"{self.record_file} must be a record of format {FORMAT}, got "
                f"{reprlib.repr(record.get('format'))}."
            )
        return record

    def write(self, record: dict[str, Any], **values: Any) -> dict[str, Any]:
        """Replaces the record of the run, at once, and returns it.

        Args:
          record: the entries of the record.
          **values: more of them, or others in their place.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record = {**record, **values}
        write_json(self.record_file, record)
        return record

    def update(self, **values: Any) -> dict[str, Any]:
        """Changes entries of the record, and returns it."""
        return self.write(self.read(), **values)

    def settings(self) -> TrainSettings:
        """The settings that the run was begun with.

        Raises:
          ValueError: they are not those of this version.
        """
        record = self.read()
        try:
            return TrainSettings.from_dict(record["settings"])
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(
                f"The settings in {self.record_file} are not those of this version of tf_movprune: "
                f"{error}"
            ) from error

    def library(self) -> str:
        """The library of the run's model, "keras_hub" or "transformers".

        Raises:
          ValueError: the record does not tell.
        """
        library = self.read().get("library")
        if library not in LIBRARIES:
            raise ValueError(
                f"{self.record_file} must have a library of {', '.join(LIBRARIES)}, got "
                f"{reprlib.repr(library)}."
            )
        return str(library)


def check_folder(run: RunPaths, settings: TrainSettings, *, resume: bool) -> dict[str, Any]:
    """The record of the run to go on with; an empty one if the run is new.

    Raises:
      FileExistsError: there is a run, and it is not to be resumed.
      FileNotFoundError: there is no run to resume.
      ValueError: the run that is there has other settings.
    """
    if not run.record_file.exists():
        if resume:
            raise FileNotFoundError(f"{run.path} has no run to go on with. Leave --resume out.")
        return {}
    if not resume:
        raise FileExistsError(
            f"{run.path} has a run already. Pass --resume to go on with it, or another "
            "--output_dir."
        )
    record = run.read()
    _check_same(run.settings().as_dict(), settings.as_dict(), run)
    return record


def new_record(settings: TrainSettings) -> dict[str, Any]:
    """The record of a run that begins."""
    return {
        "format": FORMAT,
        "task": settings.task,
        "model": settings.model_or_default,
        "model_is_local": pathlib.Path(settings.model_or_default).exists(),
        "library": settings.library,
        "method": settings.method,
        "structure": settings.structure,
        "final_sparsity": settings.final_sparsity if settings.prunes_to_target else None,
        "distilled": settings.teacher is not None,
        "seed": settings.seed,
        "settings": settings.as_dict(),
        "versions": versions(),
        "machine": machine(),
        "started": now(),
        "finished": None,
    }


def check_packages() -> None:
    """Raises ImportError if a package is missing that the end of a run needs."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'Runs need {", ".join(missing)}. Install it with `pip install "tf_movprune[tasks]"`.'
        )


def check_same_data(before: dict[str, Any], now: dict[str, Any], run: RunPaths) -> None:
    """Raises ValueError if a run that is resumed would see other data than before."""
    for split, found in now.items():
        if found["fingerprint"] != before.get(split, {}).get("fingerprint"):
            raise ValueError(
                f"The {split} data of the run in {run.path} are not what they were: "
                f"{found['source']} or the tokenizer has changed. Put them back, or start anew in "
                "another output_dir."
            )


_PLACES = ("output_dir", "cache_dir", "data_dir", "train_file", "validation_file", "save_every")
"""Settings that may be others when a run is resumed: they change no numbers."""
_NEEDED = ("filelock", "jinja2", "matplotlib", "sklearn", "zstandard")


def _check_same(before: dict[str, Any], now: dict[str, Any], run: RunPaths) -> None:
    now = {k: v for k, v in now.items() if k not in _PLACES}
    changed = [f"{k} {before[k]!r} -> {now[k]!r}" for k in now if now[k] != before[k]]
    if changed:
        raise ValueError(
            f"The run in {run.path} has other settings: {', '.join(changed)}. Leave them as they "
            "were, or start anew in another output_dir."
        )


def write_description(folder: pathlib.Path, **values: Any) -> None:
    """Writes what a model is for beside it: its task, labels and length."""
    write_json(folder / _DESCRIPTION, values)


def description_of(folder: pathlib.Path) -> dict[str, Any]:
    """The values that `write_description` wrote; empty if there are none.

    Raises:
      ValueError: the file holds something else.
    """
    file = folder / _DESCRIPTION
    found = read_object(file) if file.is_file() else {}
    for name, is_right in _DESCRIBED.items():
        if name in found and not is_right(found[name]):
            raise ValueError(
                f"{file} has {name} {reprlib.repr(found[name])}, which no run wrote. Copy the "
                "folder of the model again."
            )
    return found


def model_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder of the model in the folder of a run; other folders, and files, themselves.

    Raises:
      FileNotFoundError: there is nothing, or the run has no model yet.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no folder or file {path}.")
    run = RunPaths(path)
    if not run.record_file.is_file():
        return path
    if not run.model.is_dir():
        raise FileNotFoundError(f"{path} is a run without a model yet: resume it first.")
    return run.model


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
