"""The releases of other libraries that the package works with, checked when it first uses them."""

from __future__ import annotations

import re
from types import ModuleType
from typing import NamedTuple


class Range(NamedTuple):
    """The releases from `first` on, and before `end` if that is not None."""

    first: str
    end: str | None = None


SUPPORTED = {
    "keras": Range("3.8", "4"),
    "keras_hub": Range("0.19"),
    "tensorflow": Range("2.18", "2.22"),
    "tf_keras": Range("2.18", "2.22"),
    "transformers": Range("4.46", "4.55"),
}
"""The keys are names of modules. `setup.py` asks pip for the same releases."""


def check_versions(*modules: ModuleType) -> None:
    """Raises ImportError if libraries that were imported are of releases that are not supported.

    pip installs no others, unless it is told to ignore what the package needs.

    Args:
      modules: modules in `SUPPORTED`, each with its `__version__`.
    """
    wrong = [module for module in modules if not _is_supported(module)]
    if wrong:
        expected = " and ".join(_words(module.__name__) for module in wrong)
        found = " and ".join(f"{module.__name__} {module.__version__}" for module in wrong)
        needed = " ".join(f'"{_requirement(module.__name__)}"' for module in wrong)
        raise ImportError(f"Expected {expected}, got {found}. Run `pip install {needed}`.")


def _is_supported(module: ModuleType) -> bool:
    first, end = SUPPORTED[module.__name__]
    release = _release(module.__version__)
    return _release(first) <= release and (end is None or release < _release(end))


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: those of `"2.21.0-rc1"` are 2, 21 and 0."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _words(name: str) -> str:
    first, end = SUPPORTED[name]
    return f"{name} from {first} on" + (f" and before {end}" if end else "")


def _requirement(name: str) -> str:
    first, end = SUPPORTED[name]
    return f"{name.replace('_', '-')}>={first}" + (f",<{end}" if end else "")
