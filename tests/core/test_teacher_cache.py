"""A teacher's logits kept beside the batches that they were computed from."""

import numpy as np
import pytest
import tensorflow as tf

from tf_movprune.core.distillation_batches import WithTeacherLogits
from tf_movprune.core.teacher_cache import cached_logits

X = np.random.RandomState(0).standard_normal([24, 8]).astype("float32")
Y = np.arange(24, dtype="int32") % 3


class Teacher:
    """Gives the first three inputs times a factor, and counts the batches that it was given."""

    def __init__(self, factor=2.0):
        self.factor, self.calls = factor, 0

    def __call__(self, inputs, training=None):
        assert training is False and not isinstance(inputs, WithTeacherLogits)

        def count():
            self.calls += 1
            return np.int32(0)

        with tf.control_dependencies([tf.py_function(count, [], tf.int32)]):
            return self.factor * inputs[:, :3]


def batches(*values, size=10):
    return tf.data.Dataset.from_tensor_slices(values).batch(size)


@pytest.mark.parametrize("elements", [(X,), (X, Y), (X, Y, np.ones(24, "float32"))])
def test_batches_and_their_order_are_kept(elements):
    data, teacher = batches(*elements), Teacher()
    cached = cached_logits(data if len(elements) > 1 else data.map(lambda x: x), teacher, {})
    assert teacher.calls == int(cached.cardinality()) == 3
    for _ in range(2):
        for expected, received in zip(data, cached):
            x, *rest = received
            np.testing.assert_array_equal(x.inputs, expected[0])
            np.testing.assert_array_equal(x.teacher_logits["logits"], 2 * expected[0][:, :3])
            assert len(rest) == len(expected) - 1
            for before, after in zip(expected[1:], rest):
                np.testing.assert_array_equal(after, before)
    assert teacher.calls == 3


def test_passes_share_no_memory():
    """Else steps that compute in place would change what later passes see."""
    cached = cached_logits(batches(X, Y, size=1), Teacher(), {})
    passes = [[memoryview(t) for t in tf.nest.flatten(list(cached))] for _ in range(2)]
    assert not any(np.shares_memory(a, b) for a, b in zip(*passes))


def test_batches_may_be_made_anew_and_cached_again():
    cached = cached_logits(batches(X, Y), Teacher(), {}).unbatch()
    cached = cached.shuffle(24, seed=0, reshuffle_each_iteration=False).batch(6)
    again = cached_logits(cached, Teacher(3.0), {})
    found = {2.0: [], 3.0: []}
    for factor, data in ((2.0, cached), (3.0, again)):
        for x, y in data:
            np.testing.assert_array_equal(x.teacher_logits["logits"], factor * x.inputs[:, :3])
            found[factor] += y.numpy().tolist()
    assert found[2.0] == found[3.0] and sorted(found[2.0]) == sorted(Y)


def test_batches_of_different_sizes_with_labels_among_the_inputs():
    def teacher(inputs, training):
        assert set(inputs) == {"input_ids"}
        ids = tf.cast(inputs["input_ids"], "float32")
        return {"start_logits": ids, "end_logits": 2 * ids}

    labels = {"start_positions": Y[:6], "end_positions": Y[:6]}
    data = tf.data.Dataset.from_tensor_slices({"input_ids": tf.ones([6, 5], "int32"), **labels})
    data = data.batch(3).enumerate()
    data = data.map(lambda i, x: {**x, "input_ids": x["input_ids"][:, : 4 + tf.cast(i, "int32")]})
    cached = cached_logits(data, teacher, {})
    spec = cached.element_spec[0]
    assert spec.teacher_logits["start_logits"].shape.as_list() == [3, None]
    assert spec.inputs.keys() == {"input_ids", *labels}
    assert [x.teacher_logits["end_logits"].shape[1] for (x,) in cached] == [4, 5]


def test_what_cannot_be_cached():
    with pytest.raises(TypeError, match=r"Expected a tf.data.Dataset of batches, got ndarray"):
        cached_logits(X, Teacher(), {})
    with pytest.raises(ValueError, match=r"infinite.*repeat"):
        cached_logits(batches(X).repeat(), Teacher(), {})
    with pytest.raises(ValueError, match=r"empty"):
        cached_logits(batches(X).take(0), Teacher(), {})
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [1.0, 2.0]]))
    with pytest.raises(TypeError, match=r"dense tensors"):
        cached_logits(ragged, Teacher(), {})
