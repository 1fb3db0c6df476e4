"""Heads and neurons of KerasHub's models with one score over all their weights."""

import inspect

import keras
import keras_hub
import numpy as np
import pytest
from keras_hub_families import backbone, draw, inputs_of, quick
from shells import kernels, refresh
from unit_masks import assert_movement_is_summed, outputs_of

import tf_movprune
from tf_movprune import HEADS, NEURONS
from tf_movprune.core.scores import initial_scores

SCHEDULE = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=4)
ATTENTION = {"*_attention_layer.*": HEADS, "*": NEURONS}
SIZES = {
    **{family: [2, 32] * 2 for family in ("Bert", "DistilBert", "GPT2", "ViT")},
    "Albert": [2, 32],
    "Bart": [2, 32] * 2 + [2, 2, 32] * 2,
    "FNet": [32, 32],
    **{family: [2, 32] * 2 for family in ("DebertaV3", "Llama", "Mistral", "Phi3", "Qwen3")},
    "Gemma": [2, 16] * 2,
    "Gemma3": [2, 32] * 2,
    "T5": [2, 32] * 2 + [2, 2, 32] * 2,
}
BLOCK_SIZES = {
    "ViT": {"*.mha.*": HEADS, "*": NEURONS},
    **{f: {"*attention.*": HEADS, "*": NEURONS} for f in ("Gemma", "Gemma3", "Phi3", "T5")},
    "FNet": NEURONS,
}


def pruned(family, model=None, method=None):
    if model is None:
        model = backbone(family)
        draw(model)
    block_size = BLOCK_SIZES.get(family, ATTENTION)
    return tf_movprune.prune_low_movement(model, SCHEDULE, method, block_size=block_size)


@pytest.mark.parametrize("family", quick("Bert", "Gemma", "T5", of=SIZES))
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


@pytest.mark.parametrize(
    "family", quick("Bart", "Llama", of=["Bert", "Bart", "Llama", "Gemma", "DebertaV3", "T5"])
)
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


def test_a_group_is_a_key_and_value_head_with_the_query_heads_that_share_it():
    model = backbone("Llama")
    draw(model)
    block = model.get_layer("transformer_layer_0")._self_attention_layer
    query, key, value, output = (
        np.array(getattr(block, f"_{name}_dense").kernel)
        for name in ("query", "key", "value", "output")
    )
    assert query.shape == (16, 4, 4) and key.shape == value.shape == (16, 2, 4)
    tf_movprune.prune_low_movement(
        model, {"transformer_layer_0.*attention*": SCHEDULE}, block_size=HEADS
    )
    (kernel,) = kernels(model)
    refresh(model, 4)
    kernel.mask.assign([True, False])
    tf_movprune.strip_pruning(model)
    query[:, 2:], key[:, 1], value[:, 1], output[2:] = 0, 0, 0, 0
    expected = {"query": query, "key": key, "value": value, "output": output}
    for name, weights in expected.items():
        np.testing.assert_array_equal(getattr(block, f"_{name}_dense").kernel, weights)


def test_generation_with_groups_is_unchanged_by_stripping_and_removal():
    model = keras_hub.models.MistralCausalLM(backbone=backbone("Mistral"), preprocessor=None)
    draw(model, seed=4)
    pruned("Mistral", model, tf_movprune.Magnitude())
    refresh(model, 4)
    prompt = {"token_ids": np.array([[3, 4, 5, 0, 0, 0]]), "padding_mask": np.ones([1, 6], bool)}
    prompt["padding_mask"][:, 3:] = False
    found = []
    for change in (lambda x: x, tf_movprune.strip_pruning, tf_movprune.compact):
        change(model)
        model.compile(sampler="greedy")
        found.append(model.generate(prompt, stop_token_ids=None)["token_ids"])
    assert len(set(found[0][0, 3:].tolist())) > 1
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_groups_in_a_functional_model(tmp_path):
    inputs = keras.Input([5, 8])
    attention = keras.layers.GroupQueryAttention(3, 8, 4, name="attention")
    model = keras.Model(inputs, keras.layers.Dense(3)(attention(inputs, inputs)))
    draw(model)
    tf_movprune.prune_low_movement(
        model, {"attention*": SCHEDULE}, tf_movprune.Magnitude(), block_size=HEADS
    )
    (kernel,) = kernels(model)
    assert kernel.size == 4 and len(kernel.parts) == 4 + 3  # with biases
    refresh(model, 4)
    x = np.random.RandomState(0).standard_normal([2, 5, 8]).astype("float32")
    (masked,) = outputs_of(model, x)
    smaller = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert (attention.num_query_heads, attention.num_key_value_heads) == (4, 2)
    smaller.save(tmp_path / "model.keras")
    for found in (smaller, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(outputs_of(found, x)[0], masked, rtol=0, atol=1e-5)


def gated():
    if "use_gate" not in inspect.signature(keras.layers.GroupQueryAttention).parameters:
        pytest.skip(f"keras {keras.__version__} has no gates.")
    attention = keras.layers.GroupQueryAttention(4, 4, 2, use_gate=True, name="attention")
    inputs = keras.Input([5, 8])
    return keras.Model(inputs, attention(inputs, inputs))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: backbone("GptOss"), "in a GptOssAttention, which is no attention that is known"),
        (gated, "in a GroupedQueryAttention, whose heads have a gate"),
    ],
)
def test_attention_of_other_kinds_is_refused_by_name(make, message):
    model = make()
    names = [weight.path for weight in model.weights]
    with pytest.raises(ValueError, match=f"is an EinsumDense {message}.* Known"):
        tf_movprune.prune_low_movement(model, {"*attention*": SCHEDULE}, block_size=HEADS)
    assert not tf_movprune.pruned_layers(model)
    assert [weight.path for weight in model.weights] == names


def test_a_failed_pruning_leaves_the_model_as_it_was(monkeypatch):
    model = backbone("Bert")
    inputs = inputs_of(model)
    names, outputs = [weight.path for weight in model.weights], outputs_of(model, inputs)
    types = [type(layer) for layer in model._flatten_layers()]
    made = []

    def fail_at_last(*args, **kwargs):
        made.append(args)
        if len(made) == 4:
            raise ValueError("no scores")
        return initial_scores(*args, **kwargs)

    monkeypatch.setattr("tf_movprune.keras3.movement_mask.initial_scores", fail_at_last)
    with pytest.raises(ValueError, match="no scores"):
        pruned("Bert", model)
    assert not tf_movprune.pruned_layers(model)
    assert [weight.path for weight in model.weights] == names
    assert [type(layer) for layer in model._flatten_layers()] == types
    for found, expected in zip(outputs_of(model, inputs), outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
