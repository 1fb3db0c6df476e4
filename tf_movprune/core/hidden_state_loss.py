"""The loss by which a student's hidden states follow its teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_MASKS = ("padding_mask", "attention_mask")  # of KerasHub and of Hugging Face


def hidden_state_loss(
    teacher_states: tf.Tensor, student_states: tf.Tensor, valid: tf.Tensor | None = None
) -> tf.Tensor:
    """Squared distance of hidden states from the teacher's, relative to the size of those.

        sum_i ‖s_i - t_i‖² / sum_i ‖t_i‖²

    The sums are over the valid positions of the batch, so that layers with large states count no
    more than others, and padding for nothing. The gradient is `2 (s - t) / sum_i ‖t_i‖²` for the
    student's states at valid positions, and none for the teacher's.

    Args:
      teacher_states: tensor [..., width] of any float type; the loss is computed in float32.
      student_states: tensor of the same shape.
      valid: bool or number tensor of the states' shape without its last axis, zero at the positions
        that do not count; all count by default. If none is valid, the loss is 0.

    Returns:
      float32 scalar, at least 0. It is 0 if the states are equal, and 1 if the student's are 0.

    Raises:
      ValueError: shapes differ.

    Reference:
      Kurtic et al. (2023), https://arxiv.org/abs/2310.06927, where it is called SquareHead.
    """
    teacher = tf.stop_gradient(tf.cast(teacher_states, tf.float32))
    student = tf.cast(student_states, tf.float32)
    if not student.shape.is_compatible_with(teacher.shape):
        raise ValueError(
            f"student_states must have shape {teacher.shape}, that of teacher_states, got "
            f"{student.shape}."
        )
    if valid is not None:
        weights = tf.cast(valid, tf.bool)
        if not weights.shape.is_compatible_with(teacher.shape[:-1]):
            raise ValueError(
                f"valid must have shape {teacher.shape[:-1]}, that of the states without their "
                f"last axis, got {weights.shape}."
            )
        # Not a product: what padding holds may be infinite or not a number.
        zero = tf.zeros([], tf.float32)
        teacher = tf.where(weights[..., tf.newaxis], teacher, zero)
        student = tf.where(weights[..., tf.newaxis], student, zero)
    distance = tf.reduce_sum(tf.math.squared_difference(student, teacher))
    return tf.math.divide_no_nan(distance, tf.reduce_sum(tf.square(teacher)))


def valid_positions(
    inputs: Any, keras_mask: tf.Tensor | None, states: tf.Tensor, path: str
) -> tf.Tensor | None:
    """The positions of hidden states that are no padding; None if that is not known.

    Args:
      inputs: the inputs of the model, among which there may be a mask.
      keras_mask: the Keras mask that the states carry, or None; it comes first.
      states: tensor [batch, ..., width].
      path: path of the layer that gives them: a decoder beside an encoder has masks of its own.
    """
    masks = [keras_mask]
    if isinstance(inputs, Mapping):
        has_both = any(str(name).startswith("decoder_") for name in inputs)
        prefixes = (
            ("",) if not has_both else ("decoder_",) if "decoder" in path else ("", "encoder_")
        )
        masks += [inputs.get(f"{prefix}{name}") for prefix in prefixes for name in _MASKS]
    for mask in masks:
        if mask is not None:
            mask = tf.convert_to_tensor(mask)
            if mask.shape.is_compatible_with(states.shape[:-1]):
                return mask
    return None
