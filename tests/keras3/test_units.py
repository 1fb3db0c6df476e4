"""Heads and neurons of KerasHub's models with one score over all their weights."""

import keras
import keras_hub
import numpy as np
import pytest
from keras_hub_families import backbone, draw, inputs_of
from shells import kernels, refresh
from unit_masks import assert_movement_is_summed, outputs_of

import tf_movprune
from tf_movprune import HEADS, NEURONS

pytestmark = pytest.mark.usefixtures("refresh_without_xla")

SCHEDULE = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=4)
ATTENTION = {"*_attention_layer.*": HEADS, "*": NEURONS}
SIZES = {
    **{family: [2, 32] * 2 for family in ("Bert", "DistilBert", "GPT2", "ViT")},
    "Albert": [2, 32],
    "Bart": [2, 32] * 2 + [2, 2, 32] * 2,
    "FNet": [32, 32],
    "Llama": [32, 32],
    "Gemma": [16, 16],
}
SCHEDULES = {"Llama": {"*_feedforward_*": SCHEDULE}, "Gemma": {"*ffw*": SCHEDULE}}
BLOCK_SIZES = {
    "ViT": {"*.mha.*": HEADS, "*": NEURONS},
    **{family: NEURONS for family in ("FNet", "Llama", "Gemma")},
}


def pruned(family, model=None, method=None):
    if model is None:
        model = backbone(family)
        draw(model)
    schedule = SCHEDULES.get(family, SCHEDULE)
    block_size = BLOCK_SIZES.get(family, ATTENTION)
    return tf_movprune.prune_low_movement(model, schedule, method, block_size=block_size)


@pytest.mark.parametrize("family", SIZES)
def test_pruning_stripping_and_compacting(family):
    model = pruned(family, method=tf_movprune.Magnitude())
    assert [kernel.size for kernel in kernels(model)] == SIZES[family]
    inputs, before = inputs_of(model), model.count_params()
    refresh(model, 4)
    left = [np.count_nonzero(kernel.mask) for kernel in kernels(model)]
    assert left == [size // 2 for size in SIZES[family]]
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.5
    masked = outputs_of(model, inputs)
    stripped = tf_movprune.strip_pruning(model)
    for found, expected in zip(outputs_of(stripped, inputs), masked, strict=True):
        np.testing.assert_array_equal(found, expected)
    smaller = tf_movprune.compact(stripped)
    assert smaller.count_params() < before
    for found, expected in zip(outputs_of(smaller, inputs), masked, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["Bert", "Bart", "Llama"])
def test_movement_is_the_sum_over_all_weights_of_a_unit(family):
    model = backbone(family, dropout=0.0)
    draw(model)
    assert_movement_is_summed(pruned(family, model), inputs_of(model), off=(1,))


def test_a_classifier_is_trained():
    model = keras_hub.models.BertTextClassifier(
        backbone=backbone("Bert"), num_classes=3, preprocessor=None
    )
    start = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.01))
    model = pruned("Bert", model, start)
    before = [kernel.scores.numpy() for kernel in kernels(model)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf_movprune.create_optimizer(1e-3, 6, 1, model=model)
    model.compile(optimizer, loss, jit_compile=False)
    inputs = inputs_of(model, batch=12)
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(inputs, np.arange(12) % 3, batch_size=2, callbacks=callbacks, verbose=0)
    assert [np.count_nonzero(kernel.mask) for kernel in kernels(model)] == [1, 16, 1, 16]
    assert all(np.any(old != kernel.scores) for old, kernel in zip(before, kernels(model)))
    masked = outputs_of(model, inputs)
    np.testing.assert_array_equal(outputs_of(tf_movprune.strip_pruning(model), inputs), masked)


@pytest.mark.parametrize(
    "family, part", [("Llama", "_query_dense"), ("Gemma", "query_dense"), ("DebertaV3", "_query")]
)
def test_attention_of_other_kinds_is_refused_by_name(family, part):
    model = backbone(family)
    names = [weight.path for weight in model.weights]
    with pytest.raises(ValueError, match=f"{part}.*, and in no attention that is known.* Known"):
        tf_movprune.prune_low_movement(
            model, SCHEDULE, block_size={"*attention*": HEADS, "*": NEURONS}
        )
    assert not tf_movprune.pruned_layers(model)
    assert [weight.path for weight in model.weights] == names
