"""Methods that one model has in place of its class's."""

from __future__ import annotations

from typing import Any


class InstanceMethod:
    """A callable in the place of a method of one model, which its clones do not take over."""


def take_back_methods(layer: Any) -> None:
    """Gives a layer the methods of its class again."""
    for name, value in list(vars(layer).items()):
        if isinstance(value, InstanceMethod):
            del vars(layer)[name]
