"""Training of a Keras 3 student on its teacher's outputs and on labels."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.distillation_batches import packed
from tf_movprune.core.distillation_checks import (
    DEFAULT_ALPHA_HIDDEN,
    Numbers,
    check_apart,
    check_gives_logits,
    check_not_pruned,
)
from tf_movprune.core.distiller import DistillerSteps, Step
from tf_movprune.keras3 import compat
from tf_movprune.keras3.hidden_layers import layers_with_states
from tf_movprune.keras3.layer_tree import pruned_layers
from tf_movprune.keras3.training_guard import (
    guard_training,
    warn_of_training,
    warns_of_training,
)


class Distiller(DistillerSteps, keras.Model):
    """Trains a Keras 3 student on labels and its teacher's outputs; see `tf_movprune.Distiller`.

    Args:
      student: built Keras 3 model.
      teacher: built Keras 3 model, or None.
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
        layers = pruned_layers(student)
        if layers:
            guard_training(self, list(layers.values()))
        elif warns_of_training(student):
            warn_of_training(self)

    @property
    def metrics(self):
        if not self.compiled:
            return super().metrics
        return [*self._trackers, *compat.metrics_but_losses(self, super().metrics)]

    def train_step(self, data):
        batch = self._batch(data)
        teacher = self._teacher_outputs(batch)
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            step = self._forward(batch, teacher, training=True)
            loss = self.optimizer.scale_loss(step.losses["loss"])
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables))
        return self._logs(step)

    def _layers_of(self, model):
        return layers_with_states(model)

    def _mask_of(self, tensor):
        return compat.keras_mask(tensor)

    def _task_loss(self, step: Step):
        logits = {name: _with_mask(step.logits[name], t.valid) for name, t in step.targets.items()}
        labels = _labels(step)
        return compat.task_loss(self, labels, packed(logits, step.outputs), _weights(step))

    def _update_compiled_metrics(self, step: Step):
        valid = {
            name: None if target.valid is None else tf.cast(target.valid, tf.float32)
            for name, target in step.targets.items()
        }
        logits = packed(step.logits, step.outputs)
        valid = packed(valid, step.outputs)
        compat.update_compiled_metrics(self, _labels(step), logits, valid, _weights(step))


def _labels(step: Step) -> Any:
    return packed({name: target.labels for name, target in step.targets.items()}, step.outputs)


def _weights(step: Step) -> Any:
    return packed({name: target.weights for name, target in step.targets.items()}, step.outputs)


def _with_mask(logits: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """A copy in float32 that carries a mask where Keras looks for it."""
    return compat.attach_keras_mask(tf.identity(tf.cast(logits, tf.float32)), mask)


def ends_in_probabilities(model: keras.Model) -> bool:
    """Returns whether all outputs of a graph of layers come out of a softmax or sigmoid."""
    if not compat.is_graph_network(model):
        return False
    return all(map(_gives_probabilities, compat.output_nodes(model)))


def _gives_probabilities(node: Any) -> bool:
    """Returns whether the call of an operation in a graph gives probabilities."""
    operation = node.operation
    if isinstance(operation, keras.Model):
        return ends_in_probabilities(operation)
    activation = getattr(operation, "activation", None)
    if type(operation) is keras.layers.Activation and activation is keras.activations.linear:
        # Linear activations are casts under mixed precision.
        return bool(node.parent_nodes) and all(map(_gives_probabilities, node.parent_nodes))
    if activation in (keras.activations.softmax, keras.activations.sigmoid):
        return True
    return type(operation).__name__ in ("Softmax", "Sigmoid")  # of layers and of keras.ops


def _check_model(model: Any, role: str) -> None:
    compat.check_keras_object(model, keras.Model, f"a Keras 3 model as {role}")
    check_gives_logits(model, role, ends_in_probabilities)


def check_teacher(teacher: Any) -> None:
    """Raises TypeError or ValueError if a model cannot teach."""
    _check_model(teacher, "teacher")
    check_not_pruned(teacher, pruned_layers(teacher))
