"""Exports of Keras 3 models: what Keras tells of their calls, their weights and their classes."""

import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from tf_movprune.core.inference import IfOpen
from tf_movprune.keras3.call_arguments import call_arguments
from tf_movprune.keras3.inference import computing_in_float32, inference_of
from tf_movprune.keras3.named_weights import named_weights

pytest.importorskip("zstandard")
keras_hub = pytest.importorskip("keras_hub")
X, W = np.ones([2, 4], "float32"), np.full([2, 3], 2, "float32")


def bert(**changes):
    sizes = {
        "vocabulary_size": 99,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "max_sequence_length": 40,
    }
    backbone = keras_hub.models.BertBackbone(**{**sizes, **changes})
    return keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)


class Net(keras.Model):
    """A model whose class makes it, and says how."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.hidden, self.head = keras.layers.Dense(width), keras.layers.Dense(3)

    def call(self, x, w=None):
        return self.head(self.hidden(x)) * (1.0 if w is None else w)

    def get_config(self):
        return {"width": self.width}


def called(model, *args):
    model(*args)
    return model


def names_and_shapes(model, inputs=None):
    return {spec.name: tuple(spec.shape) for spec in call_arguments(model, inputs).specs}


# ---- arguments of a call


class Dicts(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3)

    def call(self, features):
        return self.head(features["b"]) * features["a"][0]


class Required(keras.Model):
    def __init__(self):
        super().__init__(name="required")
        self.head = keras.layers.Dense(3)

    def call(self, x, w):
        return self.head(x) * w


class Building(Required):
    def build(self, x_shape, w_shape):
        self.head.build(x_shape)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: called(Net(5), X), {"x": (None, 4)}),
        (lambda: called(Dicts(), {"b": X, "a": [W]}), {"a_0": (None, 3), "b": (None, 4)}),
        (lambda: called(Building(), X, W), {"x": (None, 4), "w": (None, 3)}),
        (lambda: called(keras.Sequential([keras.layers.Dense(2)]), X), {"input_layer": (None, 4)}),
        (
            bert,
            {name: (None, None) for name in ("padding_mask", "segment_ids", "token_ids")},
        ),
    ],
)
def test_what_a_model_takes(make, expected):
    keras.utils.clear_session()
    assert names_and_shapes(make()) == expected


def test_arguments_that_keras_did_not_record():
    model = called(Required(), X, W)
    with pytest.raises(ValueError, match=r"without the argument 'w', .*no tensor .*inputs="):
        call_arguments(model)
    assert names_and_shapes(model, {"x": X, "w": W}) == {"x": (None, 4), "w": (None, 3)}


def test_a_model_that_is_marked_as_built_but_has_no_weights_yet():
    model = Required()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.build([None, 4])
    for inputs in (None, {"x": X, "w": W}):
        with pytest.raises(ValueError, match="not known"):
            call_arguments(model, inputs)


def test_arguments_that_get_their_defaults_are_named(tmp_path):
    with pytest.warns(UserWarning, match="defaults w=None"):
        tf_movprune.export_tflite(called(Net(5), X), tmp_path / "x")


def test_more_tokens_than_positions(tmp_path):
    model = bert()
    with pytest.raises(ValueError, match=r"at most 40, .*got 128\. Pass a shorter"):
        tf_movprune.export_tflite(model, tmp_path / "x", sequence_length=128)
    for length in (40, IfOpen(128)):
        assert inference_of(model, length, 1).input_shapes["token_ids"] == (1, 40)


def test_the_output_of_a_causal_lm_is_called_logits():
    backbone = keras_hub.models.GPT2Backbone(99, 1, 2, 8, 8, max_sequence_length=16)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    (outputs,) = inference_of(model, 4, 1).concrete.structured_outputs.items()
    assert outputs[0] == "logits" and outputs[1].shape == (1, 4, 99)


# ---- formats


def test_a_stripped_bert_in_litert(tmp_path):
    keras.utils.set_random_seed(0)
    model, schedule = bert(), tf_movprune.CubicSparsity(0.8, 0, 2)
    tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 2)
    model = tf_movprune.strip_pruning(model)
    report = tf_movprune.export_tflite(
        model, tmp_path / "x", sequence_length=16, quantization=None, sparse_storage="csr"
    )
    assert report.max_abs_diff < 1e-5 and report.storages["csr"] == 12
    runner = Interpreter(model_path=str(tmp_path / "x")).get_signature_runner()
    random = np.random.RandomState(0)
    for _ in range(3):
        inputs = {
            "token_ids": random.randint(0, 99, [1, 16]).astype("int32"),
            "segment_ids": random.randint(0, 2, [1, 16]).astype("int32"),
            "padding_mask": (np.arange(16) < random.randint(1, 17))[None].astype("int32"),
        }
        found, expected = runner(**inputs)["logits"], np.array(model(inputs, training=False))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_quantized_layers_stay_quantized_in_float32():
    dense = keras.layers.Dense(16, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input([8]), dense])
    model.quantize("int8")
    with computing_in_float32(model):
        assert dense.dtype_policy.name == "int8_from_float32"
    assert dense.dtype_policy.name == "int8_from_mixed_bfloat16"


# ---- weights


def test_parts_of_a_bert():
    parts = {}
    for weight in named_weights(bert()):
        parts.setdefault(weight.part, []).append(weight.name)
    assert parts["embeddings"] == [
        f"{kind}_embedding/embeddings" for kind in ("token", "position", "segment")
    ]
    assert len(parts["layers"]) == 2 * 6 * 2 and "logits/kernel" in parts["other"]


def test_names_without_the_layers_around_them(tmp_path):
    """Keras leaves them out if it builds layers by a file, before those around them."""
    inner = [keras.layers.Dense(4, name=f"inner_{i}") for i in range(2)]
    outer = [keras.layers.TimeDistributed(layer, name=f"{layer.name}_outer") for layer in inner]
    model = keras.Sequential([keras.Input([3, 4]), *outer])
    model.save(tmp_path / "x.keras")
    other = keras.saving.load_model(tmp_path / "x.keras")
    for weight in other.weights:
        weight.assign(0 * weight)
    assert other.weights[0].path != model.weights[0].path
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    tf_movprune.load_compressed(tmp_path / "x", other)
    for weight, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    swapped = keras.Sequential([keras.Input([3, 4]), *reversed(other.layers)])
    with pytest.raises(ValueError, match=r"are not those of 'sequential"):
        tf_movprune.load_compressed(tmp_path / "x", swapped)


def test_a_model_may_be_built_in_another_way_and_have_another_name(tmp_path):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)], name="one")
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    other = called(keras.Sequential([keras.layers.Dense(3)], name="two"), X)
    tf_movprune.load_compressed(tmp_path / "x", other)
    np.testing.assert_array_equal(other(X), model(X))


@pytest.mark.parametrize(
    "layer",
    [keras.layers.StringLookup(output_mode="tf_idf"), keras.layers.Discretization(num_bins=3)],
)
def test_what_was_learned_beside_variables_is_refused(layer, tmp_path):
    words = layer.__class__ is keras.layers.StringLookup
    layer.adapt(np.array([["a"], ["b"]]) if words else np.array([[1.0], [2.0]]))
    x = keras.Input([1], dtype="string" if words else "float32")
    h = keras.layers.Embedding(9, 2)(layer(x)) if not words else layer(x)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    with pytest.raises(ValueError, match="learned numbers that are no variables"):
        tf_movprune.export_compressed(model, tmp_path / "x")


# ---- classes


@pytest.mark.parametrize("make", [bert, lambda: bert().backbone, lambda: called(Net(5), X)])
def test_a_class_makes_the_model_again(make, tmp_path):
    model = make()
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    loaded = tf_movprune.load_compressed(tmp_path / "x", type(model))
    assert type(loaded) is type(model) and loaded is not model
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cls", [keras.Model, keras.Sequential, keras.layers.Dense, Required])
def test_classes_that_make_no_model_are_refused(cls, tmp_path):
    with pytest.raises(TypeError, match=rf"get_config\(\) .*got the class {cls.__name__}"):
        tf_movprune.load_compressed(tmp_path / "nothing", cls)


@pytest.mark.parametrize("key", ["vocabulary_size", "num_layers", "hidden_dim"])
def test_a_description_of_a_larger_model_takes_no_memory(key, monkeypatch, tmp_path):
    from tf_movprune.keras3 import export_protocol

    def describe(model):
        description = original(model)
        description["config"]["config"]["backbone"]["config"][key] = 10**6
        return description

    original = export_protocol.describe
    monkeypatch.setattr(export_protocol, "describe", describe)
    tf_movprune.export_compressed(bert(), tmp_path / "x")
    with pytest.raises(ValueError, match=r"makes no BertTextClassifier .*(elements|allow)"):
        tf_movprune.load_compressed(tmp_path / "x", keras_hub.models.BertTextClassifier)


def test_another_class_is_refused(tmp_path):
    tf_movprune.export_compressed(bert(), tmp_path / "x")
    with pytest.raises(ValueError, match="holds BertTextClassifier, got the class BertBackbone"):
        tf_movprune.load_compressed(tmp_path / "x", keras_hub.models.BertBackbone)
