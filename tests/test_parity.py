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
import transformers
from safetensors.numpy import load
from shells import keras_of, kernels

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


def recorder(keras, layers):
    """A callback that keeps the masks of each step, named and laid out like those of the traces."""

    class Recorder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.masks = {}
            self.steps = itertools.count()

        def on_train_batch_end(self, batch, logs=None):
            self.masks |= masks_of(layers, f"{next(self.steps)}/")

    return Recorder()


def masks_of(layers, prefix=""):
    return {f"{prefix}{matrix}": matrix_of(layer).T for matrix, layer in layers.items()}


def matrix_of(layer):
    """The mask of a layer as that of a matrix [in, out]; KerasHub's kernels have heads besides."""
    mask = kernels(layer)[0].mask.numpy()
    if mask.ndim == 2:
        return mask
    outputs = mask.shape[-1] if "output" in layer.name else -1
    return mask.reshape([-1, outputs] if outputs > 0 else [mask.shape[0], -1])


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


def hugging_face(folder):
    """The model of a trace in tf_keras, the layers of its matrices once pruned, and its inputs."""
    model = transformers.TFBertForSequenceClassification.from_pretrained(folder)
    model.bert.embeddings.trainable = False
    return model, lambda matrix: layer_at(model, tf_path(matrix)), {}


def keras_hub(folder):
    """The same in Keras 3."""
    from keras_hub_berts import sequence_classifier

    config = json.loads((folder / "config.json").read_text())
    weights = load((folder / "model.safetensors").read_bytes())
    model, matrices = sequence_classifier(config, weights)
    names = {
        "input_ids": "token_ids",
        "attention_mask": "padding_mask",
        "token_type_ids": "segment_ids",
    }
    return model, matrices.__getitem__, names


SHELLS = {"tf_keras": hugging_face, "keras": keras_hub}


def train_like(folder, trace, method, jit_compile, shell):
    """Trains by the settings of a trace: the pruned layers, the masks of each step and the logs."""
    keras = keras_of(shell)
    model, layer_of, names = SHELLS[shell](folder)
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
    layers = {matrix: layer_of(matrix) for matrix in trace["masked_matrices"]}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained = model
    if trace["teacher"]:
        teacher, _, _ = SHELLS[shell](folder / "teacher")
        trained = tf_movprune.Distiller(
            model, teacher, trace["T"], trace["alpha_distil"], trace["alpha_ce"]
        )
        loss = None
    optimizer = tf_movprune.create_optimizer(
        trace["lr"],
        trace["steps"],
        trace["warmup"],
        trace["wd"],
        clipnorm=trace["clip"],
        model=trained,
    )
    metric = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="task_loss")
    trained.compile(optimizer, loss, metrics=[metric], jit_compile=jit_compile)
    batches = dict(np.load(folder / "batches.npz"))
    labels = batches.pop("labels")

    def one_by_one():
        for step in range(trace["steps"]):
            inputs = {names.get(name, name): values[step] for name, values in batches.items()}
            yield inputs, labels[step]

    record = recorder(keras, layers)
    history = trained.fit(
        one_by_one(),
        steps_per_epoch=1,
        epochs=trace["steps"],
        callbacks=[tf_movprune.UpdatePruningStep(), record],
        verbose=0,
    )
    return layers, record.masks, history.history


HARD, MAGNITUDE = tf_movprune.HardMovement(), tf_movprune.Magnitude()
OWN_METHODS = {
    "hard": HARD,
    "hard_global": tf_movprune.HardMovement(scope="global"),
    "hard_distilled": HARD,
    "soft": tf_movprune.SoftMovement(final_lambda=150.0),
    "magnitude": MAGNITUDE,
}
AUTHORS_METHODS = {
    "hard_topk": HARD,
    "hard_topk_distilled": HARD,
    "magnitude": MAGNITUDE,
    "soft_l1": tf_movprune.SoftMovement(final_lambda=1000.0),
}


def runs(methods, quick):
    """All methods by all shells with and without XLA; those that are not `quick` are slow."""
    for run, method in methods.items():
        for shell in SHELLS:
            for jit_compile in (False, True):
                is_quick = (shell, jit_compile) in quick.get(run, quick["others"])
                marks = () if is_quick else pytest.mark.slow
                yield pytest.param(run, method, jit_compile, shell, marks=marks)


OWN_RUNS = runs(
    OWN_METHODS,
    {
        "hard": [("keras", True), ("tf_keras", False)],
        "hard_global": [],
        "hard_distilled": [],  # the authors' runs have one
        "others": [("keras", False), ("tf_keras", False)],
    },
)
AUTHORS_RUNS = runs(
    AUTHORS_METHODS,
    {"hard_topk": [("keras", False), ("tf_keras", False)], "others": [("keras", False)]},
)


@pytest.mark.parametrize("run, method, jit_compile, shell", OWN_RUNS)
def test_trains_like_an_independent_implementation(run, method, jit_compile, shell):
    check_parity(OWN / run, method, jit_compile, shell)


@pytest.mark.skipif(not AUTHORS.is_dir(), reason=f"no traces of the authors' code at {AUTHORS}")
@pytest.mark.parametrize("run, method, jit_compile, shell", AUTHORS_RUNS)
def test_trains_like_the_authors_code(run, method, jit_compile, shell):
    check_parity(AUTHORS / run, method, jit_compile, shell)


def check_parity(folder, method, jit_compile, shell):
    trace = json.loads((folder / "trace.json").read_text())
    layers, step_masks, logs = train_like(folder, trace, method, jit_compile, shell)

    np.testing.assert_allclose(logs["loss"], trace["total_loss"], rtol=1e-5)
    np.testing.assert_allclose(logs["task_loss"], trace["loss"], rtol=1e-5)
    np.testing.assert_equal(step_masks, load_masks(folder, "step_masks"))
    np.testing.assert_equal(masks_of(layers), load_masks(folder, "final_masks"))
