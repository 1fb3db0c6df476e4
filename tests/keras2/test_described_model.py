"""Models from configurations that somebody made up."""

import math

import numpy as np
import pytest
import tensorflow as tf
from berts import stripped_bert

import tf_movprune
from tf_movprune.keras2 import described_model
from tf_movprune.keras2.export_protocol import describe
from tf_movprune.keras2.named_weights import named_weights

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def bert():
    return stripped_bert()


def specs_of(model):
    return {
        weight.name: tf.TensorSpec(weight.array.shape, weight.array.dtype)
        for weight in named_weights(model)
    }


def made(model, **changes):
    description = describe(model)
    description["config"].update(changes)
    return described_model.model_of(type(model), description, specs_of(model), "file")


def test_a_described_model_has_the_same_weights(bert):
    found = made(bert)
    assert type(found) is type(bert)
    assert list(specs_of(found).values()) == list(specs_of(bert).values())


@pytest.fixture
def unbuilt(monkeypatch):
    """Fails where a model gets weights that take memory."""

    def fail(model):
        raise AssertionError("This model should not have been made.")

    monkeypatch.setattr(described_model, "resized", fail)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vocab_size": 100}, r"it has .* elements, and the file"),
        ({"vocab_size": 10**6}, r"it has .* elements, and the file"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000, and the weights allow 1000000"),
        ({"hidden_size": 10**5}, r"it has .* elements, and the file"),
        ({"intermediate_size": 10**6, "intermediate_sizes": [1, 1]}, "elements, and the file"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, and the weights allow"),
        ({"num_labels": 10**9}, "num_labels is 1000000000, and the weights allow 1000000"),
        ({"hidden_size": -32}, ""),
        ({"hidden_size": "32"}, ""),
        ({"hidden_size": None}, ""),
        ({"hidden_size": 33}, "not a multiple of the number of attention heads"),
        ({"hidden_act": "none of these"}, ""),
        ({"id2label": 3}, ""),
        ({"pruned_heads": [1]}, ""),
        ({"problem_type": "none of these"}, ""),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit_the_weights(changes, message, bert, unbuilt):
    with pytest.raises(ValueError, match=rf"The configuration in file makes no TFBert.*{message}"):
        made(bert, **changes)


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [0, 10**6], ["x", 1], 7])
def test_sizes_of_a_compacted_model_that_it_does_not_have(sizes, bert):
    with pytest.raises(ValueError, match=r"The configuration in file makes no TFBertFor"):
        made(bert, intermediate_sizes=sizes)


@pytest.mark.parametrize("config", [{}, {"architectures": 3}, {"model_type": "t5"}])
def test_configurations_that_say_nothing(config, bert, unbuilt):
    description = {"class": type(bert).__name__, "config": config}
    with pytest.raises(ValueError, match=r"it has 10\d,\d+,\d+ elements, and the file"):
        described_model.model_of(type(bert), description, specs_of(bert), "file")


def test_shapes_of_a_model_take_no_memory(bert):
    from tf_movprune.keras2 import hugging_face

    config = transformers.BertConfig(vocab_size=10**9, hidden_size=768, num_hidden_layers=1)
    shapes = hugging_face.full_size_shapes(transformers.TFBertModel, config)
    assert math.prod(shapes[0]) == 768 * 10**9
    shapes = hugging_face.full_size_shapes(type(bert), bert.config)
    assert [tuple(shape) for shape in shapes] == [tuple(w.shape) for w in bert.weights]


def test_a_file_with_another_configuration_leaves_no_model(bert, tmp_path, monkeypatch):
    from tf_movprune.keras2 import hugging_face

    pytest.importorskip("zstandard")
    pytest.importorskip("safetensors")
    ids = np.ones([1, 4], np.int32)
    tf_movprune.export_compressed(bert, tmp_path / "x", quantization=None)
    loaded = tf_movprune.load_compressed(tmp_path / "x", type(bert))
    np.testing.assert_array_equal(loaded(ids).logits, bert(ids).logits)
    right = hugging_face.describe(bert)
    right["config"]["num_hidden_layers"] = 1
    monkeypatch.setattr("tf_movprune.keras2.export_protocol.describe", lambda model: right)
    tf_movprune.export_compressed(bert, tmp_path / "x", quantization=None)
    with pytest.raises(ValueError, match=r"The weights in .*x are not those .* Missing in the mod"):
        tf_movprune.load_compressed(tmp_path / "x", type(bert))
