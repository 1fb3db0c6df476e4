"""Statistics of pruned models, from records of masked kernels."""

import json

import numpy as np
import pytest
import tensorflow as tf
from records import kernel_of, matrix, weight

import tf_movprune
from tf_movprune.core.granularity import HEADS, NEURONS, Blocks
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.pruning_statistics import pruning_statistics
from tf_movprune.core.score_statistics import score_statistics

SHAPES = {"query": (4, 2, 3), "key": (4, 2, 3), "value": (4, 2, 3), "attention_output": (2, 3, 4)}


def statistics(layers, head_count=None):
    found = pruning_statistics(layers, head_count)
    json.dumps(found, allow_nan=False)
    return found


def layer(kernel, name="kernel"):
    return [kernel], [(name, kernel.parts[0].weight)]


def random_mask(shape, seed, share=0.5):
    return np.random.RandomState(seed).uniform(size=shape) < share


def encoder(reshape=lambda shape: shape):
    """One layer of a transformer with two heads of three, under random masks."""
    layers, masks = {}, {}
    shapes = {**SHAPES, "intermediate": (4, 8), "output": (8, 4)}
    for seed, (name, shape) in enumerate(shapes.items()):
        kernel = matrix(*(shape if name in ("intermediate", "output") else reshape(shape)))
        masks[name] = random_mask(shape, seed, 0.2)
        kernel.mask.assign(masks[name].reshape(kernel.mask.shape))
        layers[f"layer_0.{name}"] = layer(kernel)
    return layers, masks


FLAT = {(4, 2, 3): (4, 6), (2, 3, 4): (6, 4)}


@pytest.mark.parametrize("is_flat", (False, True))
def test_an_encoder_by_matrix_head_and_neuron(is_flat):
    layers, masks = encoder(FLAT.get if is_flat else lambda shape: shape)
    found = statistics(layers, head_count=2 if is_flat else None)
    titles = [(m["layer"], m["title"]) for m in found["matrices"]]
    assert titles == [(0, name.replace("_", " ")) for name in masks]
    assert [m["remaining"] for m in found["matrices"]] == [m.sum() for m in masks.values()]
    assert found["total"] == 4 * 24 + 2 * 32
    kept = sum(masks[n].sum(axis=(0, 2)) for n in ("query", "key", "value"))
    kept = kept + masks["attention_output"].sum(axis=(1, 2))
    (heads,) = found["heads"]
    np.testing.assert_allclose(heads["remaining"], kept / 48, atol=1e-5)
    neurons = masks["intermediate"].any(axis=0) & masks["output"].any(axis=1)
    assert found["neurons"] == [{"layer": 0, "kept": neurons.sum(), "total": 8}]


def test_heads_are_left_out_if_their_number_is_not_known():
    layers, _ = encoder(FLAT.get)
    assert statistics(layers)["heads"] == []
    assert statistics(layers, head_count=5)["heads"] == []


def test_heads_that_share_keys_are_left_out():
    layers = {
        "layer_0.query": layer(matrix(4, 4, 3)),
        "layer_0.key": layer(matrix(4, 2, 3)),
    }
    assert statistics(layers)["heads"] == []


def test_heads_and_neurons_that_masks_decide_on():
    heads = kernel_of([Part(weight(4, 6), 1), Part(weight(6, 4), 0)], (3,), block_size=HEADS)
    neurons = kernel_of([Part(weight(4, 8), 1), Part(weight(8, 4), 0)], (8,), block_size=NEURONS)
    heads.mask.assign([True, False, True])
    neurons.mask.assign(np.arange(8) < 3)
    layers = {
        f"layer_2.{name}": ([kernel], [("kernel", part.weight)])
        for names, kernel in ((("query", "attention_output"), heads), (("one", "two"), neurons))
        for name, part in zip(names, kernel.parts)
    }
    found = statistics(layers)
    assert found["heads"] == [{"layer": 2, "remaining": [1.0, 0.0, 1.0]}]
    assert found["neurons"] == [{"layer": None, "kept": 3, "total": 8}]
    assert [group["pieces"] for group in found["groups"]] == ["heads", "neurons"]
    assert found["remaining"] == 2 * 16 + 2 * 12


def test_agreement_of_a_matrix():
    kernel = matrix(4, 5)
    magnitude = np.abs(kernel.parts[0].weight.numpy())
    kernel.mask.assign(magnitude >= np.sort(magnitude, axis=None)[-5])
    found = statistics({"one": layer(kernel)})
    (row,) = found["matrices"]
    assert (row["layer"], row["title"]) == (None, "one.kernel")
    assert (row["agreement"], found["agreement"]) == (1.0, 1.0)


METHODS = {
    "hard": (tf_movprune.HardMovement(scope="global"), tf_movprune.CubicSparsity(0.75, 0, 4)),
    "soft": (tf_movprune.SoftMovement(), tf_movprune.CubicThreshold(0.1, 0, 4)),
    "magnitude": (tf_movprune.Magnitude(), tf_movprune.CubicSparsity(0.75, 0, 4)),
    "l0": (tf_movprune.L0(), None),
}


@pytest.mark.parametrize("name", METHODS)
def test_scores_of_each_method(name):
    method, schedule = METHODS[name]
    kernels = [matrix(30, 40, method=method, schedule=schedule) for _ in range(2)]
    for seed, kernel in enumerate(kernels):
        kernel.mask.assign(random_mask((30, 40), seed))
        kernel.threshold.assign(0.25)
        kernel.parts[0].weight.assign(1200 * seed + np.arange(1200).reshape(30, 40))
        if kernel.scores is not None:
            kernel.scores.assign(np.random.RandomState(seed).uniform(-1e-3, 1e-3, [30, 40]))
    found = score_statistics(kernels, ["one", "other"])
    assert (found["shown"], found["threshold"]) == (None, 0.25)
    histogram = found["histogram"]
    masks = np.stack([kernel.mask.numpy() for kernel in kernels])
    assert sum(histogram["kept"]) == masks.sum() and sum(histogram["pruned"]) == (~masks).sum()
    if name == "magnitude":
        assert found["quantity"] == "magnitude" and found["points"] is None
        return
    points = {key: found["points"][key] for key in ("weight", "score", "kept")}
    assert {len(values) for values in points.values()} == {1500}
    scores = np.stack([kernel.paper_scores().numpy() for kernel in kernels])
    scores = 1 / (1 + np.exp(-scores)) if name == "soft" else scores
    entries = np.int32(points["weight"])  # which are numbered
    np.testing.assert_allclose(points["score"], scores.ravel()[entries], rtol=1e-4)
    np.testing.assert_array_equal(points["kept"], masks.ravel()[entries])


def test_one_matrix_is_shown_if_thresholds_differ():
    kernels = [matrix(2, 2), matrix(4, 4), matrix(4, 4), matrix(4, 4)]
    for i, kernel in enumerate(kernels):
        kernel.threshold.assign(float(i))
    found = score_statistics(kernels, ["a", "b", "c", "d"])
    assert (found["shown"], found["threshold"]) == ("c", 2.0)
    assert len(found["points"]["kept"]) == 16


def test_blocks_are_shown_by_their_mean_magnitude():
    part = Part.in_blocks(weight(4, 6), None, (2, 3))
    kernel = kernel_of([part], (2, 2), block_size=Blocks(2, 3))
    found = score_statistics([kernel], ["one"])
    assert found["points"]["weight_is"] == "mean magnitude" and found["threshold"] is None
    assert min(found["points"]["weight"]) > 0
    (group,) = statistics({"one": layer(kernel)})["groups"]
    assert (group["pieces"], group["entries"]) == ("blocks of 2 × 3", 4)


@pytest.mark.parametrize(
    "start, told",
    [
        ("zeros", "zeros"),
        (tf_movprune.MagnitudeScores(1e-3), "magnitudes"),
        ("ones", "an initializer"),
    ],
)
def test_where_scores_start_is_told(start, told):
    kernel = matrix(4, 4, method=tf_movprune.HardMovement(start))
    assert score_statistics([kernel], ["one"])["scores_start_from"] == told


def test_nothing_is_ranked_by_fixed_masks():
    kernel = matrix(4, 4, method=tf_movprune.KeepZeros(), schedule=None)
    assert score_statistics([kernel], ["one"]) == {}
    assert statistics({"one": layer(kernel)})["agreement"] is None


def test_scores_that_are_all_equal_or_not_finite():
    kernel = matrix(4, 4)
    kernel.scores.assign(tf.zeros([4, 4]))
    assert sum(score_statistics([kernel], ["one"])["histogram"]["kept"]) == 16
    kernel.scores.assign(tf.fill([4, 4], np.nan))
    assert score_statistics([kernel], ["one"])["histogram"] is None
