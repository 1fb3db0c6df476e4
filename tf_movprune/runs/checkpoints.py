"""Checkpoints of training: everything that a resumed run needs to go on as if it had not stopped.

Beside the weights these are scores, masks, the optimizer's slots and step, and the seeds of
dropout. The position in the data is a function of the step.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tf_movprune.core.finite_check import NotFiniteError


class Checkpoints:
    """The last checkpoints of a phase.

    Args:
      folder: folder for the checkpoints of this phase alone.
      variables: all variables, in an order that is the same in each process.
    """

    def __init__(self, folder: pathlib.Path, variables: Sequence[tf.Variable]):
        self._folder = pathlib.Path(folder)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._variables = {f"v{i:05d}": variable for i, variable in enumerate(variables)}
        self._checkpoint = tf.train.Checkpoint(step=self._step, **self._variables)
        state = self._folder / "checkpoint"
        if state.is_file() and not state.read_text(encoding="utf-8", errors="replace").strip():
            state.unlink()  # a process that died has left it empty
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=2)

    def save(self, step: int) -> None:
        """Writes a checkpoint; those before the last one are removed.

        Raises:
          OSError: it cannot be written, as when the disk is full. Earlier ones are kept.
        """
        self._step.assign(step)
        try:
            self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            raise OSError(
                f"The checkpoint of step {step} cannot be written into {self._folder}: "
                f"{error.message} Make room, and go on with --resume: earlier ones are kept."
            ) from error

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """A scope of training, in which NotFiniteError says which checkpoint there is before it."""
        try:
            yield
        except NotFiniteError as error:
            last = self._manager.latest_checkpoint
            kept = f"The last checkpoint is {last}" if last else "There is no checkpoint yet"
            remedy = (
                f"{kept}. --resume would take the same steps again: begin anew in another "
                "--output_dir, with a lower --learning_rate or --clipnorm, or in --precision "
                "float32."
            )
            raise NotFiniteError(error.fault, remedy) from error

    def restore(self) -> int:
        """Restores the last checkpoint that can be read, and returns its step; 0 if there is none.

        Raises:
          ValueError: the checkpoints are of other variables, or none of them can be read.
        """
        steps = {_number(path): path.with_suffix("") for path in self._folder.glob("ckpt-*.index")}
        errors = []
        for number in sorted(steps, reverse=True):
            path = str(steps[number])
            try:
                self._check_variables(path)
                self._checkpoint.restore(path).assert_consumed()
            except (tf.errors.OpError, IndexError, AssertionError) as error:
                errors.append(f"{path}: {error}")
                continue
            return int(self._step)
        if errors:
            raise ValueError(
                f"No checkpoint in {self._folder} can be read. Remove the folder to begin this "
                f"phase anew. {errors[0]}"
            )
        return 0

    def _check_variables(self, path: str) -> None:
        found = dict(tf.train.list_variables(path))
        for name, variable in self._variables.items():
            shape = found.get(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")
            if shape != list(variable.shape):
                raise ValueError(
                    f"The checkpoint {path} is not one of this run: {variable.name} has the shape "
                    f"{list(variable.shape)}, and {shape} there. Start anew in another output_dir."
                )


def _number(path: pathlib.Path) -> int:
    return int(path.stem.removeprefix("ckpt-"))
