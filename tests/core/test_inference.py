"""Examples on which models and their files are compared, and errors of models' own code."""

import numpy as np
import pytest
import tensorflow as tf

from tf_movprune.core.example_inputs import random_inputs
from tf_movprune.core.inference import Inference


def inference(function, *specs, **options):
    return Inference("net", specs, function, [], **options)


def spec(name, shape=(2, 6), dtype="float32"):
    return tf.TensorSpec(shape, dtype, name)


def test_random_inputs_of_each_kind():
    specs = [
        spec("x"),
        spec("ids", dtype="int32"),
        spec("token_type_ids", dtype="int64"),
        spec("attention_mask", dtype="float32"),
        spec("mask", dtype="bool"),
        spec("flags", (4, 40), "bool"),
        spec("scalar", (), "float32"),
        spec("mask_of_all", (), "bool"),
        spec("waves", dtype="complex64"),
        spec("open", (None, None, 3)),
    ]
    inputs = random_inputs(specs, 50)
    for one in specs:
        assert inputs[one.name].dtype == one.dtype.as_numpy_dtype
        assert one.shape.is_compatible_with(inputs[one.name].shape)
    assert (inputs["x"] < 0).any() and inputs["ids"].max() > 2
    assert not inputs["token_type_ids"].any() and len(set(inputs["flags"].ravel())) == 2
    for name in ("attention_mask", "mask"):
        np.testing.assert_array_equal(inputs[name], [[1, 1, 1, 0, 0, 0]] * 2)
    assert inputs["open"].shape == (2, 16, 3)


def test_strings_are_not_made_up():
    with pytest.raises(ValueError, match=r"'text' takes strings.* Pass inputs=.*'text'.*verify"):
        random_inputs([spec("text", dtype="string")], 2)


def test_floats_that_are_ids_are_found_out():
    table = tf.constant([[1.0], [2.0]])

    def function(ids):
        return {"y": tf.gather(table, tf.cast(ids, tf.int32))}

    example = inference(function, spec("ids", (2, 40))).example()
    assert set(example.inputs["ids"].ravel()) == {0.0, 1.0}
    np.testing.assert_array_equal(example.outputs["y"][..., 0], example.inputs["ids"] + 1)


def test_failing_on_values_names_inputs():
    def function(ids):
        return {"y": tf.gather([1.0], ids - 3)}

    failing = inference(function, spec("ids", dtype="int32"))
    for given in (None, {"ids": np.zeros([2, 6])}):
        with pytest.raises(ValueError, match=r"'net' fails on .* int32 ids \(2, 6\)\. Pass inputs"):
            failing.example(given)
    assert failing.example({"ids": np.full([2, 6], 3)}).outputs["y"].shape == (2, 6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"y": x @ tf.zeros([5, 1])}, "Pass another .* inputs=.* ValueError: Dimensions"),
        (lambda x: {"y": x.numpy()}, "AttributeError: .* has no attribute 'numpy'"),
        (lambda x: {"y": tf.constant(x.name)[0]}, "The model raised"),
        (lambda x: {"y": tf.RaggedTensor.from_tensor(x)}, "output 'y' of 'net' is a RaggedTensor"),
        (lambda x: {"y": tf.sparse.from_dense(x)}, "output 'y' of 'net' is a SparseTensor"),
    ],
)
def test_what_cannot_be_traced(function, message):
    with pytest.raises(ValueError, match=message):
        _ = inference(function, spec("x")).concrete


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1], TypeError, r"with the keys \['a', 'b_c'\], got list"),
        ({"a": np.zeros([2, 6])}, ValueError, "inputs lacks 'b_c': it has"),
        ({"a": 1, "b_c": 1, "d": 1}, ValueError, r"inputs has 'd', but .* \['a', 'b_c'\]"),
        ({"a": np.zeros([1, 6]), "b_c": 1}, ValueError, r"'a' of shape \(1, 6\), .* \(2, 6\)"),
        ({"a": np.zeros([2, 6]), "b_c": "text"}, ValueError, "'b_c' that is no array of float32"),
    ],
)
def test_inputs_that_do_not_fit(given, error, message):
    two = inference(lambda a, b: {"y": a * b}, spec("a"), spec("b_c", ()))
    with pytest.raises(error, match=message):
        two.example(given)


def test_nested_inputs_are_found():
    two = inference(lambda a, b: {"y": a * b}, spec("a_0"), spec("a_1_c", ()))
    given = {"a": [np.ones([2, 6]), {"c": np.float32(3)}]}
    np.testing.assert_array_equal(two.example(given).outputs["y"], np.full([2, 6], 3))


def test_variables_are_given_their_values_back():
    count = tf.Variable(0.0)

    @tf.function
    def inner(x):
        return x + count.assign_add(1.0)

    counting = inference(lambda x: {"y": inner(x)}, spec("x"))
    x = {"x": np.zeros([2, 6])}
    assert counting.run(x)["y"].max() == counting.run(x)["y"].max() == 1.0
    assert float(count) == 0.0
    (name,) = counting.assigning
    assert name.endswith("/AssignAddVariableOp") and not inference(tf.abs, spec("x")).variables


def test_shapes_of_unknown_rank():
    def function(x):
        return {"y": tf.py_function(lambda x: x, [x], tf.float32), "z": x}

    assert inference(function, spec("x", (None, 6))).output_shapes == {"y": None, "z": (None, 6)}
