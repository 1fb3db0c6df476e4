"""Checkpoints of training: everything that a resumed run needs to go on as if it had not stopped.

Beside the weights these are scores, masks, the optimizer's slots and step, and the seeds of
dropout. The position in the data is a function of the step.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import tensorflow as tf


class Checkpoints:
    """The last checkpoints of a phase.

    Args:
      folder: folder for the checkpoints of this phase alone.
      variables: all variables, in an order that is the same in each process.
    """

    def __init__(self, folder: pathlib.Path, variables: Sequence[tf.Variable]):
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._variables = {f"v{i:05d}": variable for i, variable in enumerate(variables)}
        self._checkpoint = tf.train.Checkpoint(step=self._step, **self._variables)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=2)

    def save(self, step: int) -> None:
        """Writes a checkpoint; those before the last one are removed."""
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)

    def restore(self) -> int:
        """Restores the last checkpoint, and returns its step; 0 if there is none.

        Raises:
          ValueError: the checkpoint is of other variables.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return 0
        found = dict(tf.train.list_variables(path))
        for name, variable in self._variables.items():
            shape = found.get(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")
            if shape != list(variable.shape):
                raise ValueError(
                    f"The checkpoint {path} is not one of this run: {variable.name} has the shape "
                    f"{list(variable.shape)}, and {shape} there. Start anew in another output_dir."
                )
        self._checkpoint.restore(path).assert_consumed()
        return int(self._step)
