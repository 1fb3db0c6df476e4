"""Contents of batches of distillation: where labels, masks and logits come from."""

import numpy as np
import pytest
import tensorflow as tf

from tf_movprune.core.distillation_batches import (
    Batch,
    TeacherOutputs,
    WithTeacherLogits,
    as_data,
    batch_of,
    check_class_ids,
    check_match,
    logits_of,
    packed,
    targets_of,
)

THREE = tf.zeros([2, 3])


class OfHuggingFace(dict):
    def to_tuple(self):
        return tuple(self.values())


@pytest.mark.parametrize(
    "outputs, names",
    [
        (THREE, ["logits"]),
        ([THREE], ["logits"]),
        ((THREE, THREE), ["output_1", "output_2"]),
        ({"a": THREE, "b": THREE}, ["a", "b"]),
        ({"logits": THREE, "states": tf.zeros([1])}, ["logits"]),
        ({"start_logits": THREE, "end_logits": THREE, "x": None}, ["start_logits", "end_logits"]),
    ],
)
def test_logits_by_name(outputs, names):
    assert list(logits_of(outputs)) == names


@pytest.mark.parametrize(
    "outputs, error, message",
    [
        (tf.zeros([2, 3], tf.int32), TypeError, "Expected logits as outputs: .*; got .*Tensor"),
        ({}, TypeError, "Expected logits as outputs"),
        (OfHuggingFace(state=THREE), TypeError, "got OfHuggingFace with state"),
        (tf.zeros([2]), ValueError, r"at least 2 classes, got logits of shape \(2,\)"),
        ([THREE, tf.zeros([2, 1])], ValueError, r"got output_2 of shape \(2, 1\)"),
    ],
)
def test_outputs_that_are_no_logits(outputs, error, message):
    with pytest.raises(error, match=message):
        logits_of(outputs)


def test_labels_may_be_among_the_inputs():
    batch = batch_of({"ids": 1, "labels": 2}, None, None)
    assert batch == Batch({"ids": 1}, {"labels": 2}, None, None)
    assert batch_of({"ids": 1, "labels": 2}, 3, 4) == Batch({"ids": 1, "labels": 2}, 3, 4, None)
    teacher = TeacherOutputs({"logits": 5}, {"block": [6]})
    cached = WithTeacherLogits({"ids": 1, "labels": 2}, {"logits": 5}, {"block": [6]})
    assert batch_of(cached, None, None) == Batch({"ids": 1}, {"labels": 2}, None, teacher)
    assert as_data(cached) == (cached,) and as_data((1, 2)) == (1, 2)


def target(labels=None, weights=None, mask=None, logits=None):
    logits = tf.zeros([2, 2, 3]) if logits is None else logits
    batch = Batch(None, labels, weights, None)
    return targets_of(batch, {"logits": logits}, lambda tensor: mask)["logits"]


def test_positions_that_are_ignored_or_masked_have_no_weight():
    labels = np.array([[1, -100], [2, 0]])
    found = target(labels)
    np.testing.assert_array_equal(found.labels, [[1, 0], [2, 0]])
    np.testing.assert_array_equal(found.valid, [[True, False], [True, True]])
    np.testing.assert_array_equal(found.weights, [[1, 0], [1, 1]])
    mask = tf.constant([[True, True], [False, True]])
    found = target(labels, np.array([2.0, 3.0]), mask)
    np.testing.assert_array_equal(found.weights, [[2, 0], [0, 3]])
    found = target(labels, np.array([[[2.0], [1.0]], [[3.0], [4.0]]]))
    np.testing.assert_array_equal(found.weights, [[2, 0], [3, 4]])
    assert target(None, None, tf.constant([True, False])).valid is None  # not by position
    np.testing.assert_array_equal(target(labels[..., None]).labels, found.labels)


def test_labels_that_do_not_fit():
    logits = {"logits": THREE}
    for labels in (np.zeros(2, np.float32), np.zeros([2, 3], np.int32)):
        targets = targets_of(Batch(None, labels, None, None), logits, lambda tensor: None)
        with pytest.raises(ValueError, match=r"Expected integer labels of shape \(2,\), got"):
            check_class_ids(targets, logits)
    two = {"start_logits": THREE, "end_logits": THREE}
    for labels, received in ((1, "one tensor"), ([1], "1 tensors"), ({"a": 1}, "keys a")):
        with pytest.raises(ValueError, match=f"outputs start_logits, end_logits, got {received}"):
            targets_of(Batch(None, labels, None, None), two, lambda tensor: None)
    given = {"start_positions": np.zeros(2, np.int32), "end_positions": np.ones(2, np.int32)}
    targets = targets_of(Batch(None, given, None, None), two, lambda tensor: None)
    assert [float(t.labels[0]) for t in targets.values()] == [0, 1]


def test_outputs_must_match():
    check_match({"logits": THREE}, {"logits": THREE})
    for other, given in (
        ({"logits": tf.zeros([2, 4])}, r"logits \(2, 4\)"),
        ({"a": THREE, "b": THREE}, r"a \(2, 3\), b \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=rf"gives logits \(2, 3\), the teacher {given}\."):
            check_match({"logits": THREE}, other)


def test_values_are_packed_like_the_outputs():
    assert packed({"logits": 1}, THREE) == 1
    assert packed({"a": 1, "b": 2}, {"a": THREE, "b": THREE}) == {"a": 1, "b": 2}
    assert packed({"output_1": 1, "output_2": 2}, (THREE, THREE)) == [1, 2]
