"""Training of a tf_keras student on its teacher's outputs and on labels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_movprune.core.distillation_checks import (
    DEFAULT_ALPHA_HIDDEN,
    Numbers,
    check_apart,
    check_gives_logits,
    check_not_pruned,
)
from tf_movprune.core.distiller import DistillerSteps, Step
from tf_movprune.keras2.batches import ends_in_probabilities, keras_arguments
from tf_movprune.keras2.compat import check_keras_object, keras, keras_mask
from tf_movprune.keras2.hidden_layers import layers_with_states
from tf_movprune.keras2.layer_tree import pruned_layers
from tf_movprune.keras2.training_guard import warn_of_training, warns_of_training


class Distiller(DistillerSteps, keras.Model):
    """Trains a tf_keras student on labels and its teacher's outputs; see `tf_movprune.Distiller`.

    Args:
      student: built `tf_keras` model.
      teacher: built `tf_keras` model, or None.
      temperature: temperature of KL, greater than 0.
      alpha_distil: weight of KL, at least 0.
      alpha_ce: weight of CE, at least 0.
      hidden_states: which layers' hidden states are compared.
      alpha_hidden: weight of their distance, at least 0.
    """

    _keras = keras

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        temperature: float = 2.0,
        alpha_distil: float = 0.5,
        alpha_ce: float = 0.5,
        hidden_states: Any = None,
        alpha_hidden: float = DEFAULT_ALPHA_HIDDEN,
        **kwargs: Any,
    ):
        numbers = Numbers(temperature, alpha_distil, alpha_ce, alpha_hidden)
        _check_model(student, "student")
        if teacher is not None:
            check_teacher(teacher)
            check_apart(student, teacher)
        # Of the student's precision, by which Keras scales the loss.
        super().__init__(autocast=False, **{"dtype": student.dtype_policy, **kwargs})
        self._set_up(student, teacher, numbers, hidden_states)
        if warns_of_training(student):
            warn_of_training(self)

    @property
    def metrics(self):
        trackers = vars(self).get("_trackers", ())
        losses = self.compiled_loss.metrics if trackers else []  # the trackers tell more
        hidden = {id(metric) for metric in losses}
        return [*trackers, *(m for m in super().metrics if id(m) not in hidden)]

    def train_step(self, data):
        batch = self._batch(data)
        teacher = self._teacher_outputs(batch)
        with tf.GradientTape() as tape:
            step = self._forward(batch, teacher, training=True)
        self.optimizer.minimize(step.losses["loss"], self.trainable_variables, tape=tape)
        return self._logs(step)

    def _layers_of(self, model):
        return layers_with_states(model)

    def _mask_of(self, tensor):
        return keras_mask(tensor)

    def _task_loss(self, step: Step):
        return self.compiled_loss(
            *keras_arguments(step.outputs, step.logits, step.targets, fill=True)
        )

    def _update_compiled_metrics(self, step: Step):
        self.compiled_metrics.update_state(
            *keras_arguments(step.outputs, step.logits, step.targets)
        )


def _check_model(model: Any, role: str) -> None:
    check_keras_object(model, keras.Model, f"a tf_keras model as {role}")
    check_gives_logits(model, role, ends_in_probabilities)


def check_teacher(teacher: Any) -> None:
    """Raises TypeError or ValueError if a model cannot teach."""
    _check_model(teacher, "teacher")
    check_not_pruned(teacher, pruned_layers(teacher))
