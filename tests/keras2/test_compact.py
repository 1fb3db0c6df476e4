"""Smaller models with the same outputs."""

import collections.abc
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune.keras2 import compact

TOLERANCE = 1e-5


def outputs_of(model, inputs):
    outputs = model(inputs, training=False)
    return np.asarray(getattr(outputs, "logits", outputs))


def zero(variable, rows=slice(None), columns=slice(None)):
    array = variable.numpy()
    array[rows, columns] = 0
    variable.assign(array)


# ---- clones


def chain():
    return keras.Sequential(
        [
            keras.layers.Dense(12, "gelu", name="first"),
            keras.layers.Dense(10, "relu", name="second"),
            keras.layers.Dense(3, name="third"),
        ]
    )


def test_the_model_that_was_compacted_is_as_it_was():
    inputs = np.random.RandomState(1).normal(size=[4, 8]).astype("float32")
    model = chain()
    model(inputs)
    zero(model.get_layer("second").kernel, rows=[0, 5])
    expected = outputs_of(model, inputs)
    smaller = tf_movprune.compact(model)
    assert type(smaller) is type(model) and smaller is not model
    assert [layer.units for layer in smaller.layers] == [10, 10, 3]
    np.testing.assert_array_equal(outputs_of(model, inputs), expected)


def test_attention_in_a_subclassed_model_is_replaced_by_another():
    class Encoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(4, 6)

        def call(self, inputs):
            return self.attention(inputs, inputs)

    model = Encoder()
    model(tf.zeros([1, 3, 8]))
    attention = model.attention
    zero(attention._output_dense.kernel, rows=slice(1, 3))
    assert tf_movprune.compact(model) is model
    assert model.attention is not attention
    assert (model.attention._num_heads, attention._num_heads) == (2, 4)


# ---- Hugging Face


def hugging_face_model(kind, **changes):
    transformers = pytest.importorskip("transformers")
    if kind == "DistilBert":
        config = transformers.DistilBertConfig(
            vocab_size=50,
            dim=16,
            n_layers=2,
            n_heads=4,
            hidden_dim=24,
            max_position_embeddings=20,
            **changes,
        )
    else:
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=24,
            max_position_embeddings=20,
            **changes,
        )
    keras.utils.set_random_seed(0)
    model = getattr(transformers, f"TF{kind}ForSequenceClassification")(config)
    model(model.dummy_inputs)
    random = np.random.RandomState(0)
    for weight in model.weights:
        if "norm" not in weight.name.lower():
            weight.assign(random.normal(0, 0.2, weight.shape))
    return model


def layers_of(model):
    """(query, value, output, first, second) of each encoder layer."""
    main = getattr(model, model.base_model_prefix)
    if hasattr(main, "transformer"):
        for layer in main.transformer.layer:
            a = layer.attention
            yield a.q_lin, a.v_lin, a.out_lin, layer.ffn.lin1, layer.ffn.lin2
    else:
        for layer in main.encoder.layer:
            a = layer.attention.self_attention
            output = layer.attention.dense_output.dense
            yield a.query, a.value, output, layer.intermediate.dense, layer.bert_output.dense


def empty_some(model):
    """Heads 1 (never read) and 3 (reads nothing) of layer 0, all of layer 1; 10 and 24 neurons."""
    (_, value, output, first, second), (_, _, last, _, nothing) = layers_of(model)
    zero(output.kernel, rows=slice(4, 8))
    zero(value.kernel, columns=slice(12, 16))
    zero(second.kernel, rows=slice(0, 6))
    zero(first.kernel, columns=slice(6, 10))
    zero(last.kernel)
    zero(nothing.kernel)


KINDS = ["Bert", "Roberta", "Electra", "DistilBert"]
TOKENS = {
    "input_ids": tf.constant([[5, 9, 3, 7, 2], [8, 2, 4, 1, 1]]),
    "attention_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_hugging_face_encoders_shrink_and_give_the_same(kind, tmp_path):
    model = hugging_face_model(kind)
    getattr(model, model.base_model_prefix).embeddings.trainable = False  # last of the weights
    empty_some(model)
    expected = outputs_of(model, TOKENS)
    names = [weight.name for weight in model.weights]
    assert tf_movprune.compact(model) is model
    (query, _, output, first, second), (last_query, _, _, last, _) = layers_of(model)
    assert query.units == 8 and output.kernel.shape == (8, 16)
    assert first.units == 14 and second.kernel.shape == (14, 16)
    assert last_query.units == 4 and last.units == 1
    assert [weight.name for weight in model.weights] == names
    assert model.config.pruned_heads == {0: [1, 3], 1: [1, 2, 3]}
    assert model.config.intermediate_sizes == [14, 1]
    found = outputs_of(model, TOKENS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    for safe_serialization in (False, True) if kind == "Bert" else (True,):
        folder = tmp_path / f"safe {safe_serialization}"
        model.save_pretrained(folder, safe_serialization=safe_serialization)
        loaded = tf_movprune.load_compacted(folder)
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(outputs_of(loaded, TOKENS), found)


def test_a_compacted_model_trains_is_exported_and_is_compacted_again(tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model)
    before = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    model.fit(dict(TOKENS), tf.constant([0, 1]), verbose=0)
    (query, _, output, *_), _ = layers_of(model)
    place = [weight.name for weight in model.weights].index(query.kernel.name)
    assert not np.allclose(query.kernel, before[place])
    report = tf_movprune.export_tflite(
        model, tmp_path / "model.tflite", sequence_length=5, quantization=None
    )
    assert report.max_abs_diff < TOLERANCE
    zero(output.kernel, rows=slice(4, 8))  # the head that was number 2
    expected = outputs_of(model, TOKENS)
    tf_movprune.compact(model)
    assert model.config.pruned_heads == {0: [1, 2, 3], 1: [1, 2, 3]}
    np.testing.assert_allclose(outputs_of(model, TOKENS), expected, rtol=0, atol=TOLERANCE)
    model.save_pretrained(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path)
    np.testing.assert_array_equal(outputs_of(loaded, TOKENS), outputs_of(model, TOKENS))


def tiny_config(kind, **changes):
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, f"{kind}Config")(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=20,
        **changes,
    )


def test_models_that_share_a_configuration():
    transformers = pytest.importorskip("transformers")
    config = tiny_config("Bert")
    model, other = (transformers.TFBertModel(config) for _ in range(2))
    model(model.dummy_inputs)
    zero(model.bert.encoder.layer[0].bert_output.dense.kernel, rows=slice(0, 4))
    tf_movprune.compact(model)
    assert model.config.intermediate_sizes == model.bert.config.intermediate_sizes == [20]
    assert not hasattr(config, "intermediate_sizes") and other.config is config


class Regression(keras.Model):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(self.encoder(inputs).pooler_output)


def test_an_encoder_inside_another_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = Regression(transformers.TFBertModel(tiny_config("Bert")))
    model.encoder(dict(TOKENS))  # or its weights have the names of the model around it
    model(dict(TOKENS))
    zero(model.encoder.bert.encoder.layer[0].bert_output.dense.kernel, rows=slice(0, 4))
    expected = outputs_of(model, dict(TOKENS))
    tf_movprune.compact(model)
    np.testing.assert_allclose(outputs_of(model, dict(TOKENS)), expected, rtol=0, atol=TOLERANCE)
    model.encoder.save_pretrained(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path)
    np.testing.assert_array_equal(
        loaded(TOKENS).pooler_output, model.encoder(dict(TOKENS)).pooler_output
    )


def test_encoders_and_decoders_with_cross_attention():
    transformers = pytest.importorskip("transformers")
    encoder = transformers.TFBertModel(tiny_config("Bert"))
    decoder = transformers.TFBertLMHeadModel(
        tiny_config("Bert", is_decoder=True, add_cross_attention=True)
    )
    model = transformers.TFEncoderDecoderModel(encoder=encoder, decoder=decoder)
    inputs = {"input_ids": TOKENS["input_ids"], "decoder_input_ids": TOKENS["input_ids"]}
    model(inputs)
    for layer in (encoder.bert.encoder.layer[0], decoder.bert.encoder.layer[0]):
        zero(layer.attention.dense_output.dense.kernel, rows=slice(4, 8))
        zero(layer.bert_output.dense.kernel, rows=slice(0, 4))
    expected = outputs_of(model, inputs)
    tf_movprune.compact(model)
    assert encoder.bert.encoder.layer[0].intermediate.dense.units == 20
    assert decoder.bert.config.intermediate_sizes == [20]
    assert encoder.config is not encoder.bert.config  # transformers has made a copy
    for config in (encoder.config, model.config.encoder, decoder.config, model.config.decoder):
        assert config.pruned_heads == {0: [1]} and config.intermediate_sizes == [20]
    np.testing.assert_allclose(outputs_of(model, inputs), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["ConvBert", "RemBert"])
def test_encoders_that_only_resemble_bert_stay(kind):
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, f"TF{kind}Model")(tiny_config(kind))
    model(model.dummy_inputs)
    for weight in model.weights:
        weight.assign(tf.zeros_like(weight))
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)


def test_a_class_of_ones_own_is_named_for_loading(tmp_path):
    transformers = pytest.importorskip("transformers")

    class TFMine(transformers.TFBertForSequenceClassification):
        pass

    model = TFMine(tiny_config("Bert"))
    model(model.dummy_inputs)
    zero(model.bert.encoder.layer[0].bert_output.dense.kernel, rows=slice(0, 4))
    tf_movprune.compact(model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"transformers has no TFMine\..* as model_class"):
        tf_movprune.load_compacted(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path, TFMine)
    np.testing.assert_array_equal(outputs_of(loaded, TOKENS), outputs_of(model, TOKENS))


def test_unstructured_zeros_remove_nothing():
    model = hugging_face_model("Bert")
    for dense in layers_of(model):
        for layer in dense:
            array = layer.kernel.numpy()
            array[np.random.RandomState(0).uniform(size=array.shape) < 0.5] = 0
            layer.kernel.assign(array)
    with pytest.warns(UserWarning, match="No head and no neuron"):
        tf_movprune.compact(model)
    assert not hasattr(model.config, "intermediate_sizes")


def test_folders_without_a_compacted_model(tmp_path):
    with pytest.raises(ValueError, match="save_pretrained"):
        tf_movprune.load_compacted(tmp_path)
    model = hugging_face_model("Bert")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_pretrained"):
        tf_movprune.load_compacted(tmp_path)


# ---- what the configuration of an encoder says of heads and neurons that are gone

PRUNED = [{0: [0]}, {0: [0, 2], 1: [1]}, {"1": [3, 3, 0]}, {0: [0, 1, 2, 3], 1: [7]}]


def assert_compacts_to(model, pruned_heads, sizes, folder):
    """Asserts what a compacted model records, that its outputs stay, and that it can be loaded."""
    expected = outputs_of(model, TOKENS)
    tf_movprune.compact(model)
    assert model.config.pruned_heads == pruned_heads
    assert model.config.intermediate_sizes == sizes
    main = getattr(model, model.base_model_prefix)
    assert main.config is model.config
    found = outputs_of(model, TOKENS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    model.save_pretrained(folder)
    np.testing.assert_array_equal(outputs_of(tf_movprune.load_compacted(folder), TOKENS), found)


@pytest.mark.parametrize(
    "kind, pruned_heads", [("Bert", x) for x in PRUNED] + [(x, PRUNED[1]) for x in KINDS[1:]]
)
def test_heads_that_are_listed_as_removed_but_are_there(kind, pruned_heads, tmp_path):
    model = hugging_face_model(kind, pruned_heads=pruned_heads)
    config = model.config
    empty_some(model)
    assert_compacts_to(model, {0: [1, 3], 1: [1, 2, 3]}, [14, 1], tmp_path)
    assert config.pruned_heads == pruned_heads and not hasattr(config, "intermediate_sizes")


def test_a_model_from_the_hub_that_loses_neurons_alone_and_heads_later(tmp_path):
    transformers = pytest.importorskip("transformers")
    hugging_face_model("Bert").save_pretrained(tmp_path / "hub", safe_serialization=False)
    config = json.loads((tmp_path / "hub/config.json").read_text())
    config["pruned_heads"] = {"0": [0, 2], "1": [1]}
    (tmp_path / "hub/config.json").write_text(json.dumps(config))
    model = transformers.TFBertForSequenceClassification.from_pretrained(tmp_path / "hub")
    (*_, second), (_, _, output, _, _) = layers_of(model)
    zero(second.kernel, rows=slice(0, 6))
    assert_compacts_to(model, {}, [18, 24], tmp_path / "small")
    zero(output.kernel, rows=slice(12, 16))
    assert_compacts_to(model, {1: [3]}, [18, 24], tmp_path / "smaller")
    zero(list(layers_of(model))[1][2].kernel, rows=slice(0, 4))
    assert_compacts_to(model, {1: [0, 3]}, [18, 24], tmp_path / "smallest")


SHARED = pathlib.Path(
    os.environ.get(
        "TF_MOVPRUNE_PYTORCH_CHECKPOINTS",
        pathlib.Path(__file__).parents[3] / "shared" / "pytorch_checkpoints",
    )
)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no checkpoints as on the hub in {SHARED}")
def test_a_checkpoint_as_it_stands_on_the_hub(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = transformers.TFBertForQuestionAnswering.from_pretrained(SHARED / "d2_hub")
    inputs = np.load(SHARED / "inputs.npz")
    inputs = {"input_ids": inputs["ids"], "attention_mask": inputs["att"]}
    expected = np.load(SHARED / "d2_hub/expected_h5.npy")
    tf_movprune.compact(model)
    model.save_pretrained(tmp_path)
    for small in (model, tf_movprune.load_compacted(tmp_path)):
        outputs = small(inputs)
        found = np.stack([outputs.start_logits, outputs.end_logits])
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "pruned_heads", [{"0": [3, 1], "1": [2, 3, 1]}, {0: [1, 3, 3], 1: [3, 2, 1, 1]}]
)
def test_heads_that_are_gone_are_listed_in_any_way(pruned_heads, tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model)
    model.config.pruned_heads = pruned_heads
    zero(next(layers_of(model))[2].kernel, rows=slice(4, 8))  # the head that was number 2
    assert_compacts_to(model, {0: [1, 2, 3], 1: [1, 2, 3]}, [14, 1], tmp_path)


def state_of(model):
    """All layers and their attributes, without lists and mappings."""
    books = (list, dict, collections.abc.MutableMapping)
    return [
        (layer, {name: id(x) for name, x in vars(layer).items() if not isinstance(x, books)})
        for layer in model.submodules
        if isinstance(layer, keras.layers.Layer)
    ]


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
@pytest.mark.parametrize(
    "name, value, message",
    [
        ("pruned_heads", {}, r"attention.*' has 2 of the 4 heads .* lists \[\] for layer 0"),
        ("pruned_heads", {0: [1]}, r"lists \[1\] for layer 0.*pruned_heads\[0\] to .* 2 of"),
        ("pruned_heads", {0: [1, 3], 1: [1, 2]}, r"has 1 of .* lists \[1, 2\] for layer 1"),
        ("pruned_heads", {0: [1, 9]}, r"lists \[1, 9\] for layer 0"),
        ("intermediate_sizes", [13, 1], r"number 0, has 14 neurons, .* 24, and .* \[13, 1\]"),
        ("intermediate_sizes", [14], r"number 1, has 1 neuron, .* delete its intermediate_sizes"),
        ("intermediate_sizes", [], r"number 0, has 14 neurons"),
    ],
)
def test_a_configuration_that_does_not_go_with_the_layers(kind, name, value, message):
    model = hugging_face_model(kind)
    empty_some(model)
    tf_movprune.compact(model)
    setattr(model.config, name, value)
    zero(next(layers_of(model))[4].kernel, rows=slice(2))
    model.compile("adam", "mse")
    expected, before = outputs_of(model, TOKENS), state_of(model)
    with pytest.raises(ValueError, match=message):
        tf_movprune.compact(model)
    assert state_of(model) == before
    np.testing.assert_array_equal(outputs_of(model, TOKENS), expected)


def test_sizes_of_neurons_may_be_missing_but_not_be_less_than_there_are(tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model)
    del model.config.intermediate_sizes
    zero(next(layers_of(model))[4].kernel, rows=slice(2))
    assert_compacts_to(model, {0: [1, 3], 1: [1, 2, 3]}, [12, 1], tmp_path)
    del model.config.intermediate_sizes
    model.config.intermediate_size = 10
    zero(next(layers_of(model))[4].kernel, rows=slice(2))
    with pytest.raises(ValueError, match=r"has 12 neurons, .* full size of 10\. .* made or comp"):
        tf_movprune.compact(model)


@pytest.mark.parametrize("step", ["record_sizes", "_rebuilt", "forget_compilation"])
def test_configurations_are_those_of_before_if_a_step_fails(step, monkeypatch):
    model = hugging_face_model("Bert", pruned_heads={0: [0]})
    empty_some(model)
    model.compile("adam", "mse")
    config, described = model.config, model.config.to_dict()
    before, expected = state_of(model), outputs_of(model, TOKENS)
    original = getattr(compact, step)

    def fail(*args):
        original(*args)
        raise MemoryError

    monkeypatch.setattr(compact, step, fail)
    with pytest.raises(MemoryError):
        tf_movprune.compact(model)
    assert state_of(model) == before
    assert model.config is model.bert.config is config and config.to_dict() == described
    np.testing.assert_array_equal(outputs_of(model, TOKENS), expected)


@pytest.mark.slow
def test_exports_of_a_model_from_the_hub(tmp_path):
    model = hugging_face_model("Bert", pruned_heads={0: [0, 2], 1: [1]})
    empty_some(model)
    config, before, expected = model.config, state_of(model), outputs_of(model, TOKENS)
    report = tf_movprune.export_tflite(model, tmp_path / "a.tflite", sequence_length=5)
    assert report.max_abs_diff < 0.1 and report.removed == {"heads": (5, 8), "neurons": (33, 48)}
    assert tf_movprune.export_saved_model(model, tmp_path / "saved").max_abs_diff < TOLERANCE
    full = tf_movprune.size_report(model).total("dense float32")
    assert state_of(model) == before and model.config is config
    for shrink in (False, True):
        if shrink:
            tf_movprune.compact(model)
        tf_movprune.export_compressed(model, tmp_path / "model", quantization=None)
        loaded = tf_movprune.load_compressed(tmp_path / "model", type(model))
        np.testing.assert_allclose(outputs_of(loaded, TOKENS), expected, rtol=0, atol=TOLERANCE)
    removed = sum(weight.shape.num_elements() for weight in model.weights) * 4
    assert tf_movprune.size_report(model).total("dense float32") == removed < full


@pytest.mark.parametrize("config", [{"a": 1}, (1, 2), 3, [{}]])
def test_a_layer_of_ones_own_has_a_configuration_of_another_kind(config):
    transformers = pytest.importorskip("transformers")
    model = Regression(transformers.TFBertModel(tiny_config("Bert")))
    model.config = model.head.config = config
    model(dict(TOKENS))
    zero(model.encoder.bert.encoder.layer[0].bert_output.dense.kernel, rows=slice(0, 4))
    tf_movprune.compact(model)
    assert model.encoder.config.intermediate_sizes == [20] and model.config == config


class Pair(keras.Model):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def call(self, inputs):
        return self.first(inputs).pooler_output + self.second(inputs).pooler_output


@pytest.mark.parametrize("shares", [True, False])
def test_each_of_two_encoders_has_a_record_of_its_own(shares, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = tiny_config("Bert", pruned_heads={0: [2]})
    other = config if shares else tiny_config("Bert", pruned_heads={0: [0, 1]})
    model = Pair(transformers.TFBertModel(config), transformers.TFBertModel(other))
    for encoder in (model.first, model.second):
        encoder(dict(TOKENS))
    model(dict(TOKENS))
    encoders = model.first, model.second
    for emptied, removed in [(([1], [0, 3]), ([1], [0, 3])), (([1], [1]), ([1, 2], [0, 2, 3]))]:
        for encoder, places in zip(encoders, emptied):
            output = encoder.bert.encoder.layer[0].attention.dense_output.dense
            for place in places:
                zero(output.kernel, slice(4 * place, 4 * place + 4))
        expected = outputs_of(model, dict(TOKENS))
        tf_movprune.compact(model)
        found = outputs_of(model, dict(TOKENS))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        for encoder, heads in zip(encoders, removed):
            assert encoder.config is encoder.bert.config
            assert encoder.config.pruned_heads == {0: heads}
            assert encoder.config.intermediate_sizes == [24]
            encoder.save_pretrained(tmp_path)
            loaded = tf_movprune.load_compacted(tmp_path)
            np.testing.assert_array_equal(
                loaded(TOKENS).pooler_output, encoder(dict(TOKENS)).pooler_output
            )
    assert config.pruned_heads == {0: [2]} and not hasattr(config, "intermediate_sizes")


def test_two_encoders_in_one_model_of_hugging_face_with_one_configuration(tmp_path):
    transformers = pytest.importorskip("transformers")
    bert = pytest.importorskip("transformers.models.bert.modeling_tf_bert")

    class TFPair(transformers.TFBertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.first = bert.TFBertMainLayer(config, name="first")
            self.second = bert.TFBertMainLayer(config, name="second")

        def call(self, input_ids=None, attention_mask=None, training=False):
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.first(**inputs)[1] + self.second(**inputs)[1]

    model = TFPair(tiny_config("Bert"))
    model(TOKENS)
    zero(model.second.encoder.layer[0].attention.dense_output.dense.kernel, slice(0, 4))
    expected = outputs_of(model, TOKENS)
    tf_movprune.compact(model).save_pretrained(tmp_path)
    assert model.first.config is model.second.config is model.config
    assert model.config.pruned_heads == {1: [0]}
    loaded = tf_movprune.load_compacted(tmp_path, TFPair)
    for found in (outputs_of(model, TOKENS), outputs_of(loaded, TOKENS)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["of another size", "of two", "around one of two"])
def test_configurations_that_describe_no_single_encoder_stay(case):
    transformers = pytest.importorskip("transformers")
    bert = pytest.importorskip("transformers.models.bert.modeling_tf_bert")

    class TFAround(transformers.TFPreTrainedModel):
        def __init__(self, config, *inner):
            super().__init__(config)
            self.parts = [bert.TFBertMainLayer(x, name=f"part_{i}") for i, x in enumerate(inner)]

        def call(self, inputs):
            return sum(part(**inputs)[1] for part in self.parts)

    inner = [tiny_config("Bert"), tiny_config("Bert")]
    config = tiny_config("Bert")
    if case == "of another size":
        inner, config.num_hidden_layers = inner[:1], 2
    elif case == "around one of two":
        inner, config = [inner[0], inner[0]], transformers.PretrainedConfig(inner=inner[0])
    model = TFAround(config, *inner)
    model(dict(TOKENS))
    for place, part in enumerate(model.parts):
        zero(part.encoder.layer[0].attention.dense_output.dense.kernel, slice(4 * place + 4))
    described = config.to_dict()
    tf_movprune.compact(model)
    assert [x.config.pruned_heads for x in model.parts] == [{0: [0]}, {0: [0, 1]}][: len(inner)]
    assert model.config is config and config.to_dict() == described


def test_a_layer_of_two_models_keeps_one_configuration():
    transformers = pytest.importorskip("transformers")
    model = Pair(*(transformers.TFBertModel(tiny_config("Bert")) for _ in range(2)))
    model.second.bert = model.first.bert
    model.second.config = model.first.config
    model(dict(TOKENS))
    zero(model.first.bert.encoder.layer[0].attention.dense_output.dense.kernel, slice(0, 4))
    tf_movprune.compact(model)
    assert model.first.config is model.second.config is model.first.bert.config
    assert model.first.config.pruned_heads == {0: [0]}


def test_configurations_inside_that_of_an_encoder_and_a_decoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        tiny_config("Bert", pruned_heads={0: [2]}),
        tiny_config("Bert", is_decoder=True, add_cross_attention=True),
    )
    model, other = (transformers.TFEncoderDecoderModel(config) for _ in range(2))
    inputs = {"input_ids": TOKENS["input_ids"], "decoder_input_ids": TOKENS["input_ids"]}
    model(inputs)
    for part, places in ((model.encoder, slice(4, 8)), (model.decoder, slice(4, 12))):
        zero(part.bert.encoder.layer[0].attention.dense_output.dense.kernel, places)
    expected = outputs_of(model, inputs)
    tf_movprune.compact(model)
    assert model.config.encoder is model.encoder.config is model.encoder.bert.config
    assert model.config.decoder is model.decoder.config is model.decoder.bert.config
    assert model.config.encoder.pruned_heads == {0: [1]}
    assert model.config.decoder.pruned_heads == {0: [1, 2]}
    assert other.config is config and config.encoder.pruned_heads == {0: [2]}
    model.save_pretrained(tmp_path)
    for small in (model, tf_movprune.load_compacted(tmp_path)):
        found = outputs_of(small, inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pruned_heads": {"0": [0, 1, 2, 3]}}, r"pruned_heads of layer 0 .* 0 to 3, but not all"),
        ({"pruned_heads": {"1": [0, 4]}}, r"pruned_heads of layer 1 .* got \[0, 4\]"),
        ({"intermediate_sizes": [14]}, r"each of the 2 encoder layers, got \[14\]"),
        ({"intermediate_sizes": [14, 0]}, r"from 1 to 24, got \[14, 0\]"),
        ({"intermediate_sizes": [25, 1]}, r"from 1 to 24"),
        ({"intermediate_sizes": [14.5, 1]}, r"whole numbers"),
    ],
)
def test_files_whose_configuration_leaves_what_cannot_be(changes, message, tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        tf_movprune.load_compacted(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_makes_models_of_full_size_from_lists_of_removed_heads(kind):
    model = hugging_face_model(kind, pruned_heads={"0": [0, 2], 1: [1]})
    assert [query.units for query, *_ in layers_of(model)] == [16, 16]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])

    def call(self, x):
        return self.body(x)


def subclassed():
    model = Subclassed()
    model.predict(np.ones([2, 6], np.float32), verbose=0)
    return model


def sequential():
    return keras.Sequential([keras.Input([6]), *subclassed().body.layers])


@pytest.mark.parametrize(
    "make, name",
    [
        *((sequential, name) for name in ("small.keras", "small.h5", "small")),
        (subclassed, "small"),
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_other_compacted_models_are_loaded_by_keras(make, name, tmp_path):
    pytest.importorskip("transformers")
    model = make()
    zero(model.weights[2], rows=slice(0, 4))
    small = tf_movprune.compact(model)
    assert small.weights[0].shape == (6, 4)
    x = np.random.RandomState(0).standard_normal([5, 6]).astype("float32")
    expected = small.predict(x, verbose=0)
    small.save(tmp_path / name)
    loaded = keras.models.load_model(tmp_path / name)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"Hugging Face .*Other .*tf_keras\.models\.load_model"):
        tf_movprune.load_compacted(tmp_path / name)
    with pytest.raises(TypeError, match=r"model_class must be a class of Hugging Face.*load_model"):
        tf_movprune.load_compacted(tmp_path / name, keras.Sequential)


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_a_compacted_model_from_a_compressed_file(kind, tmp_path):
    pytest.importorskip("zstandard")
    model = hugging_face_model(kind)
    empty_some(model)
    tf_movprune.compact(model)
    tf_movprune.export_compressed(model, tmp_path / "model", quantization=None)
    loaded = tf_movprune.load_compressed(tmp_path / "model", type(model))
    np.testing.assert_array_equal(outputs_of(loaded, TOKENS), outputs_of(model, TOKENS))


@pytest.mark.parametrize("safe_serialization", [False, True])
def test_weights_of_another_size_than_the_configuration_says(safe_serialization, tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model)
    model.config.intermediate_sizes = [13, 1]
    model.save_pretrained(tmp_path, safe_serialization=safe_serialization)
    with pytest.raises(ValueError, match="not those of the configuration"):
        tf_movprune.load_compacted(tmp_path)
