"""Outputs of exports of either Keras: their names and order, whatever the model returns."""

import collections

import numpy as np
import pytest
import tensorflow as tf

import tf_movprune
from tf_movprune.shells import module_for

X = np.random.RandomState(0).normal(size=[2, 4]).astype("float32")
Pair = collections.namedtuple("Pair", ["score", "is_positive"])


def returning(function):
    def make(keras):
        class Net(keras.Model):
            def __init__(self):
                super().__init__(name="net")
                self.dense = keras.layers.Dense(3)

            def call(self, x):
                return function(self.dense(x))

        model = Net()
        model(X)
        return model

    return make


def functional(outputs):
    def make(keras):
        x = keras.Input([4], name="x")
        return keras.Model(x, outputs(*(keras.layers.Dense(2, name=n)(x) for n in ("one", "two"))))

    return make


OUTPUTS = {
    "a tensor": (returning(lambda y: y), ["output_0"]),
    "a tuple": (returning(lambda y: (y, 2 * y)), ["output_0", "output_1"]),
    "with None": (returning(lambda y: [None, y, [2 * y]]), ["output_1", "output_2_0"]),
    "nested": (
        returning(lambda y: {"b": y, "a": (2 * y, {"z": 3 * y}), "c": None}),
        ["b", "a_0", "a_1_z"],
    ),
    "a named tuple": (returning(lambda y: Pair(y, y > 0)), ["score", "is_positive"]),
    "a number": (returning(lambda y: (tf.argmax(y, -1), 3)), ["output_0", "output_1"]),
    "twice the same": (returning(lambda y: (y, y)), ["output_0", "output_1"]),
    "other names": (returning(lambda y: {"my score": y, "_p": 2 * y}), ["my_score", "p"]),
    "the same names": (returning(lambda y: {"a_b": y, "a": {"b": 2 * y}}), ["a_b", "a_b_1"]),
    "infinite": (returning(lambda y: tf.where(y > 0, -np.inf, y)), ["output_0"]),
    "a list of a graph": (functional(lambda a, b: [b, a]), ["two", "one"]),
    "a dict of a graph": (functional(lambda a, b: {"d": a, "c": b}), ["d", "c"]),
    "nested in a graph": (functional(lambda a, b: {"d": [a], "c": {"e": b}}), ["d_0", "c_e"]),
}


def in_order(outputs):
    if isinstance(outputs, dict | list | tuple):
        values = outputs.values() if isinstance(outputs, dict) else outputs
        return [leaf for value in values for leaf in in_order(value)]
    return [] if outputs is None else [outputs]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_names_and_order_of_outputs(keras, kind):
    make, names = OUTPUTS[kind]
    model = make(keras)
    inference = module_for(model, "inference").inference_of(model, None, None)
    assert list(inference.output_shapes) == names
    found = inference.run({spec.name: X for spec in inference.specs})
    for name, expected in zip(names, in_order(model(X)), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["nested", "the same names", "infinite", "a dict of a graph"])
def test_files_have_the_same_outputs(keras, kind, tmp_path):
    make, names = OUTPUTS[kind]
    model = make(keras)
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        report = export(model, tmp_path / export.__name__)
        assert list(report.outputs) == names and report.max_abs_diff < 0.1
    run = tf.saved_model.load(str(tmp_path / "export_saved_model")).signatures["serving_default"]
    outputs = run(tf.constant(X))
    for name, expected in zip(names, in_order(model(X)), strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (tf.RaggedTensor.from_tensor, "output 'output_0' of 'net' is a RaggedTensor"),
        (lambda y: {"a": y, "b": tf.sparse.from_dense(y)}, "output 'b' of 'net' is a SparseTensor"),
    ],
)
def test_outputs_that_no_file_holds(keras, function, message, tmp_path):
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        with pytest.raises(ValueError, match=message):
            export(returning(function)(keras), tmp_path / "x")
    assert not list(tmp_path.iterdir())
