"""The loss on hidden states."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES, compiled, every_mode

from tf_movprune import hidden_state_loss
from tf_movprune.core.hidden_state_loss import valid_positions

RANDOM = np.random.RandomState(0)


@every_mode
@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 7)])
def test_loss_is_that_of_numpy(mode, shape):
    teacher, student = RANDOM.standard_normal([2, *shape]).astype(np.float32)
    loss = compiled(mode, hidden_state_loss)
    expected = np.sum((student - teacher) ** 2) / np.sum(teacher**2)
    np.testing.assert_allclose(loss(tf.constant(teacher), tf.constant(student)), expected, 1e-5)

    valid = np.resize([1, 0, 1], shape[:-1])
    at = valid.astype(bool)
    expected = np.sum((student[at] - teacher[at]) ** 2) / np.sum(teacher[at] ** 2)
    # Padding counts for nothing, not even if it holds NaN.
    teacher[~at], student[~at] = np.nan, np.inf
    for mask in (valid, at, valid.astype(np.float32)):
        found = loss(tf.constant(teacher), tf.constant(student), tf.constant(mask))
        np.testing.assert_allclose(found, expected, 1e-5)


@every_mode
def test_gradient_is_that_of_the_docstring(mode):
    teacher, student = tf.constant(RANDOM.standard_normal([2, 4, 3]).astype(np.float32))
    valid = tf.constant([True, False, True, True])

    def gradients(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch([teacher, student])
            loss = hidden_state_loss(teacher, student, valid)
        return tape.gradient(loss, [teacher, student], unconnected_gradients="zero")

    of_teacher, of_student = MODES[mode](gradients)(teacher, student)
    t, s = teacher.numpy()[valid], student.numpy()[valid]
    np.testing.assert_allclose(of_student.numpy()[valid], 2 * (s - t) / np.sum(t**2), rtol=1e-5)
    assert not np.any(of_student[1]) and not np.any(of_teacher)


@every_mode
def test_loss_at_its_edges(mode):
    loss = compiled(mode, hidden_state_loss)
    states = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    assert loss(states, states) == 0
    assert loss(states, 0 * states) == 1
    assert loss(states, 2 * states, tf.constant([False, False])) == 0
    large = tf.constant([[6e4, -6e4]], tf.float16)  # whose squares float16 does not have
    found = loss(large, large / 2)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


def test_shapes_that_differ():
    states = tf.zeros([2, 3, 4])
    with pytest.raises(ValueError, match=r"student_states must have shape \(2, 3, 4\)"):
        hidden_state_loss(states, tf.zeros([2, 3, 5]))
    with pytest.raises(ValueError, match=r"valid must have shape \(2, 3\)"):
        hidden_state_loss(states, states, tf.ones([2, 4], tf.bool))


def test_positions_that_are_no_padding():
    states, mask = tf.zeros([2, 3, 4]), tf.constant([[1, 1, 0], [1, 0, 0]])
    other = tf.constant([[1, 1, 1], [1, 1, 0]])
    by_keras = tf.cast(mask, tf.bool)
    assert valid_positions({"padding_mask": other}, by_keras, states, "block") is by_keras
    ids = {"attention_mask": mask, "input_ids": mask}
    assert valid_positions(ids, None, states, "decoder_block_0") is mask
    assert valid_positions({"token_ids": mask}, None, states, "block") is None
    assert valid_positions(mask, None, states, "block") is None
    # A mask of another shape is none of these states.
    assert valid_positions({"padding_mask": mask}, None, tf.zeros([2, 4]), "pooler") is None
    assert valid_positions({"padding_mask": mask}, None, tf.zeros([2, 5, 4]), "block") is None
    given = valid_positions({"padding_mask": mask.numpy()}, None, states, "block")
    np.testing.assert_array_equal(given, mask)


def test_positions_in_an_encoder_and_a_decoder():
    states, mine = tf.zeros([2, 3, 4]), tf.ones([2, 3], tf.int32)
    theirs = tf.constant([[1, 1, 0], [1, 0, 0]])
    of_keras_hub = {"encoder_padding_mask": mine, "decoder_padding_mask": theirs}
    of_hugging_face = {"attention_mask": mine, "decoder_attention_mask": theirs}
    for inputs in (of_keras_hub, of_hugging_face):
        assert valid_positions(inputs, None, states, "encoder.layers.0") is mine
        assert valid_positions(inputs, None, states, "decoder.layers.0") is theirs
    no_mask = {"attention_mask": mine, "decoder_input_ids": theirs}
    assert valid_positions(no_mask, None, states, "decoder.layers.0") is None
