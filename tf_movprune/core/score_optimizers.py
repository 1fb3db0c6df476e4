"""Checks of the optimizer that movement scores have for themselves."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

_SETTINGS = (
    "weight_decay",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "use_ema",
    "gradient_accumulation_steps",
    "loss_scale_factor",
)


def check_settings(config: Mapping[str, Any]) -> float:
    """Checks the configuration of an optimizer that is to train scores; returns its rate.

    Raises:
      ValueError: it wraps another one, its learning rate is no number, or it has a setting that
        would take no part in training.
    """
    if "inner_optimizer" in config:
        raise ValueError(
            "score_optimizer must not wrap another optimizer. Give the inner one, and scale the "
            "loss by a LossScaleOptimizer around what create_optimizer returns."
        )
    rate = config.get("learning_rate")
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise ValueError(
            "score_optimizer must have a number as its learning rate, got "
            f"{rate!r}: it follows the warm-up and decay of the weights' rate."
        )
    for name in _SETTINGS:
        if config.get(name):
            raise ValueError(
                f"score_optimizer must not set {name}, got {config[name]}: scores are not decayed, "
                "and clipped and trained together with the weights. Set it on create_optimizer, or "
                "to None."
            )
    return float(rate)


def check_no_average(use_ema: bool) -> None:
    """Raises ValueError if an optimizer with a score optimizer averages its variables."""
    if use_ema:
        raise ValueError(
            "use_ema averages all variables, and scores that have an optimizer of their own "
            "cannot be averaged. Leave out score_optimizer, or use_ema."
        )
