"""Weights of a file that a model takes, and those that it refuses."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tf_movprune.keras2.named_weights import assign_weights, matching_weights


class Counter(keras.layers.Dense):
    """A dense layer with an integer."""

    def build(self, shape):
        super().build(shape)
        self.count = self.add_weight("count", (), tf.int64, "zeros", trainable=False)


def model_of(dtype):
    keras.utils.set_random_seed(0)
    return keras.Sequential([Counter(2, input_shape=(3,), dtype=dtype, name="layer")])


def arrays_of(kernel=None, count=7):
    return {
        "layer/kernel": np.ones([3, 2], np.float32) if kernel is None else kernel,
        "layer/bias": np.array([1, 2], np.float32),
        "layer/count": np.asarray(count),
    }


def load(model, arrays):
    specs = {name: tf.TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    assign_weights(model, matching_weights(model, specs, "file"), arrays, "file")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floats_of_another_precision_are_converted(dtype):
    model = model_of(dtype)
    load(model, arrays_of(np.full([3, 2], 1 / 3)))
    np.testing.assert_allclose(tf.cast(model.weights[0], tf.float64), 1 / 3, rtol=4e-3)
    assert model.weights[0].dtype == dtype
    assert [int(x) for x in tf.cast(model.weights[1], tf.int64)] == [1, 2]
    assert model.layers[0].count == 7
    load(model, arrays_of(np.full([3, 2], np.inf)))
    assert np.isinf(tf.cast(model.weights[0], tf.float64)).all()


@pytest.mark.parametrize(
    "dtype, arrays, message",
    [
        ("float16", arrays_of(np.full([3, 2], 7e4, np.float32)), "kernel:0 of float16 overflows"),
        ("float32", arrays_of(np.full([3, 2], 1e39)), "kernel:0 of float32 overflows with float64"),
        ("float32", arrays_of(np.ones([3, 2], np.int32)), "kernel:0 float32, in the file int32"),
        ("float32", arrays_of(np.ones([3, 2], bool)), "kernel:0 float32, in the file bool"),
        ("float32", arrays_of(count=7.5), "count:0 int64, in the file float64"),
        ("float32", arrays_of(count=np.int32(7)), "count:0 int64, in the file int32"),
        ("float32", arrays_of(count=np.ones([1], np.int64)), r"count:0 \(\), in the file \(1,\)"),
        ("float32", arrays_of(np.ones([2, 3])), r"kernel:0 \(3, 2\), in the file \(2, 3\)"),
        ("float32", {**arrays_of(), "more": np.ones(1)}, r"Missing in the model: more\."),
    ],
)
def test_weights_that_are_not_those_of_the_model(dtype, arrays, message):
    model = model_of(dtype)
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"file .*{message}"):
        load(model, arrays)
    for found, array in zip(model.get_weights(), before):
        np.testing.assert_array_equal(found, array)
