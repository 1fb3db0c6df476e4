"""The loss of the last steps, which Keras only shows as a mean over the epoch so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


class LossWindow:
    """Takes the mean of the loss since the last call out of the metric with which Keras counts it.

    Train steps of one's own may not use that metric. What they log as `loss` is taken then.

    Args:
      model: a model of either Keras.
    """

    def __init__(self, model: Any):
        self._model = model
        self._total, self._count = 0.0, 0.0

    def since_last(self, logs: Mapping[str, Any]) -> float | None:
        """The mean loss since the last call or the begin of the epoch; None if there is none."""
        total, count = self._sums()
        if count < self._count:  # a new epoch
            self._total, self._count = 0.0, 0.0
        steps, loss = count - self._count, total - self._total
        self._total, self._count = total, count
        if steps > 0:
            return loss / steps
        return float(logs["loss"]) if "loss" in logs else None

    def _sums(self) -> tuple[float, float]:
        for metric in self._model.metrics:
            if metric.name == "loss" and hasattr(metric, "total") and hasattr(metric, "count"):
                return _number(metric.total), _number(metric.count)
        return 0.0, 0.0


def _number(variable: Any) -> float:
    return float(tf.convert_to_tensor(variable))
