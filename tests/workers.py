"""One of several workers that train a pruned model together, to be run by itself.

python workers.py FOLDER STEP CASE ...

Workers find each other by TF_CONFIG, as those of MultiWorkerMirroredStrategy do; without it the
process trains alone, on the joint batches. It goes on from the last checkpoint in FOLDER/CASE, and
dies by SIGKILL after a step, if that is not 0. FOLDER/CASE/NAME.npz gets the weights, scores, masks
and slots at the end, and a checksum of masks, scores and thresholds after each step.
"""

import json
import os
import pathlib
import signal
import sys
import zlib

import numpy as np
import tensorflow as tf
import tf_keras as keras
from shells import kernels

import tf_movprune
from tf_movprune import CubicSparsity, CubicThreshold, HardMovement, Magnitude, SoftMovement

STEPS_PER_EPOCH, EPOCHS, BATCH = 4, 4, 8
STEPS = STEPS_PER_EPOCH * EPOCHS
START = tf_movprune.MagnitudeScores(0.01)
RAMP = CubicSparsity(0.75, begin_step=1, end_step=12)
METHODS = {
    "hard": (RAMP, HardMovement(START), {}),
    "global": (RAMP, HardMovement(START, scope="global"), {}),
    "soft": (CubicThreshold(0.1, 1, 12), SoftMovement(1.0), {}),
    "target": (RAMP, SoftMovement(10.0, target=True, score_initializer=START), {}),
    "magnitude": (RAMP, Magnitude(), {}),
    "L0": (None, tf_movprune.L0(1.0), {}),
    "neurons": (RAMP, HardMovement(START), {"block_size": tf_movprune.NEURONS}),
    "heads": (RAMP, HardMovement(START), {"block_size": tf_movprune.HEADS}),
    "distilled": (RAMP, HardMovement(START), {}),
}


def mlp(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(16, "relu", name="first"), keras.layers.Dense(16, name="second")]
    return keras.Sequential([keras.Input([8]), *layers, keras.layers.Dense(3, name="out")])


def attention(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input([8])
    rows = keras.layers.Reshape([2, 4])(inputs)
    rows = keras.layers.MultiHeadAttention(4, 4, use_bias=False, name="attention")(rows, rows)
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(keras.layers.Flatten()(rows)))


def rows(task):
    """Endless batches of one worker: its half of each joint batch, in the order of the workers."""
    random = np.random.RandomState(0)
    x = random.standard_normal([STEPS_PER_EPOCH * BATCH, 8]).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    if task is not None:
        half = slice(task * BATCH // 2, (task + 1) * BATCH // 2)
        x, y = (a.reshape([-1, BATCH, *a.shape[1:]])[:, half] for a in (x, y))
        x, y = (a.reshape([-1, *a.shape[2:]]) for a in (x, y))
    size = BATCH if task is None else BATCH // 2
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size).repeat()


def values(variables):
    """The values of variables on the replica of this process."""
    return [getattr(variable, "values", [variable])[0].numpy() for variable in variables]


def trained_model(case):
    """A pruned model, and what is trained: that model, or a Distiller of it."""
    schedule, method, arguments = METHODS[case]
    make = attention if case == "heads" else mlp
    pruned = tf_movprune.prune_low_movement(make(1), schedule, method, **arguments)
    trained = tf_movprune.Distiller(pruned, mlp(2)) if case == "distilled" else pruned
    optimizer = tf_movprune.create_optimizer(
        *(0.01, STEPS, 2), score_optimizer=keras.optimizers.SGD(1.0), model=pruned
    )
    trained.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trained.optimizer.build(pruned.trainable_variables)
    return pruned, trained


def checkpoints(trained, pruned, folder, task):
    """A manager of checkpoints, of which the first worker's are those that all go on from."""
    checkpoint = tf.train.Checkpoint(model=pruned, optimizer=trained.optimizer)
    place = folder / ("checkpoints" if not task else f"unused-{task}")
    manager = tf.train.CheckpointManager(checkpoint, str(place), max_to_keep=2)
    last = tf.train.latest_checkpoint(str(folder / "checkpoints"))
    if last is not None:
        checkpoint.restore(last).assert_existing_objects_matched()
    return manager, int(last.rpartition("-")[2]) if last else 0


def train(case, folder, strategy, task, death):
    with strategy.scope():
        pruned, trained = trained_model(case)
        manager, first = checkpoints(trained, pruned, folder, task)
    seen = []

    def look(batch, logs):
        state = [v for k in kernels(pruned) for v in (k.mask, k.scores, k.threshold)]
        of_worker = values(v for v in state if v is not None)
        seen.append(zlib.crc32(b"".join(value.tobytes() for value in of_worker)))
        if first * STEPS_PER_EPOCH + len(seen) == death:
            os.kill(os.getpid(), signal.SIGKILL)

    if task is None:
        data = rows(task)
    else:  # `fit` would divide the batches of each worker once more
        data = strategy.distribute_datasets_from_function(lambda context: rows(task))
    history = trained.fit(
        data,
        steps_per_epoch=STEPS_PER_EPOCH,
        initial_epoch=first,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[
            tf_movprune.UpdatePruningStep(num_train_steps=STEPS),
            keras.callbacks.LambdaCallback(
                on_train_batch_end=look,
                on_epoch_end=lambda epoch, logs: manager.save(checkpoint_number=epoch + 1),
            ),
        ],
    )
    x = np.random.RandomState(1).standard_normal([4, 8]).astype("float32")
    masked, state = pruned(x).numpy(), values([*pruned.weights, *trained.optimizer.variables])
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(x), masked)
    name = "alone" if task is None else f"worker-{task}"
    stripped.save_weights(str(folder / f"{name}.weights.h5"))
    tf_movprune.export_saved_model(stripped, str(folder / name))
    exported = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    np.testing.assert_allclose(*exported(tf.constant(x)).values(), masked, rtol=1e-5, atol=1e-6)
    np.savez(
        folder / f"{name}.npz",
        *state,
        seen=seen,
        loss=history.history["loss"],
        sparsity=tf_movprune.summarize_sparsity(stripped).sparsity,
    )


def main():
    place, death, *cases = sys.argv[1:]
    config = json.loads(os.environ.get("TF_CONFIG", "null"))
    if config is None:
        task, strategy = None, tf.distribute.get_strategy()
    else:
        task, strategy = config["task"]["index"], tf.distribute.MultiWorkerMirroredStrategy()
    for case in cases:
        folder = pathlib.Path(place) / case
        folder.mkdir(parents=True, exist_ok=True)
        train(case, folder, strategy, task, int(death))


if __name__ == "__main__":
    main()
