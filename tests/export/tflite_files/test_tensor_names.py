"""Tensors of TFLite files have the names of the signature."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from exporting import dense_model, export, outputs_of, random_input

import tf_movprune
from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.tensor_names import name_as_signature


def names_of(path):
    """Names of the inputs, of the outputs, and of all tensors, as tools without signatures see."""
    interpreter = Interpreter(model_path=str(path))
    inputs = [detail["name"] for detail in interpreter.get_input_details()]
    outputs = [detail["name"] for detail in interpreter.get_output_details()]
    graph = flatbuffer.main_graph(flatbuffer.read(path.read_bytes()))
    every = [flatbuffer.text(tensor.name) for tensor in graph.tensors]
    assert len(set(every)) == len(every)
    return inputs, outputs, every


class Heads(keras.Model):
    """A subclassed model whose outputs have names."""

    def __init__(self, call):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self._function = call

    def call(self, inputs):
        return self._function(self, inputs)


def values_by_tensor(path):
    """Outputs by the names of tensors, as tools without signatures see them."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], X[detail["name"]])
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details}


X = {name: np.linspace(-1, 1, 4, dtype=np.float32)[None] for name in ("a", "b")}


@pytest.mark.parametrize(
    ("call", "outputs"),
    [
        (lambda self, x: {"logits": self.dense(x["a"] + x["b"])}, ["logits"]),
        (lambda self, x: {"a": self.dense(x["a"] + x["b"])}, ["a_output"]),  # an input has it
        (
            lambda self, x: {"a": self.dense(x["a"]), "a_output": x["b"] * 2},
            ["a_output", "a_output_1"],
        ),
        (lambda self, x: {"same": x["a"], "y": self.dense(x["b"])}, None),  # passed on
        (lambda self, x: {"b": x["a"], "a": x["b"]}, None),  # swapped
        (lambda self, x: dict.fromkeys(("y", "z"), self.dense(x["a"] - x["b"])), None),
    ],
)
def test_tensors_are_named_and_the_signature_stays(call, outputs, tmp_path):
    model = Heads(call)
    expected = model(X)
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None, inputs=X)
    inputs, found, _ = names_of(tmp_path / "x")
    assert sorted(inputs) == ["a", "b"]
    if outputs is not None:
        assert sorted(found) == outputs
    runner = Interpreter(model_path=str(tmp_path / "x")).get_signature_runner()
    results = runner(**X)
    assert results.keys() == expected.keys() == report.outputs.keys()
    for name, result in results.items():
        np.testing.assert_allclose(result, expected[name], rtol=0, atol=1e-6)
    for name, result in values_by_tensor(tmp_path / "x").items():
        if name in expected.keys() - X.keys():
            np.testing.assert_allclose(result, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("quantization", [None, "float16", "int8"])
@pytest.mark.parametrize("storage", [None, "auto"])
def test_names_in_every_format(quantization, storage, tmp_path):
    model = dense_model(64, 48)
    options = {"quantization": quantization, "sparse_storage": storage}
    export(model, tmp_path / "x", **options)
    inputs, outputs, _ = names_of(tmp_path / "x")
    assert (inputs, outputs) == (["x"], ["dense_1"])
    for result in outputs_of(tmp_path / "x", random_input(model)):
        np.testing.assert_allclose(result, model(random_input(model)), rtol=0, atol=0.1)


def test_other_tensors_make_room():
    """Those of one function keep apart what another has the name of."""

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    def function(x):
        return {"y": tf.nn.softmax(tf.exp(x) + 1.0), "z": tf.identity(x)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], tf.Module()
    )
    model = flatbuffer.read(converter.convert())
    graph = flatbuffer.main_graph(model)
    used = {entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    used |= {entry.tensorIndex for entry in model.signatureDefs[0].inputs}
    others = [tensor for index, tensor in enumerate(graph.tensors) if index not in used]
    assert len(others) > 1
    others[0].name, others[1].name = b"y", b"y_1"
    name_as_signature(model)
    assert [flatbuffer.text(tensor.name) for tensor in others[:2]] == ["y_2", "y_1"]
    runner = Interpreter(model_content=flatbuffer.written(model)).get_signature_runner()
    x = np.ones([1, 4], np.float32)
    np.testing.assert_allclose(runner(x=x)["y"], np.full([1, 4], 0.25), atol=1e-6)
    np.testing.assert_array_equal(runner(x=x)["z"], x)


def test_files_without_a_signature_stay():
    converter = tf.lite.TFLiteConverter.from_keras_model(dense_model(4))
    model = flatbuffer.read(converter.convert())
    model.signatureDefs = None
    before = [tensor.name for tensor in flatbuffer.main_graph(model).tensors]
    name_as_signature(model)
    assert [tensor.name for tensor in flatbuffer.main_graph(model).tensors] == before
