"""Families of KerasHub: which matrices are pruned by default, and whether it all goes well."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras_hub_families import BLOCKS, backbone, inputs_of, saves_tasks
from shells import kernels, refresh, sparsities

import tf_movprune
from tf_movprune import CubicSparsity, HardMovement, Magnitude

RAMP = CubicSparsity(0.9, begin_step=0, end_step=3)
PER_BLOCK = {
    **{family: [6, 6] for family in ("Bert", "Roberta", "XLMRoberta", "DistilBert", "DebertaV3")},
    **{family: [6, 6] for family in ("Electra", "GPT2", "OPT", "ViT")},
    "Albert": [6],  # one block, which is called twice
    **{family: [7, 7] for family in ("Gemma", "Llama", "Mistral", "Qwen3")},
    "T5": [7, 7, 11, 11],
    **{family: [6, 6, 10, 10] for family in ("Bart", "Whisper")},
    "FNet": [2, 2],
    "Mixtral": [4, 4],
}
LEFT_OUT = "ignore:The default choice .* leaves out banks"


def prune(model, schedule=RAMP, method=None):
    return tf_movprune.prune_low_movement(model, schedule, method or Magnitude())


def outputs_of(model, inputs):
    return [np.array(output) for output in tf.nest.flatten(model(inputs))]


def weights_of(model):
    return {weight.path: np.array(weight) for weight in model.weights}


def task(name, family, **kwargs):
    model = backbone(family)
    return getattr(keras_hub.models, name)(backbone=model, preprocessor=None, **kwargs)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("family", BLOCKS)
def test_the_matrices_of_blocks_are_pruned(family):
    model = backbone(family)
    inputs, weights = inputs_of(model), weights_of(model)
    pruned = prune(model, method=HardMovement(tf_movprune.MagnitudeScores(0.01)))
    paths = list(tf_movprune.pruned_layers(pruned))
    blocks = BLOCKS[family]
    assert paths == [f"{block}.{part}" for block, parts in blocks.items() for part in parts]
    assert [sum(p.startswith(f"{b}.") for p in paths) for b in blocks] == PER_BLOCK[family]

    assert refresh(pruned, 3) == pytest.approx(0.9, abs=0.01)
    expected = [int(0.1 * kernel.size + 1e-6) for kernel in kernels(pruned)]
    assert [np.count_nonzero(kernel.mask) for kernel in kernels(pruned)] == expected
    masked = outputs_of(pruned, inputs)

    stripped = tf_movprune.strip_pruning(pruned)
    assert stripped is model
    for output, before in zip(outputs_of(stripped, inputs), masked):
        np.testing.assert_array_equal(output, before)
    found = weights_of(stripped)
    assert list(found) == list(weights)
    changed = {path for path in found if np.any(found[path] != weights[path])}
    assert len(changed) == sum(PER_BLOCK[family])
    for path in changed:
        np.testing.assert_array_equal(found[path], np.where(found[path], weights[path], 0))


# ---- what is not a matrix of a block


@pytest.mark.parametrize("whole", [False, True])
def test_a_convolutional_backbone_is_pruned_like_other_models(whole):
    model = task("ResNetImageClassifier", "ResNet", num_classes=2) if whole else backbone("ResNet")
    prefix = f"{model.backbone.name}." if whole else ""
    convolutions = ["conv1_conv", "stack0_block0_1_conv", "stack0_block0_2_conv"]
    paths = list(tf_movprune.pruned_layers(prune(model)))
    assert paths == [prefix + name for name in convolutions]


def test_banks_of_experts_are_named_and_pruned_if_they_say_so():
    message = r"leaves out banks of matrices with \d\d% .*expert_feedforward_gate_dense \(2, 16, 32"
    with pytest.warns(UserWarning, match=message):
        prune(backbone("Mixtral"))
    model = backbone("Mixtral")
    inputs = inputs_of(model)
    for i in range(2):
        bank = model.get_layer(f"transformer_layer_{i}")._sparse_moe_block.expert_bank
        bank.get_prunable_weights = lambda bank=bank: bank.weights
    pruned = prune(model)
    paths = list(tf_movprune.pruned_layers(pruned))
    assert [path.split(".")[-1] for path in paths].count("expert_bank") == 2
    assert len(kernels(pruned)) == 2 * (4 + 3)
    refresh(pruned, 3)
    (masked,) = outputs_of(pruned, inputs)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(inputs), masked)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("family", ["Mixtral", "QwenMoe", "Qwen3Moe", "GptOss"])
def test_routers_stay_dense(family):
    model = backbone(family, num_experts=4, top_k=2)
    shapes = [layer.kernel.shape for layer in tf_movprune.pruned_layers(prune(model)).values()]
    assert len(shapes) >= 8
    assert not any(shape[-1] in (1, 4) and len(shape) == 2 for shape in shapes)


@pytest.mark.parametrize("name, family", [("GPT2CausalLM", "GPT2"), ("GemmaCausalLM", "Gemma")])
def test_an_embedding_that_makes_logits_too_is_masked_in_both_uses(name, family):
    model = task(name, family)
    inputs = inputs_of(model)
    pruned = prune(model, {"*token_embedding": RAMP})
    assert list(tf_movprune.pruned_layers(pruned)) == [f"{model.backbone.name}.token_embedding"]
    refresh(pruned, 3)
    (masked,) = outputs_of(pruned, inputs)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(inputs), masked)
    assert np.count_nonzero(model.backbone.token_embedding.embeddings) == 80


# ---- tasks


def test_a_task_that_arrives_compiled_has_to_be_compiled_again():
    model = task("BertTextClassifier", "Bert", num_classes=3)
    assert model.compiled
    inputs = inputs_of(model)
    pruned = prune(model)
    paths = list(tf_movprune.pruned_layers(pruned))
    assert len(paths) == 12
    blocks = f"{model.backbone.name}.transformer_layer_"
    assert all(path.startswith(blocks) for path in paths)
    with pytest.raises(ValueError, match=r"pruning undoes compile\(\), which KerasHub's tasks"):
        pruned.fit(inputs, np.zeros(2), callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)


@pytest.mark.parametrize(
    "name, family, kwargs",
    [
        ("BertTextClassifier", "Bert", {"num_classes": 3}),
        ("GPT2CausalLM", "GPT2", {}),
        pytest.param("GemmaCausalLM", "Gemma", {}, marks=pytest.mark.slow),
    ],
)
def test_tasks_are_trained(name, family, kwargs):
    model = task(name, family, **kwargs)
    inputs = inputs_of(model, batch=8)
    labels = np.zeros(8) if kwargs else inputs["token_ids"]
    pruned = prune(model, method=HardMovement(tf_movprune.MagnitudeScores(0.01)))
    before = [kernel.scores.numpy() for kernel in kernels(pruned)]
    optimizer = tf_movprune.create_optimizer(1e-3, 4, 1, model=pruned)
    pruned.compile(optimizer, jit_compile=False)
    update = tf_movprune.UpdatePruningStep()
    history = pruned.fit(inputs, labels, batch_size=2, verbose=0, callbacks=[update]).history
    assert sparsities(pruned) == [1 - int(0.1 * k.size + 1e-6) / k.size for k in kernels(pruned)]
    assert history["sparsity"] == [pytest.approx(0.9, abs=0.01)]
    for scores, kernel in zip(before, kernels(pruned)):
        assert np.any(kernel.scores != scores)
    masked = outputs_of(pruned, inputs)
    stripped = tf_movprune.strip_pruning(pruned)
    for output, expected in zip(outputs_of(stripped, inputs), masked):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("name, family", [("GPT2CausalLM", "GPT2"), ("LlamaCausalLM", "Llama")])
def test_generation_is_masked_and_stripping_does_not_change_it(name, family):
    model = task(name, family)
    model.compile(sampler="greedy")
    prompt = {"token_ids": np.array([[3, 4, 5, 0, 0, 0, 0, 0]])}
    prompt["padding_mask"] = prompt["token_ids"] != 0

    def generate():
        return model.generate(prompt, stop_token_ids=None)["token_ids"]

    def greedy():
        """The same without a cache and without compiled functions."""
        tokens = prompt["token_ids"].copy()
        for i in range(3, 8):
            mask = np.arange(8)[None] < i
            logits = model({"token_ids": tokens, "padding_mask": mask})
            tokens[0, i] = np.argmax(logits[0, i - 1])
        return tokens

    dense = generate()  # compiles a function that knows no masks
    prune(model, {"*token_embedding": RAMP, "*": RAMP})
    refresh(model, 3)
    masked = generate()
    np.testing.assert_array_equal(masked, greedy())
    assert np.any(masked != dense)
    tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(generate(), masked)


# ---- files


@saves_tasks
@pytest.mark.parametrize(
    "name, family, kwargs",
    [
        ("BertTextClassifier", "Bert", {"num_classes": 3}),
        ("GPT2CausalLM", "GPT2", {}),
    ],
)
def test_presets_of_stripped_models_keep_their_zeros(name, family, kwargs, tmp_path):
    model = task(name, family, **kwargs)
    inputs = inputs_of(model)
    prune(model)
    refresh(model, 3)
    tf_movprune.strip_pruning(model)
    model.save_to_preset(tmp_path)
    loaded = type(model).from_preset(str(tmp_path), preprocessor=None)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    alone = keras_hub.models.Backbone.from_preset(str(tmp_path))
    for found in (loaded, alone):
        assert tf_movprune.summarize_sparsity(found).sparsity == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("whole", [False, True])
def test_pruned_models_save_weights_alone(whole, tmp_path):
    def make():
        return prune(
            task("BertTextClassifier", "Bert", num_classes=3) if whole else backbone("Bert")
        )

    source, target = make(), make()
    refresh(source, 3)
    with pytest.raises(ValueError, match=r"Use save_weights or .*tf_movprune.strip_pruning"):
        source.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"Use save_weights or .*tf_movprune.strip_pruning"):
        source.save_to_preset(tmp_path / "preset")
    if whole:  # which holds another model that is saved by itself
        with pytest.raises(ValueError, match="Use save_weights or"):
            source.backbone.save_to_preset(tmp_path / "backbone")
    source.save_weights(tmp_path / "model.weights.h5")
    target.load_weights(tmp_path / "model.weights.h5")
    assert sparsities(target) == sparsities(source)
    inputs = inputs_of(source)
    for found, expected in zip(outputs_of(target, inputs), outputs_of(source, inputs)):
        np.testing.assert_array_equal(found, expected)


CHANGES = {"quantize": "int8", "enable_lora": 2}


@pytest.mark.parametrize("name", [pytest.param("quantize", marks=pytest.mark.slow), "enable_lora"])
def test_quantization_and_lora_wait_for_the_end_of_pruning(name):
    model = backbone("Bert", num_layers=1)
    pruned = prune(model)
    refresh(pruned, 3)
    inputs = inputs_of(model)
    masked, weights = outputs_of(pruned, inputs), weights_of(pruned)
    trainable = [weight.path for weight in pruned.trainable_weights]
    layers = list(tf_movprune.pruned_layers(pruned).values())
    for layer in (pruned, layers[0], layers[-1]):
        with pytest.raises(ValueError, match=rf"has pruned layers.*{name}\(\) on what .*strip"):
            getattr(layer, name)(CHANGES[name])
    assert list(weights_of(pruned)) == list(weights)
    assert [weight.path for weight in pruned.trainable_weights] == trainable
    stripped = tf_movprune.strip_pruning(pruned)
    getattr(stripped, name)(CHANGES[name])
    assert layers[0].quantization_mode if name == "quantize" else layers[0].lora_enabled
    for output, expected in zip(outputs_of(stripped, inputs), masked):
        np.testing.assert_allclose(output, expected, atol=0.05)
    with pytest.raises(ValueError, match=r"quantized weights|has LoRA enabled"):
        prune(stripped)


def test_a_classifier_around_a_pruned_backbone():
    pruned = prune(backbone("Bert"))
    model = keras_hub.models.BertTextClassifier(pruned, num_classes=2, preprocessor=None)
    inputs = inputs_of(pruned)
    labels = np.zeros(len(next(iter(inputs.values()))), "int32")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.fit(inputs, labels, verbose=0)
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(inputs, labels, batch_size=1, epochs=5, verbose=0, callbacks=callbacks)
    assert min(sparsities(model)) > 0.89
    with pytest.raises(ValueError, match="masks would not reach quantized"):
        model.quantize("int8")
    masked = outputs_of(model, inputs)
    stripped = tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(outputs_of(stripped, inputs), masked)
    assert not tf_movprune.pruned_layers(pruned)


def test_weights_of_a_pruned_model_do_not_load_into_a_plain_one(tmp_path):
    path = tmp_path / "pruned.weights.h5"
    pruned = prune(backbone("Bert"))
    pruned.save_weights(path)
    with pytest.raises(ValueError, match="could not be loaded"):
        backbone("Bert").load_weights(path)
    other = prune(backbone("Bert"))
    other.load_weights(path)
    for name, value in weights_of(other).items():
        np.testing.assert_array_equal(value, weights_of(pruned)[name])
