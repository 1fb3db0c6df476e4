"""Runs the core tests with other releases, each combination in an environment of its own.

    python tests/matrix.py [ROW ...] [-- ARGUMENTS OF PYTEST]

Prints a table for docs/versions.md. It needs no package itself: `python3.10` and others are taken
from the PATH, and a combination whose Python is missing is skipped by name. Without rows it runs
all of them. The status is 1 if a row fails, or if none could run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).parents[1]
EXTRAS = "tasks,transformers,tflite"
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "pytest-timeout>=2.3")
SUITE = (
    "keras2/test_compat.py",
    "keras3",
    "test_callbacks.py",
    "test_kernel_usage.py",
    "test_libraries.py",
    "test_pruning.py",
    "test_recomputation.py",
    "test_traced_functions.py",
    "test_training_guard.py",
    "test_training_mode.py",
    "test_versions.py",
)
LIBRARIES = ("tensorflow", "keras", "tf_keras", "keras-hub", "transformers", "numpy")


@dataclasses.dataclass(frozen=True)
class Combination:
    """A row: a Python, and what pip is asked for beside the package.

    Args:
      python: its version, as in the name of the interpreter.
      pins: requirements of pip.
      constraints: file of constraints in the root, or None.
    """

    python: str
    pins: tuple[str, ...] = ()
    constraints: str | None = None


COMBINATIONS = {
    "oldest": Combination("3.11", constraints="requirements-oldest.txt"),
    "tensorflow-2.19": Combination(
        "3.11", ("tensorflow==2.19.*", "keras==3.10.*", "keras-hub==0.21.*", "transformers==4.50.*")
    ),
    "tensorflow-2.20": Combination("3.12", ("tensorflow==2.20.*", "keras==3.12.*")),
    "newest": Combination("3.11"),
    "python-3.10": Combination("3.10"),
    "python-3.12": Combination("3.12"),
    "python-3.13": Combination("3.13"),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a row; `versions` are those of `LIBRARIES`, or empty if it did not run."""

    name: str
    python: str
    versions: dict[str, str]
    outcome: str
    is_failure: bool = False


def interpreter(version: str) -> str | None:
    """The command of a Python, or None if there is none that runs."""
    command = shutil.which(f"python{version}")
    if command is None:
        return None
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([command, "-c", code], capture_output=True, text=True, check=False)
    return command if done.stdout.strip() == version else None


def run(name: str, combination: Combination, arguments: list[str]) -> Result:
    """Makes the environment of a row anew, and runs the tests in it."""
    command = interpreter(combination.python)
    if command is None:
        print(f"SKIPPED {name}: no python{combination.python} runs on this machine.", flush=True)
        return Result(name, combination.python, {}, f"skipped: no Python {combination.python}")
    folder = ROOT / ".venv-matrix" / name
    subprocess.run([command, "-m", "venv", "--clear", folder], check=True)
    python = folder / "bin" / "python"
    constraints = ["-c", combination.constraints] if combination.constraints else []
    install = [python, "-m", "pip", "install", "--quiet", *constraints, *combination.pins]
    print(f"Installing {name} ...", flush=True)
    if subprocess.run([*install, f".[{EXTRAS}]", *TOOLS], cwd=ROOT, check=False).returncode:
        return Result(name, combination.python, {}, "not installable", is_failure=True)
    report = folder / "results.xml"
    tests = [f"tests/{path}" for path in SUITE]
    options = ["-n", "2", "--dist", "loadfile", "-m", "not slow"]
    start = time.perf_counter()
    status = subprocess.run(
        [python, "-m", "pytest", *options, f"--junitxml={report}", *tests, *arguments],
        cwd=ROOT,
        check=False,
    ).returncode
    minutes = (time.perf_counter() - start) / 60
    outcome = f"{counts(report)} in {minutes:.0f} min"
    python_version, *versions = installed(python)
    found = dict(zip(LIBRARIES, versions))
    return Result(name, python_version, found, outcome, is_failure=bool(status))


def installed(python: pathlib.Path) -> list[str]:
    """The versions of Python and of `LIBRARIES` in an environment; a dash for what it lacks."""
    code = f"""
import importlib.metadata, json, platform
found = [platform.python_version()]
for name in {LIBRARIES!r}:
    try:
        found.append(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        found.append("–")
print(json.dumps(found))
"""
    return json.loads(subprocess.check_output([python, "-c", code], text=True))


def counts(report: pathlib.Path) -> str:
    """Numbers of tests in a JUnit file, as in `"350 passed, 2 skipped"`."""
    if not report.exists():
        return "no result"
    numbers = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in xml.etree.ElementTree.parse(report).iter("testsuite"):
        for key in numbers:
            numbers[key] += int(suite.get(key, 0))
    failed = numbers["failures"] + numbers["errors"]
    passed = numbers["tests"] - failed - numbers["skipped"]
    parts = {"failed": failed, "passed": passed, "skipped": numbers["skipped"]}
    return ", ".join(f"{n} {what}" for what, n in parts.items() if n) or "no test"


def table(results: list[Result]) -> str:
    """A table in Markdown, with a line for each row."""
    heads = ["row", "Python", *LIBRARIES, "tests"]
    lines = [heads, ["---"] * len(heads)]
    for result in results:
        versions = [result.versions.get(name, "") for name in LIBRARIES]
        lines.append([result.name, result.python, *versions, result.outcome])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    names, arguments = given[:split] or list(COMBINATIONS), given[split + 1 :]
    unknown = [name for name in names if name not in COMBINATIONS]
    if unknown:
        sys.exit(f"Expected rows among {', '.join(COMBINATIONS)}, got {', '.join(unknown)}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    results = [run(name, COMBINATIONS[name], arguments) for name in names]
    print(f"\n{table(results)}")
    ran = [result for result in results if result.versions]
    sys.exit(int(not ran or any(result.is_failure for result in results)))


if __name__ == "__main__":
    main()
