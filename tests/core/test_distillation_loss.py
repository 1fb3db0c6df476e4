"""The distillation loss."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from modes import MODES, compiled, every_mode

from tf_movprune import distillation_loss

RANDOM = np.random.RandomState(0)


@every_mode
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.5])
@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 7)])
def test_loss_is_that_of_numpy(mode, temperature, shape):
    teacher, student = RANDOM.standard_normal([2, *shape]).astype(np.float32) * 4
    result = compiled(mode, distillation_loss)(
        tf.constant(teacher), tf.constant(student), temperature
    )
    expected = reference.distillation(teacher, student, temperature)
    assert result.dtype == tf.float32 and result.shape == []
    np.testing.assert_allclose(result, expected.mean(), rtol=1e-5)

    valid = np.resize([True, False, True], shape[:-1])
    result = compiled(mode, distillation_loss)(
        tf.constant(teacher), tf.constant(student), temperature, tf.constant(valid)
    )
    np.testing.assert_allclose(result, expected[valid].mean(), rtol=1e-5)


@every_mode
def test_gradient_is_that_of_the_docstring(mode):
    teacher, student = tf.constant(RANDOM.standard_normal([2, 4, 3]).astype(np.float32))

    def gradients(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch([teacher, student])
            loss = distillation_loss(teacher, student, 3.0)
        return tape.gradient(loss, [teacher, student], unconnected_gradients="zero")

    of_teacher, of_student = MODES[mode](gradients)(teacher, student)
    p, q = (np.exp(reference.log_softmax(z.numpy() / 3)) for z in (teacher, student))
    np.testing.assert_allclose(of_student, 3 * (q - p) / 4, atol=1e-6)
    assert not np.any(of_teacher)


@every_mode
def test_loss_at_its_edges(mode):
    loss = compiled(mode, distillation_loss)
    ruled_out = tf.constant([[1.0, -np.inf, 0.0]])
    np.testing.assert_allclose(loss(ruled_out, ruled_out, 2.0), 0, atol=1e-6)
    finite = tf.constant([[0.0, 2.0, 1.0]])
    expected = reference.distillation(ruled_out.numpy(), finite.numpy(), 2.0)
    np.testing.assert_allclose(loss(ruled_out, finite, 2.0), expected.mean(), rtol=1e-5)
    assert loss(finite, ruled_out * 0 + finite, 2.0, tf.constant([False])) == 0
    half = tf.constant([[0.0, 1e4, 6e4]], tf.float16)
    assert loss(half, half[:, ::-1], 2.0).dtype == tf.float32
    assert np.isfinite(loss(half, half[:, ::-1], 2.0))


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf")])
def test_temperatures_out_of_range(temperature):
    for given in (temperature, tf.constant(temperature, tf.float32)):
        with pytest.raises(ValueError, match="temperature must be "):
            distillation_loss(tf.zeros([2, 3]), tf.zeros([2, 3]), given)
    in_graph = tf.function(lambda x: distillation_loss(x, x, tf.constant(float(temperature))))
    with pytest.raises(ValueError, match="temperature must be "):
        in_graph(tf.zeros([2, 3]))


def test_temperatures_of_which_a_run_knows_the_value():
    logits = tf.constant([[0.0, 1.0, 2.0]])
    loss = tf.function(lambda temperature: distillation_loss(logits, logits[:, ::-1], temperature))
    expected = distillation_loss(logits, logits[:, ::-1], 2.0)
    np.testing.assert_allclose(loss(tf.constant(2.0)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        distillation_loss(logits, logits[:, ::-1], tf.Variable(2.0)), expected
    )


@pytest.mark.parametrize(
    "student, valid, name",
    [
        ([1, 3], None, "student_logits"),
        ([4, 1], None, "student_logits"),
        ([4, 3], [1], "valid"),
        ([4, 3], [4, 1], "valid"),
    ],
)
def test_shapes_are_not_broadcast(student, valid, name):
    valid = None if valid is None else tf.ones(valid, tf.bool)
    with pytest.raises(ValueError, match=rf"{name} must have shape \(4,.* got "):
        distillation_loss(tf.zeros([4, 3]), tf.zeros(student), 2.0, valid)
