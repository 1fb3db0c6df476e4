"""A tiny pretrained BERT for tasks, and settings of runs that take seconds."""

import functools
import pathlib
import tempfile

import pretrained_bert
import task_files

from tf_movprune.runs.settings import TrainSettings
from tf_movprune.runs.training import train

_OTHERS = "no is the not again who what where which a film was of one two three how first then end"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@functools.cache
def folder(layers=1, hidden=32):
    """A BERT that knows the words of the tasks' files, and single characters."""
    path = pathlib.Path(tempfile.mkdtemp()) / "bert"
    path.mkdir()
    words = [*task_files.GOOD, *task_files.BAD, *task_files.NOUNS, *_OTHERS.split()]
    known = dict.fromkeys([*words, *_CHARACTERS, *".,?!'\"-–—()"])
    return pretrained_bert.write(path, [*known, *(f"##{c}" for c in _CHARACTERS)], layers, hidden)


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
            "evaluation_batch_size": 8,
            "xla": False,
            **changes,
        },
    )


def write_data(task, path):
    """Writes the files of a task into a folder, and returns it."""
    if task.startswith("squad"):
        return task_files.write_squad(path, "v2.0" if task == "squad_v2" else "v1.1")
    return task_files.write_glue(path, task)


def run(task, path, *, resume=False, **changes):
    """Trains on a task's files, which are written into a folder, and returns the record."""
    data_dir = path / "data"
    if not data_dir.exists():
        write_data(task, data_dir)
    chosen = settings(task, path / "run", data_dir=str(data_dir), **changes)
    return train(chosen, resume=resume, verbose=0)
