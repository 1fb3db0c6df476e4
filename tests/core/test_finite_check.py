"""NaN and infinity among variables, by the names of the layers that have them."""

import pickle

import numpy as np
import pytest
import tensorflow as tf
from records import matrix

from tf_movprune.core.finite_check import (
    FiniteCheck,
    NotFiniteError,
    check_finite,
    joined,
    weights_of,
)
from tf_movprune.core.scores import SCORES_NAME

NAN, INFINITY = float("nan"), float("inf")


def variable(*values, name="kernel", dtype=tf.float32):
    return tf.Variable(tf.constant(values, dtype), name=name)


@pytest.fixture(params=[False, True], ids=["", "as_on_a_gpu"])
def jit_compile(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    return request.param


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64], ids=str)
def test_what_is_finite_passes(dtype, jit_compile):
    """A half-precision sum of these would overflow."""
    FiniteCheck({"layer": [variable(*[6e4] * 100, dtype=dtype)]})(0)


@pytest.mark.parametrize(
    "values", [(NAN,), (INFINITY,), (-INFINITY,), (INFINITY, -INFINITY), (1, NAN)], ids=str
)
@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64], ids=str)
def test_what_is_not_finite_is_named(values, dtype, jit_compile):
    faulty = variable(*values, dtype=dtype)
    check = FiniteCheck({"good": [variable(1)], "bad": [variable(2, name="bias"), faulty]})
    with pytest.raises(NotFiniteError, match=r"^NaN or infinity at step 7 in bad \(kernel\)\. Mas"):
        check(7)
    faulty.assign(tf.zeros_like(faulty))
    check(7)  # looks at what variables are now


def test_the_batch_is_named_and_layers_are_counted():
    """One bad batch reaches every layer, whose list would be as long as the model."""
    weights = {
        f"block.{i}": [
            variable(NAN),
            variable(NAN),
            variable(1, name="bias"),
            variable(INFINITY, name=SCORES_NAME),
        ]
        for i in range(5)
    }
    message = (
        r"at step 3 in block\.0 \(kernel, movement scores\), block\.1 \(.*\), block\.2 \(.*\) and "
        r"2 more layers, after batch 2 of its epoch, counted from 0\. Look for NaN in that batch\. "
        r"Masks stay as they were\. Go back to the last checkpoint .* lower the learning rate"
    )
    with pytest.raises(NotFiniteError, match=message):
        FiniteCheck(weights)(3, 2)


def test_batches_that_may_be_at_fault_are_named():
    check = FiniteCheck({"layer": [variable(NAN)]})
    for batch, batches in ((7, 3), (1, 3)):
        first = max(0, batch - 2)
        message = rf"after batches {first} to {batch} of its epoch.* Look for NaN in those batches"
        with pytest.raises(NotFiniteError, match=message):
            check(3, batch, batches)
    with pytest.raises(NotFiniteError, match="after batch 0 of its"):
        check(3, 0, 3)


def test_the_error_tells_fault_and_remedy_apart():
    with pytest.raises(NotFiniteError) as caught:
        FiniteCheck({"layer": [variable(NAN)]})(3)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.fault == "NaN or infinity at step 3 in layer (kernel)."
    assert str(error) == f"{error.fault} {error.remedy}" == str(caught.value)


def test_integers_are_passed_over():
    FiniteCheck({"layer": [tf.Variable([1, 2])]})(0)


def test_a_variable_is_looked_at_once():
    """The kernel of a masked layer, which is among the trainable weights, too."""
    kernel = matrix(4, 2)
    (part,) = kernel.parts
    found = joined({"first": [part.weight]}, weights_of({"first": [kernel], "again": [kernel]}))
    assert [list(map(id, found[path])) for path in found] == [[id(part.weight), id(kernel.scores)]]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph_layers_are_named_unless_xla_compiles_it(jit_compile):
    bad = variable(1)
    weights = {"good": [variable(1)], "bad": [bad]}

    @tf.function(jit_compile=jit_compile)
    def check(step):
        return check_finite(weights, step)

    step = tf.constant(5, tf.int64)
    assert check(step) and check_finite(weights, step)
    bad.assign([np.nan])
    with pytest.raises(ValueError, match=r"at step 5 in bad \(kernel\)"):
        check_finite(weights, step)
    if jit_compile:
        assert not check(step)
    else:
        message = r"\[NaN or infinity at step\] \[5\] \[in bad\. Masks stay"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            check(step)
