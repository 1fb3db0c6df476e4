"""The snippets of docs/coming_from_pytorch.md, and what its table says of the scripts' flags."""

import pathlib
import re

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tf_movprune

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "coming_from_pytorch.md").read_text()
FEWER_STEPS = {"73_632": "20", "12_000": "4", "epochs=6": "epochs=1"}


@pytest.fixture
def model():
    backbone = keras_hub.models.BertBackbone(99, 1, 2, 16, 32, max_sequence_length=20)
    return keras_hub.models.BertTextClassifier(backbone, 3, preprocessor=None)


@pytest.mark.slow
def test_the_run_on_mnli(model):
    code, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for published, short in FEWER_STEPS.items():
        assert published in code
        code = code.replace(published, short)
    ids = np.random.RandomState(0).randint(0, 99, [80, 8])
    inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids >= 0}
    embeddings = [
        layer for layer in model.backbone.layers if "embedding" in layer.name and layer.weights
    ]
    assert len(embeddings) == 4
    before = [np.array(weight) for layer in embeddings for weight in layer.weights]
    namespace = {
        "keras": keras,
        "model": model,
        "tf_movprune": tf_movprune,
        "train": tf.data.Dataset.from_tensor_slices((inputs, ids[:, 0] % 3)).batch(4),
    }
    exec(code, namespace)
    after = [weight for layer in embeddings for weight in layer.weights]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=0.01)
    assert len(report.weights) == 6


def test_the_flags_of_soft_movement(model):
    _, code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace = {"model": model, "tf_movprune": tf_movprune}
    exec(code, namespace)
    for step in (5_400, 5_401, 24_965, 44_530):  # which the script counts from 1
        left = 1 - (step - 5_400) / (55_330 - 3 * 5_400)
        value = float(namespace["schedule"](tf.constant(step - 1))[1])
        assert value == pytest.approx(0.1 - 0.1 * left**3)


@pytest.mark.parametrize("n", [16, 300])
def test_initial_scores_of_kaiming(n):
    """`kaiming_uniform_(scores, a=sqrt(5))` is uniform up to 1 / sqrt(inputs)."""
    start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=0)
    dense = keras.layers.Dense(400)
    dense.build([None, n])
    method = tf_movprune.HardMovement(start)
    tf_movprune.prune_low_movement(dense, tf_movprune.CubicSparsity(0.9, 0, 9), method)
    scores = dense.movement_kernel.record.paper_scores().numpy()
    assert scores.shape == (n, 400)
    assert np.abs(scores).max() == pytest.approx(n**-0.5, rel=0.01)
    assert np.abs(scores).mean() == pytest.approx(n**-0.5 / 2, rel=0.05)


def test_what_counts_parameters_counts():
    hidden, neurons, layers = 768, 3072, 12
    matrices = layers * (4 * hidden * hidden + 2 * hidden * neurons)
    others = layers * (5 * hidden + neurons + 4 * hidden)  # biases and normalizations
    remaining = (0.1 * matrices + others) / (matrices + others)
    assert f"{100 * remaining:.2f} %" in PAGE
