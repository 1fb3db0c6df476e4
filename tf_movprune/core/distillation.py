"""Contents of batches, and checks of logits and labels, in distillation."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class WithTeacherLogits(NamedTuple):
    """A model's inputs and the teacher's logits on them: `x` in a cached dataset."""

    inputs: Any
    teacher_logits: dict[str, tf.Tensor]


class Batch(NamedTuple):
    """Parts of the data that `fit` hands over."""

    inputs: Any
    labels: Any
    sample_weight: Any
    teacher_logits: dict[str, tf.Tensor] | None


class Target(NamedTuple):
    """Labels and weights that one output is compared with."""

    labels: tf.Tensor | None
    valid: tf.Tensor | None
    weights: tf.Tensor | None


def are_class_ids(labels: tf.Tensor, logits: tf.Tensor) -> bool:
    """Returns whether labels are integers of the logits' shape without its last axis."""
    return labels.dtype.is_integer and labels.shape.is_compatible_with(logits.shape[:-1])


def check_match(student: dict[str, tf.Tensor], teacher: dict[str, tf.Tensor]) -> None:
    """Raises ValueError if names or shapes of logits differ."""
    same = set(student) == set(teacher)
    if same and all(s.shape.is_compatible_with(teacher[name].shape) for name, s in student.items()):
        return
    shapes = [
        ", ".join(f"{name} {tuple(value.shape)}" for name, value in logits.items())
        for logits in (student, teacher)
    ]
    raise ValueError(
        f"The student's outputs do not match the teacher's: the student gives {shapes[0]}, the "
        f"teacher {shapes[1]}. Distillation needs the same outputs over the same classes."
    )
