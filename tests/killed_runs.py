"""Trainings in processes that are killed by SIGKILL and begun again, to be run by themselves.

python killed_runs.py SCENARIO KERAS FOLDER KILLS SEED

Prints JSON: the number of processes that were killed, those that were writing a checkpoint then,
and whether the run that ended by itself has the state of one that was never killed. Processes are
forked before TensorFlow starts its runtime, so that each needs no second to load it.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback

import keras as keras3
import numpy as np
import tensorflow as tf
import tf_keras
import tiny_pretrained
from small_models import X, Y, mlp

import tf_movprune
from tf_movprune import CubicSparsity, HardMovement, Magnitude, SoftMovement
from tf_movprune.runs import training

EPOCHS, STEPS, TASK_STEPS = 30, 4, 60
START = tf_movprune.MagnitudeScores(0.01)
METHODS = {
    "hard": (HardMovement(START), "sgd"),
    "hard-adam": (HardMovement(START), None),
    "global": (HardMovement(START, scope="global"), "sgd"),
    "soft": (SoftMovement(10.0, target=True, score_initializer=START), "sgd"),
    "magnitude": (Magnitude(), None),
}


class Killed:
    """Runs a program in forked processes that are killed, until one ends by itself.

    A program tells `s` after a step, `w` before it writes a checkpoint, and `d` once that is done.

    Args:
      kills: number of processes to kill.
      seed: seed of the moments.
      most_steps: most steps that a process takes before it is killed at one: few enough that a run
        does not end before all kills.

    Attributes:
      killed: number of processes that SIGKILL has ended.
      while_writing: number of those that had begun a checkpoint and not told that it was done.
    """

    def __init__(self, kills: int, seed: int, most_steps: int):
        self._random = random.Random(seed)
        self._left, self._most_steps = kills, most_steps
        self.killed = self.while_writing = 0

    def __call__(self, program) -> None:
        while not self._ends(program):
            pass

    def _ends(self, program) -> bool:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                program(lambda what: os.write(writer, what.encode()))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        told = self._kill(child, reader) if self._left > 0 else ""
        while more := os.read(reader, 4096):
            told += more.decode()
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self._left -= 1
            self.killed += 1
            self.while_writing += told.rfind("w") > told.rfind("d")
            return False
        if status != 0:
            raise RuntimeError(f"a process ended with status {status}")
        return True

    def _kill(self, child: int, reader: int) -> str:
        """Kills a process some steps on, or while it writes its next checkpoint.

        Returns:
          What it has told until then.
        """
        wanted = self._random.choice("sw")  # a step, or a write
        count = self._random.randint(1, self._most_steps) if wanted == "s" else 1
        told = ""
        while count:
            what = os.read(reader, 1).decode()
            if not what:
                return told  # it has ended
            told += what
            count -= what == wanted
        time.sleep(self._random.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        return told


def fit(keras, method, folder, tell):
    """A training by `fit`, which goes on from its last checkpoint."""
    keras.utils.set_random_seed(3)
    pruning, score_optimizer = METHODS[method]
    schedule = CubicSparsity(0.75, 2, EPOCHS * STEPS - 6, frequency=3)
    pruned = tf_movprune.prune_low_movement(mlp(keras), schedule, pruning)
    if score_optimizer is not None:
        score_optimizer = keras.optimizers.SGD(1.0, momentum=0.5)
    optimizer = tf_movprune.create_optimizer(
        0.05, EPOCHS * STEPS, 2, score_optimizer=score_optimizer, model=pruned
    )
    pruned.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first, save = checkpoints(keras, pruned, folder, tell)
    pruned.fit(
        *(X, Y),
        batch_size=len(X) // STEPS,
        initial_epoch=first,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[
            tf_movprune.UpdatePruningStep(num_train_steps=EPOCHS * STEPS),
            save,
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: tell("s")),
        ],
    )
    arrays = [*pruned.weights, *pruned.optimizer.variables]
    np.savez(folder / "state.npz", *(np.array(array) for array in arrays))


def checkpoints(keras, pruned, folder, tell):
    """The epochs before the last checkpoint, and a callback that makes one after each epoch."""
    pruned.optimizer.build(pruned.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=pruned, optimizer=pruned.optimizer)
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), max_to_keep=2)
    manager.restore_or_initialize()

    def save(epoch, logs):
        tell("w")
        manager.save(checkpoint_number=epoch + 1)
        tell("d")

    done = int(pruned.optimizer.iterations) // STEPS
    return done, keras.callbacks.LambdaCallback(on_epoch_end=save)


def task_run(library, folder, tell):
    """A run of `tf_movprune.train`, which goes on by itself."""

    def telling_update(steps):
        callback = update(steps)
        then = callback.on_train_batch_end
        callback.on_train_batch_end = lambda batch, logs=None: (then(batch, logs), tell("s"))
        return callback

    def telling_save(self, step):
        tell("w")
        save(self, step)
        tell("d")

    update, save = training.UpdatePruningStep, training.Checkpoints.save
    training.UpdatePruningStep, training.Checkpoints.save = telling_update, telling_save
    training.report = lambda *args: None
    data = folder / "data"
    if not data.exists():
        tiny_pretrained.write_data("sst2", data)
    is_begun = (folder / "run" / "run.json").is_file()
    settings = tiny_pretrained.settings(
        "sst2",
        folder / "run",
        data_dir=str(data),
        library=library,
        num_train_steps=TASK_STEPS,
        save_every=2,
        evaluations=2,
    )
    record = training.train(settings, resume=is_begun, verbose=0)
    model = training.shell_of(library).load_saved(str(folder / "run" / "model"), None)
    np.savez(folder / "state.npz", *(np.array(weight) for weight in model.weights))
    text = json.dumps(record["metrics"]) + (folder / "run" / "history.jsonl").read_text()
    (folder / "history.txt").write_text(text)


def program_of(scenario: str, keras_name: str, folder: pathlib.Path):
    """A function of a way to tell what happens, for `Killed`."""
    keras = {"keras": keras3, "tf_keras": tf_keras}[keras_name]
    if scenario == "task":
        library = {"keras": "keras_hub", "tf_keras": "transformers"}[keras_name]
        return lambda tell: task_run(library, folder, tell)
    return lambda tell: fit(keras, scenario, folder, tell)


def main() -> None:
    scenario, keras_name, place, kills, seed = sys.argv[1:]
    straight, killed = (pathlib.Path(place) / name for name in ("straight", "killed"))
    straight.mkdir(parents=True), killed.mkdir()
    if scenario == "task":
        tiny_pretrained.folder()  # once for all processes
    most_steps = 3 if scenario == "task" else STEPS + 2
    Killed(0, 0, most_steps)(program_of(scenario, keras_name, straight))
    killing = Killed(int(kills), int(seed), most_steps)
    killing(program_of(scenario, keras_name, killed))
    with np.load(straight / "state.npz") as one, np.load(killed / "state.npz") as other:
        is_same = one.files == other.files and all(
            np.array_equal(one[name], other[name]) for name in one.files
        )
    if scenario == "task":
        histories = [(folder / "history.txt").read_text() for folder in (straight, killed)]
        is_same &= histories[0] == histories[1]
    found = {"killed": killing.killed, "while_writing": killing.while_writing, "is_same": is_same}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
