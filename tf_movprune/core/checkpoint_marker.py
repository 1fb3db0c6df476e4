"""A marker that stands in checkpoints where another object has a variable."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


class Marker(tf.__internal__.tracking.AutoTrackable):
    """Saves an empty tensor, which no variable takes, and refuses to be restored from another."""

    def __init__(self, dtype: tf.DType, refuse: Callable[[], None]):
        super().__init__()
        self._dtype, self._refuse = dtype, refuse

    def _serialize_to_tensors(self):
        return {"VARIABLE_VALUE": tf.zeros([0], self._dtype)}

    def _restore_from_tensors(self, restored_tensors):
        if restored_tensors["VARIABLE_VALUE"].shape != [0]:
            self._refuse()
        return tf.no_op()


def refuse_plain_checkpoint(name: str) -> None:
    """Raises ValueError, for a checkpoint that holds a pruned layer as a plain one."""
    raise ValueError(
        f"The checkpoint holds the layer {name!r} without masks, and the model is pruned. Load "
        "dense weights before tf_movprune.prune_low_movement, whose scores may start from them; or "
        "load weights that a model pruned in the same way saved."
    )
