"""Smaller models with the same outputs."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

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


def hugging_face_model(kind):
    transformers = pytest.importorskip("transformers")
    if kind == "DistilBert":
        config = transformers.DistilBertConfig(
            vocab_size=50, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=20
        )
    else:
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=24,
            max_position_embeddings=20,
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
