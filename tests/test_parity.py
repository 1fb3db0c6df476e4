"""Step-by-step agreement with runs of the paper's own PyTorch code, through the public API."""

import json
import os
import pathlib

import numpy as np
import pytest
import tf_keras as keras
from safetensors.numpy import load_file

import tf_movprune

transformers = pytest.importorskip("transformers")

TRACES = pathlib.Path(
    os.environ.get(
        "TF_MOVPRUNE_REFERENCE_TRACES",
        pathlib.Path(__file__).parents[2] / "shared" / "reference_traces",
    )
)

needs_traces = pytest.mark.skipif(
    not TRACES.is_dir(), reason=f"no traces of the reference code at {TRACES}"
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
    """The masks that each step used."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def on_train_batch_end(self, batch, logs=None):
        layers = {
            layer.layer: layer
            for layer in self.model.submodules
            if isinstance(layer, tf_movprune.PruneLowMovement)
        }
        self.masks.append(
            {id(layer): wrapper.masks[0].numpy() for layer, wrapper in layers.items()}
        )


def layer_at(model, path):
    layer = model
    for name in path.split("."):
        layer = layer[int(name)] if name.isdigit() else getattr(layer, name)
    return layer


def train_like(run, method, jit_compile):
    folder = TRACES / run
    trace = json.loads((folder / "trace.json").read_text())
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
        jit_compile=jit_compile,
    )
    batches = dict(np.load(folder / "batches.npz"))
    labels = batches.pop("labels")

    def one_by_one():
        for step in range(trace["steps"]):
            yield {name: values[step] for name, values in batches.items()}, labels[step]

    recorder = Recorder()
    history = trained.fit(
        one_by_one(),
        steps_per_epoch=1,
        epochs=trace["steps"],
        callbacks=[tf_movprune.UpdatePruningStep(), recorder],
        verbose=0,
    )
    return folder, trace, model, layers, recorder.masks, history.history


@needs_traces
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "run, method",
    [
        ("hard_topk", tf_movprune.HardMovement()),
        ("hard_topk_distilled", tf_movprune.HardMovement()),
        ("magnitude", tf_movprune.Magnitude()),
        ("soft_l1", tf_movprune.SoftMovement(final_lambda=1000.0)),
    ],
)
def test_trains_like_the_reference(run, method, jit_compile):
    folder, trace, _, layers, step_masks, logs = train_like(run, method, jit_compile)

    reference = load_file(folder / "step_masks.safetensors")
    flips = np.array(
        [
            sum(
                np.sum(reference[f"{step}/{matrix}"] != step_masks[step][id(layer.layer)].T)
                for matrix, layer in layers.items()
            )
            for step in range(trace["steps"])
        ]
    )
    first_flip = int(np.argmax(flips > 0)) if flips.any() else trace["steps"]
    losses = [(logs["loss"], trace["total_loss"])]
    if trace["teacher"]:
        losses.append((logs["ce_loss"], trace["loss"]))
    for received, expected in losses:
        np.testing.assert_allclose(received[:first_flip], expected[:first_flip], rtol=1e-5)
    size = sum(layer.masks[0].shape.num_elements() for layer in layers.values())
    assert np.all(flips <= 0.005 * size)
    assert first_flip == trace["steps"]

    final = load_file(folder / "final_masks.safetensors")
    for matrix, layer in layers.items():
        np.testing.assert_array_equal(layer.masks[0].numpy().T, final[matrix])
