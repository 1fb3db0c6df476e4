"""The loss by which a student learns from a teacher; it needs no labels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_number


def distillation_loss(
    teacher_logits: tf.Tensor,
    student_logits: tf.Tensor,
    temperature: float,
    valid: tf.Tensor | None = None,
) -> tf.Tensor:
    """Divergence of the student's softened distribution from the teacher's.

        T² * sum_c p_c * (log p_c - log q_c),   p = softmax(z_t / T), q = softmax(z_s / T)

    The loss is the mean over the N valid positions. The factor T² keeps the size of the gradient
    independent of T; the gradient is `T * (q - p) / N` for the student's logits and none for the
    teacher's. Classes that the teacher's logits rule out with -inf add nothing.

    Args:
      teacher_logits: tensor [..., classes] of any float type; the loss is computed in float32.
      student_logits: tensor of the same shape.
      temperature: T, greater than 0.
      valid: bool tensor of the logits' shape without its last axis, true at the positions to
        average over; all by default. If none is valid, the loss is 0.

    Returns:
      float32 scalar.

    Raises:
      TypeError: `temperature` is no number.
      ValueError: `temperature` is known and not greater than 0, or shapes differ.

    Reference:
      Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531, section 2; Sanh, Wolf & Rush
      (2020), https://arxiv.org/abs/2005.07683, section 6.
    """
    if not tf.is_tensor(temperature):
        temperature = check_number("temperature", temperature, example=2.0, above=0)
    else:
        value = tf.get_static_value(temperature)  # None if it is known only in a run
        if np.ndim(value) == 0 and value is not None:
            check_number("temperature", value.item(), example=2.0, above=0)
    teacher = tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    student = tf.cast(student_logits, tf.float32)
    _check_shape("student_logits", student.shape, teacher.shape)
    if valid is not None:
        _check_shape("valid", tf.convert_to_tensor(valid).shape, teacher.shape[:-1])
    log_p = tf.nn.log_softmax(teacher / temperature)
    log_q = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.math.multiply_no_nan(log_p - log_q, tf.exp(log_p)), axis=-1)
    if valid is None:
        valid = tf.ones_like(divergence, tf.bool)
    weights = tf.cast(valid, tf.float32)
    mean = tf.math.divide_no_nan(tf.reduce_sum(weights * divergence), tf.reduce_sum(weights))
    return temperature**2 * mean


def _check_shape(name: str, shape: tf.TensorShape, expected: tf.TensorShape) -> None:
    if not shape.is_compatible_with(expected):
        raise ValueError(
            f"{name} must have shape {expected}, that of teacher_logits"
            f"{' without classes' if name == 'valid' else ''}, got {shape}."
        )
