"""TFLite files: shrinking, half precision and errors."""

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from berts import bert
from exporting import (
    dense_model,
    export,
    outputs_of,
    prune,
    random_input,
)
from modes import precision

import tf_movprune

"""TFLite files: sparse storage, shrinking, and the combinations that TensorFlow's flag breaks."""


# ---- shrinking


def test_what_is_empty_is_left_out_and_the_model_stays(tmp_path):
    model = dense_model(64, 48)
    kernel = model.layers[2].kernel
    kernel.assign(kernel.numpy() * (np.arange(64) % 4 > 0)[:, None])
    x = random_input(model)
    expected = model(x).numpy()
    model.compile("sgd", "mse")
    whole = export(model, tmp_path / "x", quantization=None, shrink=False)
    report = export(model, tmp_path / "x", quantization=None)
    assert report.removed == {"heads": (0, 0), "neurons": (16, 64)} and not whole.removed
    assert "16 of 64 neurons removed" in str(report)
    assert [matrix.shape for matrix in report.matrices] == [(48, 64), (48, 48)]
    assert whole.bytes - report.bytes == 4 * (16 * 64 + 16 * 48 + 16)
    np.testing.assert_array_equal(model(x), expected)
    assert model.optimizer is not None


def test_blocks_stay_aligned_where_neurons_go(tmp_path):
    model = dense_model(64, 64)
    prune(model.layers[2], 0.95, (4, 1))
    array = model.layers[1].kernel.numpy()
    array[:, [1, 8, 9, 10, 11]] = 0  # one of the first block, all of the third
    model.layers[1].kernel.assign(array)
    report = export(model, tmp_path / "x", quantization=None, sparse_storage="auto")
    assert report.storages == {"dense": 1, "blocks": 1}
    rows = model.layers[2].kernel.numpy().any(axis=1)
    gone = (~rows | ~array.any(axis=0)).reshape(-1, 4).all(axis=1).sum() * 4
    assert report.removed["neurons"] == (gone, 64) and gone >= 4


@pytest.mark.parametrize("storage", [None, "auto"])
def test_neurons_go_one_by_one_where_nothing_is_stored_in_blocks(storage, tmp_path):
    model = dense_model(64, 64)
    kernel = model.layers[2].kernel
    kernel.assign(kernel.numpy() * (np.arange(64) % 2 > 0)[:, None])
    report = export(model, tmp_path / "x", quantization=None, sparse_storage=storage)
    assert report.removed["neurons"] == (32, 64)
    with pytest.warns(UserWarning, match="or try shrink=False"):
        export(model, tmp_path / "x", quantization=None, sparse_storage="blocks")


@pytest.mark.parametrize(
    ("options", "block", "sparsity", "message"),
    [
        (
            {"quantization": None, "sparse_storage": "blocks", "shrink": False},
            (4, 1),
            0.5,
            r"least 90% of the blocks of 4 .*'.*dense_0.*' has 50% zero blocks.* by BLOCKS_FLO",
        ),
        (
            {"sparse_storage": "blocks", "shrink": False},
            (4, 1),
            0.95,
            r"least 95% of the blocks of 16 .* has \d\d% zero blocks.* BLOCKS_INT8; or pass quanti",
        ),
        (
            {"quantization": None, "sparse_storage": "csr", "shrink": False},
            (1, 1),
            0.125,
            r"20 to 50 % zeros or more.* has 12% zeros.* Prune further\.$",
        ),
        (
            {"quantization": None, "sparse_storage": "blocks"},
            (64, 1),  # all of a neuron's inputs
            0.5,
            r"after leaving out \d+ empty neurons: .* has \d+% zero blocks.* try shrink=False",
        ),
    ],
)
def test_storage_that_stores_nothing_says_why(options, block, sparsity, message, tmp_path):
    model = dense_model(64, 64)
    for layer in model.layers[1:]:
        prune(layer, sparsity, block)
    with pytest.warns(UserWarning, match=message):
        export(model, tmp_path / "x", **options)


def test_files_without_matrices_say_so(tmp_path):
    x = keras.Input([8, 64], name="x")
    model = keras.Model(x, keras.layers.ReLU()(x))
    with pytest.warns(UserWarning, match="all are stored dense.* There is no matrix"):
        export(model, tmp_path / "x", quantization=None, sparse_storage="csr")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, 6)
        self.head = keras.layers.Dense(2)

    def call(self, inputs):
        return self.head(self.attention(inputs, inputs))


def test_models_that_compaction_changes_in_place_are_changed_back(tmp_path):
    model = Subclassed()
    x = np.random.RandomState(0).normal(size=[1, 5, 8]).astype(np.float32)
    model(x)
    kernel = model.attention._output_dense.kernel
    kernel.assign(kernel.numpy() * np.array([1, 0, 1, 0])[:, None, None])
    expected, weights = model(x).numpy(), model.weights
    attention = model.attention
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None)
    assert report.removed["heads"] == (2, 4)
    assert model.attention is attention
    assert all(a is b for a, b in zip(weights, model.weights))
    np.testing.assert_array_equal(model(x), expected)


class Block(keras.layers.Layer):
    """A layer that is changed in place, inside a graph that is cloned."""

    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, 6)
        self.feed_forward = keras.Sequential(
            [keras.Input([5, 8]), keras.layers.Dense(16, "relu"), keras.layers.Dense(8)]
        )

    def call(self, inputs):
        return self.feed_forward(self.attention(inputs, inputs))


def test_composite_layers_in_a_graph_are_changed_back(tmp_path):
    inputs = keras.Input([5, 8], name="x")
    block = Block()
    hidden = keras.layers.Dense(16, "relu")(block(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    output = block.attention._output_dense.kernel
    output.assign(output.numpy() * np.array([1, 0, 1, 0])[:, None, None])
    for dense in (block.feed_forward.layers[1], model.layers[-1]):
        dense.kernel.assign(dense.kernel.numpy() * (np.arange(16) % 4 > 0)[:, None])
    block.feed_forward.note = "mine"
    x = np.random.RandomState(0).normal(size=[1, 5, 8]).astype(np.float32)
    expected, weights = model(x).numpy(), model.weights
    parts = block.attention, block.feed_forward, hidden.node.layer
    nodes = [len(layer._inbound_nodes) for layer in (*model.layers, *parts)]
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None)
    assert report.removed == {"heads": (2, 4), "neurons": (8, 32)}
    assert parts == (block.attention, block.feed_forward, hidden.node.layer)
    assert block.feed_forward.note == "mine" and block.attention._num_heads == 4
    assert nodes == [len(layer._inbound_nodes) for layer in (*model.layers, *parts)]
    assert all(a is b for a, b in zip(weights, model.weights, strict=True))
    np.testing.assert_array_equal(model(x), expected)
    keras.Model(model.input, model.layers[-2].output)(x)  # still one output to a layer


class Unusual(keras.Model):
    """Keras cannot trace it for a SavedModel: `self` has another name."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(this, inputs):  # noqa: N805
        return this.dense(inputs)


def test_a_file_has_a_signature_whatever_keras_can_trace(tmp_path):
    model = Unusual()
    model(np.ones([1, 3], np.float32))
    tf_movprune.export_tflite(model, tmp_path / "x")
    assert Interpreter(model_path=str(tmp_path / "x")).get_signature_list()


@pytest.mark.slow
def test_an_encoder_of_hugging_face(tmp_path):
    pytest.importorskip("transformers")
    sizes = {"num_attention_heads": 4, "max_position_embeddings": 20}
    model = bert(vocab_size=50, initializer_range=0.02, **sizes)
    schedule = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=1)
    sizes = {"*.attention.*": tf_movprune.HEADS, "*": tf_movprune.NEURONS}
    tf_movprune.prune_low_movement(model, schedule, block_size=sizes)
    tf_movprune.update_masks(model, 1)
    model = tf_movprune.strip_pruning(model)
    names = [weight.name for weight in model.weights]
    config_before = model.config.to_dict()
    tokens = {
        "input_ids": np.arange(1, 13)[None],
        "attention_mask": np.array([[1] * 9 + [0] * 3]),
        "token_type_ids": np.zeros([1, 12]),
    }
    options = {"sequence_length": 12, "quantization": None, "inputs": tokens}
    whole, small = (
        tf_movprune.export_tflite(model, tmp_path / "x", shrink=shrink, **options)
        for shrink in (False, True)
    )
    assert small.removed == {"heads": (4, 8), "neurons": (64, 128)}
    weights = 2 * (3 * 32 * 16 + 16 * 32 + 2 * 32 * 32) + 2 * (3 * 16 + 32)
    assert abs(whole.bytes - small.bytes - 4 * weights) < 1500
    assert small.max_abs_diff < 1e-5
    assert [weight.name for weight in model.weights] == names
    assert model.config.to_dict() == config_before
    assert model.bert.encoder.layer[0].attention.self_attention.num_attention_heads == 4
    assert {matrix.shape for matrix in small.matrices} >= {(16, 32), (32, 16)}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_models_of_mixed_precision_compute_in_float32_for_it(policy, tmp_path):
    """The converter knows no half precision. Heads go too: what is left of the layer is new."""
    x = np.random.RandomState(0).normal(size=[1, 5, 8]).astype(np.float32)
    plain = Subclassed()
    plain(x)
    with precision(policy):
        model = Subclassed()
        model(x)
    kernel = plain.attention._output_dense.kernel
    kernel.assign(kernel.numpy() * np.array([1, 0, 1, 0])[:, None, None])
    model.set_weights(plain.get_weights())
    report = tf_movprune.export_tflite(
        model, tmp_path / "x", quantization=None, inputs={"input_1": x}
    )
    assert report.removed["heads"] == (2, 4)
    run = Interpreter(model_path=str(tmp_path / "x")).get_signature_runner()
    (result,) = run(input_1=x).values()
    np.testing.assert_allclose(result, plain(x), rtol=0, atol=1e-5)
    assert report.max_abs_diff < 1e-5
    assert model(x).dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_constants_of_mixed_precision_are_folded_in_float32(policy, tmp_path):
    """Those of neurons that read nothing, and those that a layer holds in half precision."""

    def functional():
        keras.utils.set_random_seed(0)
        normalization = keras.layers.Normalization(mean=0.125, variance=2.25)
        x = keras.Input([64], name="x")
        hidden = keras.layers.Dense(16, bias_initializer="normal")(normalization(x))
        return keras.Model(x, keras.layers.Dense(3)(keras.layers.Activation("gelu")(hidden)))

    with precision(policy):
        model = functional()
    plain = functional()
    for layer in (plain.layers[2], model.layers[2]):
        layer.kernel.assign(layer.kernel.numpy() * (np.arange(16) < 6))
        layer.bias.assign(np.linspace(-1, 1, 16))
    before = model(random_input(model)).numpy()
    report = export(model, tmp_path / "x", quantization=None)
    assert report.removed["neurons"] == (10, 16) and report.max_abs_diff < 1e-5
    (result, _) = outputs_of(tmp_path / "x", random_input(model))
    np.testing.assert_allclose(result, plain(random_input(model)), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(model(random_input(model)), before)
    assert before.dtype == policy.removeprefix("mixed_")


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int2"}, r"quantization must be None, .* or 'int4', got 'int2'"),
        ({"sparse_storage": "coo"}, r"sparse_storage must be None, .* or 'csr', got 'coo'"),
        ({"sparse_storage": "csr"}, "'csr' does not go with quantization 'int8': LiteRT cannot"),
        (
            {"sparse_storage": "blocks", "quantization": "float16"},
            "'blocks' does not go with quantization 'float16': LiteRT has no kernel",
        ),
    ],
)
def test_options_that_are_unknown_or_do_not_go_together(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tf_movprune.export_tflite(dense_model(4), tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_inputs_that_do_not_fit(tmp_path):
    model = dense_model(4)
    with pytest.raises(ValueError, match=r"inputs lacks 'x': it has \['y'\]"):
        tf_movprune.export_tflite(model, tmp_path / "x", inputs={"y": 1})
    with pytest.raises(
        ValueError, match=r"'x' of shape \(1, 8, 3\), but the file takes \(1, 8, 64"
    ):
        tf_movprune.export_tflite(model, tmp_path / "x", inputs={"x": np.zeros([1, 8, 3])})
    assert not list(tmp_path.iterdir())
