"""Rates of the layers of a model that drop out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_RATES = ("rate", "drop_prob")  # of both Kerases; of Hugging Face's DeBERTa


def set_dropout(name: str, layers: Iterable[Any], rate: float) -> None:
    """Sets the rate of all layers that drop out. Those that never do stay as they are.

    Configurations keep the rates of before, so that copies and files have these.

    Args:
      name: the name of the model, for messages.
      layers: all its layers.
      rate: fraction of the values that are dropped in training, in [0, 1).

    Raises:
      ValueError: a layer of dropout has no rate that is known; or `rate` is above 0, and there is
        no layer that drops out. No rate has changed then.
    """
    dropouts = [layer for layer in layers if _is_dropout(layer)]
    for layer in dropouts:
        if _rate_of(layer) is None:
            raise ValueError(
                f"{name!r} has a layer of dropout, {layer.name!r}, whose class "
                f"{type(layer).__name__} has no rate that could be set. Leave dropout out."
            )
    active = [layer for layer in dropouts if getattr(layer, str(_rate_of(layer))) > 0]
    if rate > 0 and not active:
        raise ValueError(
            f"dropout is {rate}, and {name!r} has no layer that drops out. Leave dropout out."
        )
    for layer in active:
        setattr(layer, str(_rate_of(layer)), rate)


def _is_dropout(layer: Any) -> bool:
    return any("Dropout" in kind.__name__ for kind in type(layer).__mro__)


def _rate_of(layer: Any) -> str | None:
    """The attribute with the rate of a layer of dropout."""
    numbers = (name for name in _RATES if isinstance(getattr(layer, name, None), float | int))
    return next(numbers, None)
