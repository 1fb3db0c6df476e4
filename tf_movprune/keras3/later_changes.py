"""Refusal of changes of pruned Keras 3 layers that would go past their masks."""

from __future__ import annotations

from typing import Any

from tf_movprune.keras3.compat import Layer

_METHODS = ("quantize", "enable_lora")


class _Refusal:
    """A method of a pruned layer, or of what it is in, that raises.

    `original` is what the layer itself had in its place; None if it had that of its class.
    """

    def __init__(self, layer: Layer, name: str):
        self.layer, self.name, self.original = layer.name, name, vars(layer).get(name)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"{self.layer!r} has pruned layers, whose masks would not reach what {self.name}() "
            f"adds. Train it first, and call {self.name}() on what tf_movprune.strip_pruning "
            "returns."
        )


def refuse_changes(layer: Layer) -> None:
    """Makes quantization and LoRA of a pruned layer, or of what it is in, raise."""
    for name in _METHODS:
        if hasattr(layer, name):
            vars(layer)[name] = _Refusal(layer, name)


def allow_changes(layer: Layer) -> None:
    """Undoes `refuse_changes`."""
    for name in _METHODS:
        refusal = vars(layer).get(name)
        if isinstance(refusal, _Refusal):
            del vars(layer)[name]
            if refusal.original is not None:
                vars(layer)[name] = refusal.original
