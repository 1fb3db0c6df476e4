"""Smaller models of Keras 3 and KerasHub with the same outputs, and their files."""

import os
import subprocess
import sys
import warnings

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras_hub_families import backbone, draw, inputs_of, quick, saves_tasks

import tf_movprune
from tf_movprune.core.granularity import HEADS, NEURONS
from tf_movprune.keras3 import compact
from tf_movprune.keras3.units import find_units

TOLERANCE = 1e-5
UNITS = {  # found in each block
    **{name: {HEADS: 2, NEURONS: 2} for name in ("Bert", "Roberta", "XLMRoberta", "DistilBert")},
    **{name: {HEADS: 2, NEURONS: 2} for name in ("Electra", "GPT2", "OPT", "ViT")},
    "Albert": {HEADS: 1, NEURONS: 1},
    **{name: {HEADS: 6, NEURONS: 4} for name in ("Bart", "Whisper")},
    **{name: {HEADS: 2, NEURONS: 2} for name in ("Gemma", "Gemma3", "Llama", "Mistral")},
    **{name: {HEADS: 2, NEURONS: 2} for name in ("DebertaV3", "Phi3", "Qwen", "Qwen3")},
    "T5": {HEADS: 4, NEURONS: 4},  # without those of the first layers, which bias the others
    **{name: {HEADS: 2, NEURONS: 0} for name in ("Mixtral", "QwenMoe", "Qwen3Moe")},
    "FNet": {HEADS: 0, NEURONS: 2},
    "GptOss": {HEADS: 0, NEURONS: 0},
}


def outputs_of(model, inputs):
    return [np.array(output) for output in tf.nest.flatten(model(inputs))]


def zero(unit, layer, index):
    """Empties units in one of the layers that they are part of."""
    axis = next(axis for other, axis in unit.axes if other is layer)
    kernel = np.array(layer.kernel)
    entries = np.arange(kernel.shape[axis]).reshape(unit.size, -1)[index].ravel()
    np.moveaxis(kernel, axis, 0)[entries] = 0
    layer.kernel.assign(kernel)


def empty_units(model, seed=0, share=0.5):
    """Empties random units in both ways: half of them nothing reads, the others read nothing.

    All heads of one layer are empty, and all neurons of one.
    """
    random = np.random.RandomState(seed)
    units = find_units(model)
    first = [next((u for u in units if u.kind == kind), None) for kind in (HEADS, NEURONS)]
    for unit in units:
        is_empty = unit in first
        gone = np.flatnonzero(is_empty | (random.rand(unit.size) < share))
        zero(unit, unit.reader, gone[::2])
        zero(unit, unit.sources[-1], gone[1::2])


def sizes(model):
    return [unit.size for unit in find_units(model)]


def compacted(model):
    """A model of which random units were removed, and what it gave before."""
    draw(model)
    empty_units(model)
    inputs = inputs_of(model)
    expected, before = outputs_of(model, inputs), sizes(model)
    assert tf_movprune.compact(model) is model
    after = sizes(model)
    assert all(x <= y for x, y in zip(after, before)) and sum(after) < sum(before)
    return model, inputs, expected


def assert_same(model, inputs, expected, tolerance=TOLERANCE):
    for found, value in zip(outputs_of(model, inputs), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=tolerance)


def task(name, family, **kwargs):
    cls = getattr(keras_hub.models, name, None)
    if cls is None:
        pytest.skip(f"keras-hub {keras_hub.__version__} has no {name}.")
    return cls(backbone=backbone(family), preprocessor=None, **kwargs)


# ---- families


@pytest.mark.filterwarnings("ignore:.*mask attached")
@pytest.mark.parametrize("family", UNITS)
def test_units_of_families(family):
    model = backbone(family)
    found = find_units(model)
    counts = {kind: sum(unit.kind == kind for unit in found) for kind in (HEADS, NEURONS)}
    assert counts == UNITS[family]
    if not found:
        with pytest.warns(UserWarning, match="nothing was removed"):
            assert tf_movprune.compact(model) is model


@pytest.mark.parametrize(
    "family",
    quick(
        "Bert",
        "GPT2",
        "Llama",
        of=[family for family, units in UNITS.items() if any(units.values())],
    ),
)
def test_families_shrink_give_the_same_and_are_loaded(family, tmp_path):
    model, inputs, expected = compacted(backbone(family))
    assert_same(model, inputs, expected)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    exact = outputs_of(model, inputs)
    for path in (tmp_path / "model.keras", tmp_path / "preset"):
        loaded = tf_movprune.load_compacted(path)
        assert isinstance(loaded, type(backbone(family)))
        assert sizes(loaded) == sizes(model)
        assert_same(loaded, inputs, exact, 0)
    model.save_weights(tmp_path / "model.weights.h5")
    loaded.set_weights([np.zeros(w.shape) for w in loaded.get_weights()])
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert_same(loaded, inputs, exact, 0)


@pytest.mark.parametrize("family", quick("GPT2", of=["DebertaV3", "Gemma", "GPT2", "T5"]))
def test_a_loaded_model_shrinks_once_more_and_keeps_the_right_heads(family, tmp_path):
    def empty_a_head():
        for unit in find_units(model):
            if unit.kind == HEADS and unit.size > 1:
                zero(unit, unit.reader, [1])  # of those that are left

    model, inputs = backbone(family), inputs_of(backbone(family))
    draw(model)
    for _ in range(2):
        empty_a_head()
        expected = outputs_of(model, inputs)
        assert_same(tf_movprune.compact(model), inputs, expected)
        model.save(tmp_path / "model.keras")
        loaded = tf_movprune.load_compacted(tmp_path / "model.keras")
        assert sizes(loaded) == sizes(model)
        assert_same(loaded, inputs, outputs_of(model, inputs), 0)
        model = loaded


@pytest.mark.parametrize("groups", [2, 4])  # out of 4 query heads
def test_scores_keep_their_scale(groups):
    model = backbone("Gemma", hidden_dim=24, num_key_value_heads=groups)
    draw(model)
    for i in range(2):  # blocks do not hand this on, in keras-hub 0.32
        model.get_layer(f"decoder_block_{i}").attention.query_head_dim_normalize = False
    heads = [unit for unit in find_units(model) if unit.kind == HEADS]
    assert {unit.size for unit in heads} == {groups}
    for unit in heads:
        zero(unit, unit.reader, [0])
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    tf_movprune.compact(model)
    left = {unit.size for unit in find_units(model) if unit.kind == HEADS}
    assert left == {groups - 1}
    assert_same(model, inputs, expected)


@pytest.mark.filterwarnings("ignore:.*mask attached")
@pytest.mark.parametrize("family", ["Llama", "T5"])
def test_heads_come_back_after_an_export(family):
    model = backbone(family, num_layers=3)
    draw(model)
    for place, unit in enumerate(find_units(model)):
        zero(unit, unit.reader, [place % 2])
    inputs, before = inputs_of(model), sizes(model)
    expected = outputs_of(model, inputs)
    for _ in range(2):
        with compact.compacted(model) as (smaller, removed):
            assert removed["heads"][0] == sum(u.kind == HEADS for u in find_units(model))
            assert_same(smaller, inputs, expected)
        assert sizes(model) == before
        assert_same(model, inputs, expected, 0)


@pytest.mark.slow
def test_heads_whose_bias_other_layers_take_stay_and_are_named(tmp_path):
    model = backbone("T5")
    draw(model)
    units = [unit for unit in find_units(model, to_remove=False) if unit.kind == HEADS]
    for unit in units:
        zero(unit, unit.reader, [0])
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    first = "transformer_{}_layer_0/self_attention"
    named = ", ".join(map(first.format, ("encoder", "decoder")))
    with pytest.warns(UserWarning, match=f"The empty heads of {named} stay: these layers compute"):
        tf_movprune.compact(model)
    after = [u.size for u in find_units(model, to_remove=False) if u.kind == HEADS]
    assert after == [2, 1, 2, 1, 1, 1]
    assert_same(model, inputs, expected)
    model.save(tmp_path / "model.keras")
    loaded = tf_movprune.load_compacted(tmp_path / "model.keras")
    assert_same(loaded, inputs, outputs_of(model, inputs), 0)
    config = model.get_config()
    config["compacted"]["kept_heads"][0][1] = [2]
    with pytest.raises(ValueError, match=r"1 heads out of 2, .* be those at the places \[2\]"):
        type(model).from_config(config)


def test_gates_of_which_one_side_is_empty():
    model = backbone("Llama")
    draw(model)
    unit = next(unit for unit in find_units(model) if unit.kind == NEURONS)
    gate, up = unit.sources
    zero(unit, gate, [0, 1])  # silu(0) is 0
    zero(unit, up, [1, 2])
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    tf_movprune.compact(model)
    assert [unit.size for unit in find_units(model) if unit.kind == NEURONS] == [29, 32]
    assert_same(model, inputs, expected)


@pytest.mark.parametrize("family", ["Bert", "Llama", "ViT"])
def test_numbers_of_neurons_are_rounded(family):
    model = backbone(family)
    draw(model)
    empty_units(model)
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    tf_movprune.compact(model, multiple_of=8)
    neurons = [unit.size for unit in find_units(model) if unit.kind == NEURONS]
    assert all(size % 8 == 0 for size in neurons) and min(neurons) < 32
    assert_same(model, inputs, expected)


def test_mixed_precision():
    model = backbone("Bert", dtype="mixed_bfloat16")
    model, inputs, expected = compacted(model)
    expected = [value.astype("float32") for value in expected]
    found = [value.astype("float32") for value in outputs_of(model, inputs)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.05)
    assert find_units(model)[2].reader.kernel.dtype == "float32"


# ---- tasks


@saves_tasks
@pytest.mark.parametrize("family", ["Bert", pytest.param("Roberta", marks=pytest.mark.slow)])
def test_classifiers_are_saved_trained_and_exported(family, tmp_path):
    model, inputs, expected = compacted(task(f"{family}TextClassifier", family, num_classes=3))
    assert_same(model, inputs, expected)
    exact = outputs_of(model, inputs)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for path in (tmp_path / "model.keras", tmp_path / "preset"):
        loaded = tf_movprune.load_compacted(path)
        assert isinstance(loaded, getattr(keras_hub.models, f"{family}TextClassifier"))
        assert_same(loaded, inputs, exact, 0)
    kept = outputs_of(loaded.backbone, inputs)
    alone = tf_movprune.load_compacted(tmp_path / "preset", keras_hub.models.Backbone)
    assert_same(alone, inputs, kept, 0)

    tf_movprune.export_saved_model(model, tmp_path / "saved", inputs=inputs)
    report = tf_movprune.export_tflite(
        model, tmp_path / "model.tflite", sequence_length=8, quantization=None
    )
    assert report.max_abs_diff < TOLERANCE
    assert tf_movprune.summarize_sparsity(model).sparsity < 0.2
    tf_movprune.export_compressed(model, tmp_path / "model.movprune", quantization=None)
    cls = getattr(keras_hub.models, f"{family}TextClassifier")
    assert_same(tf_movprune.load_compressed(tmp_path / "model.movprune", cls), inputs, exact, 0)
    assert tf_movprune.size_report(model) is not None

    before = np.array(find_units(model)[2].reader.kernel)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, np.array([0, 1]), verbose=0)
    assert np.any(np.array(find_units(model)[2].reader.kernel) != before)


@saves_tasks
@pytest.mark.parametrize(
    "name, family",
    [
        ("GPT2CausalLM", "GPT2"),
        ("LlamaCausalLM", "Llama"),
        *(
            pytest.param(f"{family}CausalLM", family, marks=pytest.mark.slow)
            for family in ("OPT", "Gemma", "Gemma3", "Qwen3")
        ),
    ],
)
def test_generation_with_caches(name, family, tmp_path):
    model = task(name, family)
    draw(model, seed=4)
    if family in (
        "Gemma",
        "Gemma3",
        "Qwen3",
    ):  # or each token, by the tied embedding, is followed by itself
        for weight in model.weights:
            if "norm" in weight.path:
                weight.assign(np.random.RandomState(4).standard_normal(weight.shape))
    empty_units(model, share=0.3)
    model.compile(sampler="greedy")
    prompt = {"token_ids": np.array([[3, 4, 5, 0, 0, 0, 0, 0]])}
    prompt["padding_mask"] = prompt["token_ids"] != 0

    def generate(model):  # in Gemma3 a step of it: generate fails on prompts without images
        run = model.generate_step if family == "Gemma3" else model.generate
        return np.array(run(prompt, stop_token_ids=None)["token_ids"])

    expected = generate(model)
    assert len(set(expected[0, 3:].tolist())) > 1
    tf_movprune.compact(model)
    model.compile(sampler="greedy")
    np.testing.assert_array_equal(generate(model), expected)
    model.save_to_preset(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path)
    loaded.compile(sampler="greedy")
    np.testing.assert_array_equal(generate(loaded), expected)


@pytest.mark.parametrize("family", quick("Bart", of=["Bart", "T5"]))
def test_generation_with_caches_of_two_attentions(family):
    model = task(f"{family}Seq2SeqLM", family)
    draw(model)
    empty_units(model, share=0.3)
    model.compile(sampler="greedy")
    tokens = np.array([[3, 4, 5, 6, 7, 1, 1, 1]])
    prompt = {"encoder_token_ids": tokens, "encoder_padding_mask": tokens != 1}
    prompt |= {
        "decoder_token_ids": np.array([[2, 9, 0, 0, 0, 0, 0, 0]]),
        "decoder_padding_mask": np.arange(8)[None] < 2,
    }
    expected = model.generate(prompt, stop_token_ids=None)["decoder_token_ids"]
    tf_movprune.compact(model)
    model.compile(sampler="greedy")
    found = model.generate(prompt, stop_token_ids=None)["decoder_token_ids"]
    np.testing.assert_array_equal(found, expected)


# ---- blocks in other models


def model_of_blocks(scores=False):
    inputs = keras.Input([6, 16])
    encoder = keras_hub.layers.TransformerEncoder(32, 4, activation="sigmoid")
    x = encoder(inputs, return_attention_scores=scores)
    x = x[0] if scores else x
    x = keras_hub.layers.TransformerDecoder(24, 2, activation="gelu")(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


SEQUENCES = np.random.RandomState(0).standard_normal([2, 6, 16]).astype("float32")


def test_blocks_in_a_functional_model_tell_their_sizes(tmp_path):
    model = model_of_blocks()
    draw(model)
    empty_units(model, share=0.3)
    expected = outputs_of(model, SEQUENCES)
    names = [weight.path for weight in model.weights]
    tf_movprune.compact(model)
    assert len(sizes(model)) == 4
    assert [weight.path for weight in model.weights] == names
    assert_same(model, SEQUENCES, expected)
    model.save(tmp_path / "model.keras")
    loaded = tf_movprune.load_compacted(tmp_path / "model.keras")
    assert sizes(loaded) == sizes(model)
    assert_same(loaded, SEQUENCES, outputs_of(model, SEQUENCES), 0)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert_same(copy, SEQUENCES, outputs_of(model, SEQUENCES), 0)

    draw(loaded, seed=3)
    empty_units(loaded, seed=4)
    expected = outputs_of(loaded, SEQUENCES)
    tf_movprune.compact(loaded)  # once more
    assert sum(sizes(loaded)) < sum(sizes(model))
    assert_same(loaded, SEQUENCES, expected)
    loaded.save(tmp_path / "again.keras")
    again = tf_movprune.load_compacted(tmp_path / "again.keras")
    assert_same(again, SEQUENCES, outputs_of(loaded, SEQUENCES), 0)


def test_blocks_whose_scores_a_graph_shows_keep_their_heads():
    model = model_of_blocks(scores=True)
    assert [unit.size for unit in find_units(model) if unit.kind == HEADS] == [2]


@keras.saving.register_keras_serializable("tests")
class Classifier(keras.Model):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.encoder = keras_hub.layers.TransformerEncoder(width, 4)
        self.mlp = keras.Sequential(
            [keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)], name="mlp"
        )

    def build(self, shape):
        self.encoder.build(shape)
        self.mlp.build(shape)
        self.built = True

    def call(self, inputs):
        return self.mlp(self.encoder(inputs))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def test_subclassed_models_tell_their_sizes(tmp_path):
    model = Classifier(24)
    model(SEQUENCES)
    draw(model)
    empty_units(model)
    expected = outputs_of(model, SEQUENCES)
    tf_movprune.compact(model)
    assert isinstance(model, Classifier)
    assert_same(model, SEQUENCES, expected)
    model.save(tmp_path / "model.keras")
    loaded = tf_movprune.load_compacted(tmp_path / "model.keras")
    assert isinstance(loaded, Classifier) and sizes(loaded) == sizes(model)
    assert_same(loaded, SEQUENCES, outputs_of(model, SEQUENCES), 0)
    exported = tmp_path / "model.movprune"
    tf_movprune.export_compressed(model, exported, quantization=None)
    loaded = tf_movprune.load_compressed(exported, Classifier)
    assert_same(loaded, SEQUENCES, outputs_of(model, SEQUENCES), 0)


def test_quantized_layers_and_layers_with_lora_stay():
    model = model_of_blocks()
    encoder, decoder = model.layers[1:3]
    encoder._feedforward_output_dense.quantize("int8")
    decoder._self_attention_layer._query_dense.enable_lora(2)
    assert [(unit.kind, unit.size) for unit in find_units(model)] == [(HEADS, 4), (NEURONS, 24)]


# ---- what goes wrong


def test_pruned_and_unbuilt_models_are_refused():
    model = model_of_blocks()
    tf_movprune.prune_low_movement(model, tf_movprune.CubicSparsity(0.5, 0, 1))
    with pytest.raises(ValueError, match="still pruned"):
        tf_movprune.compact(model)
    with pytest.raises(ValueError, match="has no weights"):
        tf_movprune.compact(Classifier(8))


def test_what_is_no_compacted_model_is_refused(tmp_path):
    backbone("Bert").save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="not that of a compacted model"):
        tf_movprune.load_compacted(tmp_path / "preset")
    (tmp_path / "model.keras").write_text("no archive")
    with pytest.raises(ValueError, match=r"is no \.keras file"):
        tf_movprune.load_compacted(tmp_path / "model.keras")
    model, *_ = compacted(backbone("Bert"))
    model.save_to_preset(tmp_path / "small")
    with pytest.raises(TypeError, match="model_class must be a class of KerasHub"):
        tf_movprune.load_compacted(tmp_path / "small", keras.Sequential)


def test_code_in_a_file_is_refused(tmp_path):
    """The bytes of a function are in the file, and Keras's safe mode makes none of them."""
    layers = [keras.layers.Dense(3), keras.layers.Lambda(lambda x: x + 1)]
    keras.Sequential([keras.Input([4]), *layers]).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"lambda.*safe_mode=False"):
        tf_movprune.load_compacted(tmp_path / "model.keras")


@saves_tasks
def test_presets_of_other_classes_are_refused_or_warned_of(monkeypatch, tmp_path):
    hub = keras_hub.models
    monkeypatch.setattr(hub.BertMaskedLM, "preprocessor_cls", None)  # the presets have none
    model, inputs, _ = compacted(task("BertTextClassifier", "Bert", num_classes=3))
    model.save_to_preset(tmp_path / "task")
    model.backbone.save_to_preset(tmp_path / "backbone")
    expected = outputs_of(model.backbone, inputs)
    for folder, words in [("task", "a BertTextClassifier"), ("backbone", "a BertBackbone")]:
        with pytest.warns(UserWarning, match=rf"{words}. BertMaskedLM .* new and random") as caught:
            other = tf_movprune.load_compacted(tmp_path / folder, hub.BertMaskedLM)
        assert caught[0].filename == __file__
        assert_same(other.backbone, inputs, expected, 0)
        for cls in (hub.GPT2Backbone, hub.GPT2CausalLM, hub.MaskedLM):
            with pytest.raises(ValueError, match=rf"{words}, which model_class={cls.__name__} "):
                tf_movprune.load_compacted(tmp_path / folder, cls)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* new and random")
        same = tf_movprune.load_compacted(tmp_path / "task", hub.TextClassifier)
    assert_same(same, inputs, outputs_of(model, inputs), 0)


_IN_A_NEW_PROCESS = """
import sys
import tf_movprune, keras_hub, keras
file, preset = sys.argv[1:]
plain = [
    (keras.saving.load_model, file),
    (keras_hub.models.TextClassifier.from_preset, preset),
    (keras_hub.models.BertTextClassifier.from_preset, preset),
    (keras_hub.models.Backbone.from_preset, preset),
]
for load, path in plain:
    try:
        load(path)
    except (ValueError, TypeError) as error:
        assert "Compacted" in str(error), error
    else:
        raise AssertionError(load)
small = tf_movprune.load_compacted(preset)
assert keras.saving.load_model(file).count_params() == small.count_params()  # it is known now
assert not {"tf_keras", "tensorflow_model_optimization", "transformers"} & set(sys.modules)
"""


@saves_tasks
def test_another_process_needs_load_compacted(tmp_path):
    model, *_ = compacted(task("BertTextClassifier", "Bert", num_classes=3))
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    paths = [str(tmp_path / name) for name in ("model.keras", "preset")]
    # With that variable, TensorFlow imports tf_keras.
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", _IN_A_NEW_PROCESS, *paths], check=True, env=env)
