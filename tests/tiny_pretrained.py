"""A tiny pretrained BERT for tasks, and settings of runs that take seconds."""

import functools
import pathlib
import re
import tempfile

import pretrained_bert
import task_files

from tf_movprune.runs.settings import TrainSettings

_OTHERS = "no is the not again who what where which a film was of one two three"


@functools.cache
def folder():
    """A BERT of two layers with the words of the tasks' files and single characters."""
    path = pathlib.Path(tempfile.mkdtemp()) / "bert"
    path.mkdir()
    words = [*task_files.GOOD, *task_files.BAD, *task_files.NOUNS, *_OTHERS.split()]
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'\"-()"
    pieces = [f"##{c}" for c in characters if re.match(r"\w", c)]
    return pretrained_bert.write(path, [*dict.fromkeys([*words, *characters]), *pieces])


def settings(task, output_dir, **changes):
    """Settings of a run of a few steps, without XLA."""
    return TrainSettings(
        task=task,
        output_dir=str(output_dir),
        **{
            "model": folder(),
            "num_train_steps": 10,
            "batch_size": 8,
            "evaluations": 1,
            "lengths": (48,),
            "max_length": 48,
            "xla": False,
            **changes,
        },
    )
