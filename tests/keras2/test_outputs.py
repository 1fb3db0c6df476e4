"""Outputs of exports: their names and order, whatever the model returns."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune.core.inference import IfOpen
from tf_movprune.keras2.inference import inference_of

X = np.random.RandomState(0).normal(size=[2, 4]).astype(np.float32)
Pair = collections.namedtuple("Pair", ["score", "is_positive"])


def returning(function):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return function(self.dense(x))

    model = Net()
    model(X)
    return model


def functional(outputs):
    x = keras.Input([4], name="x")
    layers = {name: keras.layers.Dense(2, name=name)(x) for name in ("one", "two")}
    return keras.Model(x, outputs(layers["one"], layers["two"]))


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: returning(lambda y: y), ["output_0"]),
        (lambda: returning(lambda y: (y, 2 * y)), ["output_0", "output_1"]),
        (lambda: returning(lambda y: [None, y, [2 * y]]), ["output_1", "output_2_0"]),
        (
            lambda: returning(lambda y: {"b": y, "a": (2 * y, {"z": 3 * y}), "c": None}),
            ["b", "a_0", "a_1_z"],
        ),
        (lambda: returning(lambda y: Pair(y, y > 0)), ["score", "is_positive"]),
        (lambda: returning(lambda y: (tf.argmax(y, -1), 3)), ["output_0", "output_1"]),
        (lambda: returning(lambda y: (y, y)), ["output_0", "output_1"]),
        (lambda: returning(lambda y: {"my score": y, "_p": 2 * y}), ["my_score", "p"]),
        (lambda: returning(lambda y: {"a_b": y, "a": {"b": 2 * y}}), ["a_b", "a_b_1"]),
        (lambda: returning(lambda y: tf.where(y > 0, -np.inf, y)), ["output_0"]),
        (lambda: functional(lambda a, b: [b, a]), ["two", "one"]),
        (lambda: functional(lambda a, b: {"d": a, "c": b}), ["d", "c"]),
        (lambda: functional(lambda a, b: {"d": [a], "c": {"e": b}}), ["d_0", "c_e"]),
    ],
)
def test_names_and_order_of_outputs(build, names, tmp_path):
    model = build()
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        report = export(model, tmp_path / export.__name__)
        assert list(report.outputs) == names and report.max_abs_diff < 0.1
    run = tf.saved_model.load(str(tmp_path / "export_saved_model")).signatures["serving_default"]
    outputs = run(tf.constant(X))
    flat = [leaf for leaf in _in_order(model(X)) if leaf is not None]
    for name, expected in zip(names, flat, strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-6)


def _in_order(outputs):
    if isinstance(outputs, dict | list | tuple):
        values = outputs.values() if isinstance(outputs, dict) else outputs
        return [leaf for value in values for leaf in _in_order(value)]
    return [outputs]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (tf.RaggedTensor.from_tensor, "output 'output_0' of 'net' is a RaggedTensor"),
        (lambda y: {"a": y, "b": tf.sparse.from_dense(y)}, "output 'b' of 'net' is a SparseTensor"),
    ],
)
def test_outputs_that_no_file_holds(function, message, tmp_path):
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        with pytest.raises(ValueError, match=message):
            export(returning(function), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_nested_outputs_of_hugging_face_stay():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        output_hidden_states=True,
    )
    model = transformers.TFBertModel(config)
    model(model.dummy_inputs)
    assert list(inference_of(model, 8, 1).output_shapes) == [
        *("last_hidden_state", "pooler_output", "hidden_states_0", "hidden_states_1"),
    ]


def test_a_default_length_that_fixes_nothing_is_not_checked():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
    )
    model = transformers.TFViTModel(config)
    model(model.dummy_inputs)
    sizes = {"pixel_values": (1, 3, 32, 32)}
    assert inference_of(model, IfOpen(128), 1).input_shapes == sizes
    with pytest.raises(ValueError, match=r"sequence_length is 128, .* pixel_values \(None, 3, 32"):
        inference_of(model, 128, 1)
