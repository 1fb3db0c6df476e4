"""The steps of an optimizer of either Keras: how many it has taken, and over how many batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def inner_optimizer(optimizer: Any) -> Any:
    """An optimizer, without the loss scaling around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def step_of(model: Any) -> int:
    """The number of steps that a compiled model's optimizer has taken."""
    iterations = inner_optimizer(model.optimizer).iterations
    return int(tf.convert_to_tensor(iterations))  # `int` refuses mirrored variables


def accumulation_steps(optimizer: Any) -> int:
    """Number of batches over which an optimizer says that it sums gradients; 1 if it says nothing.

    Those of Keras 3 do. Keras 2 has none of its own, but others may say so in the same way.
    """
    return int(getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None) or 1)
