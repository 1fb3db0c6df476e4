"""The choice of a shell: of the package that prunes models of the Keras that a model is of."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def shell_name(obj: Any) -> str:
    """`"keras2"` for objects and classes of tf_keras, `"keras3"` for those of Keras 3.

    Raises:
      TypeError: it is of neither.
    """
    cls = obj if isinstance(obj, type) else type(obj)
    packages = _packages(cls)
    if "tf_keras" in packages:
        return "keras2"
    if "keras" in packages:
        return "keras3"
    raise TypeError(
        "Expected a model or layer of Keras 3 or tf_keras, got "
        f"{cls.__name__ if isinstance(obj, type) else repr(obj)}."
    )


def is_of_keras(obj: Any) -> bool:
    """Returns whether an object, or a class, is of Keras 3 or tf_keras."""
    cls = obj if isinstance(obj, type) else type(obj)
    return bool({"keras", "tf_keras"} & _packages(cls))


def _packages(cls: type) -> set[str]:
    return {base.__module__.split(".")[0] for base in cls.__mro__}


def module_for(obj: Any, name: str) -> Any:
    """The module of that name in the shell for an object or class.

    Raises:
      TypeError: the object is of neither Keras.
    """
    return importlib.import_module(f"tf_movprune.{shell_name(obj)}.{name}")


def module_without_model(name: str) -> Any:
    """The module in the shell for tf_keras if that is loaded, and else in the one for Keras 3."""
    shell = "keras2" if "tf_keras" in sys.modules else "keras3"
    return importlib.import_module(f"tf_movprune.{shell}.{name}")
