"""The policy that takes all transformer blocks, and what the default says without it."""

import re
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from architectures import random_scores, schedule, sequential
from transformer_families import FAMILIES, make

import tf_movprune

pytest.importorskip("transformers")

BLOCKS = {  # prunable matrices in all blocks
    **{"Albert": 6, "Bart": 16, "Bert": 12, "BertDecoder": 20, "CTRL": 6, "Deberta": 8},
    **{"Funnel": 18, "GPT2": 4, "Lxmert": 28, "Marian": 16, "T5": 16, "XLNet": 7},
}
LEFT_OUT = {
    "Bart": r"prunes \d+% .* leaves out 10 layers .* \d+% of the weights: model\.decoder\.layers",
    "CTRL": r"Nothing to prune.* leaves out 6 layers .*: transformer\.h\.\*",
    "Funnel": r"funnel\.decoder\.layers\.\*\..* cannot reach matrices .*\.r_kernel \(16, 2, 8\)",
    "GPT2": r"Nothing to prune.* leaves out 4 layers .*: transformer\.h\.\*",
    "Lxmert": r"lxmert\.encoder\.x_layers\.\*, lxmert\.encoder\.r_layers\.\*",
    "Marian": r"leaves out 10 layers .*: model\.decoder\.layers\.\*",
    "T5": r"leaves out 10 layers .*: decoder\.block\.\*",
    "XLNet": r"leaves out 1 layer .*: transformer\.layer\.\*\.rel_attn",
}


def outputs_of(model):
    tf.random.set_seed(0)  # the inputs of some are random
    outputs = model(model.dummy_inputs, training=False)
    return [np.asarray(x) for x in tf.nest.flatten(dict(outputs)) if tf.is_tensor(x)]


SLOW = ("BertDecoder", "CTRL", "Deberta", "Marian")  # are laid out as others are


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[pytest.mark.slow] if f in SLOW else []) for f in FAMILIES]
)
def test_blocks_are_masked_and_stripped(family):
    model = make(family)
    names, dense = [weight.name for weight in model.weights], outputs_of(model)
    tf_movprune.prune_low_movement(
        model, schedule(), random_scores(), pruning_policy=tf_movprune.PruneTransformerBlocks()
    )
    tf_movprune.update_masks(model, 2)
    report = tf_movprune.summarize_sparsity(model)
    assert len(report.weights) == BLOCKS[family]
    assert report.sparsity == pytest.approx(0.75, abs=1e-3)
    masked = outputs_of(model)
    assert any(np.any(a != b) for a, b in zip(masked, dense))
    plain = tf_movprune.strip_pruning(model)
    for a, b in zip(outputs_of(plain), masked, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [weight.name for weight in model.weights] == names
    assert tf_movprune.summarize_sparsity(plain).as_dict()["remaining"] == report.remaining


@pytest.mark.parametrize("family", ["GPT2", "XLNet"])
def test_raw_kernels_are_trained(family):
    model = make(family)
    recipe = tf_movprune.ShortRun(num_train_steps=10, final_sparsity=0.8)
    recipe.prune(model, pruning_policy=tf_movprune.PruneTransformerBlocks())
    kernels = [wrapper.kernels for wrapper in tf_movprune.pruned_layers(model).values()]
    before = [[kernel.scores.numpy() for kernel in group] for group in kernels]
    model.compile(recipe.create_optimizer(1e-3), run_eagerly=True)
    ids = np.random.RandomState(0).randint(3, 99, [8, 6])
    data = {"input_ids": ids, "labels": ids if family == "GPT2" else ids[:, 0] % 2}
    batches = tf.data.Dataset.from_tensor_slices(data).batch(4).repeat(5)
    model.fit(batches, callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    for group, starts in zip(kernels, before):
        assert any(np.any(x.scores.numpy() != start) for x, start in zip(group, starts))
    report = tf_movprune.summarize_sparsity(tf_movprune.strip_pruning(model))
    assert report.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_says_which_blocks_it_leaves_out(family):
    model = make(family)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tf_movprune.prune_low_movement(model, schedule())
        except ValueError as error:
            caught.append(error)
    said = [str(getattr(x, "message", x)) for x in caught]
    said = [text for text in said if "default choice" in text]
    assert len(said) == (family in LEFT_OUT)
    for text in said:
        assert type(model).__name__ in text and "=tf_movprune.PruneTransformerBlocks()" in text
        assert re.search(LEFT_OUT[family], text)


def test_patterns_take_blocks_that_the_default_leaves_out():
    model = make("GPT2")
    tf_movprune.prune_low_movement(model, {"transformer.h.*.mlp.*": schedule()}, random_scores())
    paths = ["transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"]
    assert list(tf_movprune.pruned_layers(model)) == paths
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # who names layers needs no advice
        bart = make("Bart")
        tf_movprune.prune_low_movement(bart, {"model.encoder.*.fc1": schedule()})
    assert list(tf_movprune.pruned_layers(bart)) == ["model.encoder.layers.0.fc1"]


@pytest.mark.parametrize(
    "family, path", [("Albert", "albert.embeddings"), ("Lxmert", "lxmert.embeddings")]
)
def test_patterns_take_embeddings(family, path):
    model = make(family)
    tf_movprune.prune_low_movement(model, {path: schedule()}, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 2)
    masked = outputs_of(model)
    plain = tf_movprune.strip_pruning(model)
    for a, b in zip(outputs_of(plain), masked, strict=True):
        np.testing.assert_array_equal(a, b)
    sparsity = {w.path: w.sparsity for w in tf_movprune.summarize_sparsity(plain).weights}
    assert sparsity[f"{path}.weight"] == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(
    "family, path", [("GPT2", "transformer.wte"), ("T5", "shared"), ("Marian", "model.shared")]
)
def test_embeddings_that_compute_logits_are_refused(family, path):
    model = make(family)
    with pytest.raises(ValueError, match=r"computes its logits as well.*Leave it dense"):
        tf_movprune.prune_low_movement(model, {path: schedule()})
    assert not tf_movprune.pruned_layers(model)


def test_blocks_inside_another_model():
    import transformers

    bert = make("Bert").bert
    ids = keras.Input([10], dtype=tf.int32)
    hidden = keras.layers.Dense(8, name="hidden")(bert(ids).last_hidden_state[:, 0])
    model = keras.Model(ids, keras.layers.Dense(2)(hidden))
    policy = tf_movprune.PruneTransformerBlocks()
    pruned = tf_movprune.prune_low_movement(model, schedule(), pruning_policy=policy)
    assert len(tf_movprune.pruned_layers(pruned)) == 12
    assert isinstance(bert, transformers.models.bert.modeling_tf_bert.TFBertMainLayer)


def test_models_without_blocks_are_refused():
    policy = tf_movprune.PruneTransformerBlocks()
    with pytest.raises(ValueError, match=r"expected a Hugging Face model.*got Sequential"):
        tf_movprune.prune_low_movement(sequential(), schedule(), pruning_policy=policy)
    with pytest.raises(ValueError, match="layer without its model"):
        tf_movprune.prune_low_movement(
            [keras.layers.Dense(2)], schedule(), pruning_policy=tf_movprune.PruneTransformerBlocks()
        )
    with pytest.raises(ValueError, match=r"not built yet.*dummy_inputs"):
        tf_movprune.prune_low_movement(
            make("Bart", built=False),
            schedule(),
            pruning_policy=tf_movprune.PruneTransformerBlocks(),
        )
