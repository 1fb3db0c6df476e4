"""Step-by-step agreement with trainings in PyTorch, through the public API.

`parity/` holds traces of an independent implementation, `parity/make_traces.py`. Traces of the
paper's own code are not part of this project; they are replayed too if they are at hand.
"""

import gzip
import itertools
import json
import os
import pathlib

import numpy as np
import pytest
import tf_keras as keras
import transformers
from safetensors.numpy import load

import tf_movprune

OWN = pathlib.Path(__file__).parent / "parity"
AUTHORS = pathlib.Path(
    os.environ.get(
        "TF_MOVPRUNE_REFERENCE_TRACES",
        pathlib.Path(__file__).parents[2] / "shared" / "reference_traces",
    )
)

PYTORCH_TO_TF = {
    ".attention.self.": ".attention.self_attention.",
    ".attention.output.dense": ".attention.dense_output.dense",
    ".output.dense": ".bert_output.dense",
}


def tf_path(matrix):
    for old, new in PYTORCH_TO_TF.items():
        if old in matrix:
            return matrix.replace(old, new)
    return matrix


class Recorder(keras.callbacks.Callback):
    """The masks that each step used, named and laid out like those of the traces."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.masks = {}
        self.steps = itertools.count()

    def on_train_batch_end(self, batch, logs=None):
        self.masks |= masks_of(self.layers, f"{next(self.steps)}/")


def masks_of(layers, prefix=""):
    return {
        f"{prefix}{matrix}": layer.kernels[0].mask.numpy().T for matrix, layer in layers.items()
    }


def load_masks(folder, name):
    packed = folder / f"{name}.safetensors.gz"
    if packed.exists():
        return load(gzip.decompress(packed.read_bytes()))
    return load((folder / f"{name}.safetensors").read_bytes())


def layer_at(model, path):
    layer = model
    for name in path.split("."):
        layer = layer[int(name)] if name.isdigit() else getattr(layer, name)
    return layer


def train_like(folder, trace, method, jit_compile):
    """Trains by the settings of a trace: the pruned layers, the masks of each step and the logs."""
    model = transformers.TFBertForSequenceClassification.from_pretrained(folder)
    model.bert.embeddings.trainable = False
    begin = trace["iw"] * trace["warmup"]
    end = trace["steps"] - trace["fw"] * trace["warmup"]
    if method.schedule_value == "threshold":
        schedule = tf_movprune.CubicThreshold(trace["final"], begin, end, trace["init"])
    else:
        schedule = tf_movprune.CubicSparsity(1 - trace["final"], begin, end, 1 - trace["init"])
    tf_movprune.prune_low_movement(
        model,
        schedule,
        method,
        score_learning_rate_multiplier=trace["score_lr"] / trace["lr"],
    )
    layers = {matrix: layer_at(model, tf_path(matrix)) for matrix in trace["masked_matrices"]}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained = model
    if trace["teacher"]:
        teacher = transformers.TFBertForSequenceClassification.from_pretrained(folder / "teacher")
        trained = tf_movprune.Distiller(
            model, teacher, trace["T"], trace["alpha_distil"], trace["alpha_ce"]
        )
        loss = None
    trained.compile(
        optimizer=tf_movprune.create_optimizer(
            trace["lr"], trace["steps"], trace["warmup"], trace["wd"], clipnorm=trace["clip"]
        ),
        loss=loss,
        metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="task_loss")],
        jit_compile=jit_compile,
    )
    batches = dict(np.load(folder / "batches.npz"))
    labels = batches.pop("labels")

    def one_by_one():
        for step in range(trace["steps"]):
            yield {name: values[step] for name, values in batches.items()}, labels[step]

    recorder = Recorder(layers)
    history = trained.fit(
        one_by_one(),
        steps_per_epoch=1,
        epochs=trace["steps"],
        callbacks=[tf_movprune.UpdatePruningStep(), recorder],
        verbose=0,
    )
    return layers, recorder.masks, history.history


@pytest.fixture(autouse=True)
def refresh_like_the_step(request, jit_compile):
    """XLA compiles the refresh where it compiles the step; test_trajectory.py has all methods."""
    if not jit_compile:
        request.getfixturevalue("refresh_without_xla")


HARD, MAGNITUDE = tf_movprune.HardMovement(), tf_movprune.Magnitude()
OWN_RUNS = [
    ("hard", HARD, True),
    ("hard_global", tf_movprune.HardMovement(scope="global"), False),
    ("hard_distilled", HARD, False),
    ("soft", tf_movprune.SoftMovement(final_lambda=150.0), True),
    ("magnitude", MAGNITUDE, False),
]
AUTHORS_RUNS = [
    pytest.param(run, method, jit_compile, marks=pytest.mark.slow if jit_compile else ())
    for run, method in [
        ("hard_topk", HARD),
        ("hard_topk_distilled", HARD),
        ("magnitude", MAGNITUDE),
        ("soft_l1", tf_movprune.SoftMovement(final_lambda=1000.0)),
    ]
    for jit_compile in (False, True)
]


@pytest.mark.parametrize("run, method, jit_compile", OWN_RUNS)
def test_trains_like_an_independent_implementation(run, method, jit_compile):
    check_parity(OWN / run, method, jit_compile)


@pytest.mark.skipif(not AUTHORS.is_dir(), reason=f"no traces of the authors' code at {AUTHORS}")
@pytest.mark.parametrize("run, method, jit_compile", AUTHORS_RUNS)
def test_trains_like_the_authors_code(run, method, jit_compile):
    check_parity(AUTHORS / run, method, jit_compile)


def check_parity(folder, method, jit_compile):
    trace = json.loads((folder / "trace.json").read_text())
    layers, step_masks, logs = train_like(folder, trace, method, jit_compile)

    np.testing.assert_allclose(logs["loss"], trace["total_loss"], rtol=1e-5)
    np.testing.assert_allclose(logs["task_loss"], trace["loss"], rtol=1e-5)
    np.testing.assert_equal(step_masks, load_masks(folder, "step_masks"))
    np.testing.assert_equal(masks_of(layers), load_masks(folder, "final_masks"))
