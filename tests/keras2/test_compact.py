"""Smaller models with the same outputs."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from modes import precision

import tf_movprune

TOLERANCE = 1e-5


def outputs_of(model, inputs):
    outputs = model(inputs, training=False)
    return np.asarray(getattr(outputs, "logits", outputs))


def draw(model, seed=0):
    """Weights and biases of a size at which every one of them counts."""
    random = np.random.RandomState(seed)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])


def zero(variable, rows=slice(None), columns=slice(None)):
    array = variable.numpy()
    array[rows, columns] = 0
    variable.assign(array)


# ---- dense layers that follow each other


def sequential(activation="gelu", between=(), use_bias=True):
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(12, activation, use_bias=use_bias, name="first"),
            *between,
            keras.layers.Dense(10, "relu", use_bias=use_bias, name="second"),
            keras.layers.Dense(3, name="third"),
        ]
    )


def functional():
    inputs = keras.Input([8])
    hidden = keras.layers.Dense(12, "gelu", name="first")(inputs)
    hidden = keras.layers.Dropout(0.1)(hidden)
    hidden = keras.layers.Dense(10, "relu", name="second")(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, name="third")(hidden))


def without_input_layer():
    layers = [type(layer).from_config(layer.get_config()) for layer in sequential().layers]
    return keras.Sequential(layers)


INPUTS = tf.constant(np.random.RandomState(1).normal(size=[4, 8]), tf.float32)


@pytest.mark.parametrize("make", [sequential, functional, without_input_layer])
def test_neurons_that_nothing_reads_go_and_constant_ones_are_folded(make):
    model = make()
    model(INPUTS)
    draw(model)
    zero(model.get_layer("second").kernel, rows=[0, 5])
    zero(model.get_layer("first").kernel, columns=[1, 5, 7])
    zero(model.get_layer("third").kernel, rows=[9])
    expected = outputs_of(model, INPUTS)
    smaller = tf_movprune.compact(model)
    assert type(smaller) is type(model)
    assert [smaller.get_layer(name).units for name in ("first", "second", "third")] == [8, 9, 3]
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(outputs_of(model, INPUTS), expected)


def test_what_is_removed_can_be_all_that_reads_another():
    model = sequential()
    draw(model)
    kernel = model.get_layer("second").kernel
    zero(kernel, rows=[4], columns=slice(1, None))  # only neuron 0 of the second reads it
    zero(model.get_layer("third").kernel, rows=[0])
    expected = outputs_of(model, INPUTS)
    smaller = tf_movprune.compact(model)
    assert [layer.units for layer in smaller.layers] == [11, 9, 3]
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)


def test_one_neuron_stays():
    model = sequential()
    draw(model)
    zero(model.get_layer("second").kernel)
    expected = outputs_of(model, INPUTS)
    smaller = tf_movprune.compact(model)
    assert [layer.units for layer in smaller.layers] == [1, 1, 3]
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("multiple_of", "units"), [(1, [8, 9, 3]), (4, [8, 10, 3]), (5, [10, 10, 3]), (7, [12, 10, 3])]
)
def test_numbers_of_neurons_are_rounded_up(multiple_of, units):
    model = sequential("sigmoid")  # sigmoid(0) is not 0
    draw(model)
    zero(model.get_layer("second").kernel, rows=[0, 5])
    zero(model.get_layer("first").kernel, columns=[1, 7])
    zero(model.get_layer("third").kernel, rows=[9])
    expected = outputs_of(model, INPUTS)
    if multiple_of == 7:  # more than there are
        with pytest.warns(UserWarning, match="as multiple_of asks for"):
            smaller = tf_movprune.compact(model, multiple_of=multiple_of)
    else:
        smaller = tf_movprune.compact(model, multiple_of=multiple_of)
    assert [layer.units for layer in smaller.layers] == units
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)


def test_what_is_kept_to_round_a_number_needs_no_other_neurons():
    model = sequential()
    draw(model)
    zero(model.get_layer("second").kernel, rows=slice(4, 9), columns=slice(1, None))
    zero(model.get_layer("third").kernel, rows=[0, 1, 2])
    expected = outputs_of(model, INPUTS)
    smaller = tf_movprune.compact(model, multiple_of=4)
    assert [layer.units for layer in smaller.layers] == [8, 8, 3]
    zeros = [np.sum(~layer.kernel.numpy().any(axis=0)) for layer in smaller.layers]
    assert zeros == [1, 1, 0]
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)


def test_without_a_bias_to_fold_into_only_what_adds_nothing_goes():
    model = sequential("sigmoid", use_bias=False)  # sigmoid(0) is not 0
    draw(model)
    zero(model.get_layer("first").kernel, columns=[1])
    zero(model.get_layer("second").kernel, rows=[2], columns=slice(None))
    zero(model.get_layer("second").kernel, columns=[6])  # relu(0) is
    expected = outputs_of(model, INPUTS)
    smaller = tf_movprune.compact(model)
    assert [layer.units for layer in smaller.layers] == [11, 9, 3]
    np.testing.assert_allclose(outputs_of(smaller, INPUTS), expected, rtol=0, atol=TOLERANCE)


class Holder(keras.Model):
    """A graph, and other layers that share a part of it."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def call(self, inputs):
        return sum(tf.reduce_sum(part(inputs), -1) for part in self.parts)


@pytest.mark.parametrize("kind", ["a layer of its own", "wrapped"])
def test_neurons_that_others_use_in_their_own_code_stay(kind):
    network = sequential()
    zero(network.get_layer("second").kernel, rows=[0, 5])
    first = network.get_layer("first")
    model = Holder(network, first if kind == "wrapped" else keras.layers.TimeDistributed(first))
    if kind == "wrapped":
        model(INPUTS)
    else:
        network(INPUTS), model.parts[1](INPUTS[None])
        model.built = True
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)


def test_dropout_of_whole_channels_is_passed():
    inputs = keras.Input([3, 8])
    hidden = keras.layers.Dense(12, "sigmoid")(inputs)
    hidden = keras.layers.SpatialDropout1D(0.5)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    draw(model)
    zero(model.layers[1].kernel, columns=[2, 3])
    inputs = tf.random.stateless_normal([2, 3, 8], [0, 1])
    smaller = tf_movprune.compact(model)
    assert smaller.layers[1].units == 10
    np.testing.assert_allclose(
        outputs_of(smaller, inputs), outputs_of(model, inputs), rtol=0, atol=TOLERANCE
    )


def test_mixed_precision():
    with precision("mixed_bfloat16"):
        model = sequential()
    draw(model)
    zero(model.get_layer("second").kernel, rows=[0, 5])
    smaller = tf_movprune.compact(model)
    first = smaller.get_layer("first")
    assert (first.units, first.compute_dtype, first.kernel.dtype) == (10, "bfloat16", tf.float32)
    # Sums of fewer terms are rounded in another order.
    np.testing.assert_allclose(
        *(outputs_of(m, INPUTS).astype(np.float32) for m in (smaller, model)), rtol=0, atol=0.05
    )


# ---- Keras attention


class Encoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5)
        self.head = keras.layers.Dense(2)

    def call(self, inputs):
        return self.head(self.attention(inputs, inputs))


def attention_model(kind):
    if kind == "subclassed":
        model = Encoder()
        model(tf.zeros([1, 3, 8]))
        return model, model.attention
    inputs = keras.Input([None, 8])
    attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5)
    return keras.Model(inputs, keras.layers.Dense(2)(attention(inputs, inputs))), attention


@pytest.mark.parametrize("kind", ["subclassed", "functional"])
def test_heads_of_keras_attention(kind):
    model, attention = attention_model(kind)
    draw(model)
    weights = attention.get_weights()
    weights[6][1] = 0  # [heads, value_dim, out]
    weights[4][:, 2] = 0  # [in, heads, value_dim]
    attention.set_weights(weights)
    inputs = tf.random.stateless_normal([2, 7, 8], [0, 1])
    expected = outputs_of(model, inputs)
    smaller = tf_movprune.compact(model)
    (remaining,) = (m for m in smaller.submodules if hasattr(m, "_num_heads"))
    assert remaining._num_heads == 2
    np.testing.assert_allclose(outputs_of(smaller, inputs), expected, rtol=0, atol=TOLERANCE)


def test_attention_keeps_its_names_and_what_is_frozen():
    model, attention = attention_model("subclassed")
    attention._key_dense.trainable = False
    names = [[w.name for w in weights] for weights in (model.weights, model.trainable_weights)]
    zero_heads(attention)
    tf_movprune.compact(model)
    assert model.attention is not attention
    assert names == [
        [w.name for w in weights] for weights in (model.weights, model.trainable_weights)
    ]


def zero_heads(attention):
    zero(attention._output_dense.kernel, rows=slice(1, 3))


def test_attention_of_which_a_graph_shows_the_scores_keeps_its_heads():
    inputs = keras.Input([3, 8])
    attention = keras.layers.MultiHeadAttention(4, 6)
    model = keras.Model(inputs, attention(inputs, inputs, return_attention_scores=True))
    zero_heads(attention)
    with pytest.warns(UserWarning, match="nothing was removed"):
        tf_movprune.compact(model)


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
def test_hugging_face_encoders_shrink_and_give_the_same(kind):
    model = hugging_face_model(kind)
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
    np.testing.assert_allclose(outputs_of(model, TOKENS), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compacted_model_is_saved_and_loaded(kind, tmp_path):
    model = hugging_face_model(kind)
    getattr(model, model.base_model_prefix).embeddings.trainable = False  # last of the weights
    empty_some(model)
    tf_movprune.compact(model)
    for safe_serialization in (False, True):
        folder = tmp_path / f"safe {safe_serialization}"
        model.save_pretrained(folder, safe_serialization=safe_serialization)
        loaded = tf_movprune.load_compacted(folder)
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(outputs_of(loaded, TOKENS), outputs_of(model, TOKENS))


def test_a_compacted_model_trains_is_exported_and_is_compacted_again(tmp_path):
    model = hugging_face_model("Bert")
    empty_some(model)
    tf_movprune.compact(model)
    before = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
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


def test_a_pruned_model_is_stripped_first():
    schedule = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=10)
    pruned = tf_movprune.prune_low_movement(sequential(), schedule)
    with pytest.raises(ValueError, match="strip_pruning"):
        tf_movprune.compact(pruned)


def test_models_that_are_not_built_and_folders_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="Call it once"):
        tf_movprune.compact(Encoder())
    with pytest.raises(TypeError, match="Expected a model or layer"):
        tf_movprune.compact("model")
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


def chain():
    return keras.Sequential([keras.Input([6]), *subclassed().body.layers])


@pytest.mark.parametrize(
    "make, name",
    [(chain, "small.keras"), (chain, "small.h5"), (chain, "small"), (subclassed, "small")],
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
