"""Calls of layers that a gradient computes anew, as `tf.recompute_grad` does, and their noise."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager.record import could_possibly_record

from tf_movprune.core.call_stack import callers

CUSTOM_GRADIENT = "tensorflow.python.ops.custom_gradient"
"""Name of the module of `tf.custom_gradient` and `tf.recompute_grad`."""

_RECOMPUTED = (CUSTOM_GRADIENT, "inner")  # which records nothing at first
_GRADIENTS = {
    ("tensorflow.python.eager.backprop", "gradient"),
    ("tensorflow.python.ops.gradients_util", "_GradientsHelper"),
}


def is_recorded() -> bool:
    """Returns whether a tape records what is computed, or what `tf.recompute_grad` wraps around."""
    if could_possibly_record():
        return True
    if _RECOMPUTED not in callers():
        return False
    pywrap_tfe.TFE_Py_TapeSetRestartOnThread()  # tapes are paused, which hides whether any is there
    try:
        return could_possibly_record()
    finally:
        pywrap_tfe.TFE_Py_TapeSetStopOnThread()


def is_recomputed() -> bool:
    """Returns whether no tape records what is computed, and a gradient computes it anew."""
    return not could_possibly_record() and _RECOMPUTED in callers()


class CallModes:
    """Remembers in which modes a layer was called, for gradients that compute it anew.

    They call it in no mode, and it has to draw the noise of the last call that they may be of.

    Args:
      layer: name of the layer, for messages.
    """

    def __init__(self, layer: str):
        self.layer = layer
        self._last: Any = None
        self._recorded: set[bool] = set()
        self._was_recomputed = False

    def mode_of_call(self, training: Any) -> Any:
        """The value of `training` for the call of the layer that runs.

        Args:
          training: the value that Keras knows.

        Raises:
          ValueError: a gradient computes the layer anew that a tape recorded in both modes.
        """
        if not _GRADIENTS.isdisjoint(callers()):
            self._was_recomputed = True
            if len(self._recorded) > 1:
                raise ValueError(
                    f"The pruned layer {self.layer!r} was called with training=True and with "
                    "training=False before a gradient that computes it anew, which cannot know "
                    "whether to draw noise. Call it in one mode within a tape, or leave "
                    "tf.recompute_grad out."
                )
            return self._last
        is_on_tape = is_recorded()
        if is_on_tape:
            if self._was_recomputed:
                self._recorded.clear()
            self._was_recomputed = False
            if not tf.is_tensor(training):
                self._recorded.add(bool(training))
        if is_on_tape or not tf.executing_eagerly():
            self._last = None if tf.is_tensor(training) else training
        return training
