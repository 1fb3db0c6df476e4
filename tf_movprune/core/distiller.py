"""The steps of a model that trains a student on its teacher's outputs and on labels."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import tensorflow as tf

from tf_movprune.core.distillation_batches import (
    Batch,
    Target,
    as_data,
    batch_of,
    check_class_ids,
    check_match,
    logits_of,
    targets_of,
    without_logits,
)
from tf_movprune.core.distillation_checks import (
    check_takes_logits,
    no_labels,
    no_teacher,
    not_saved,
)
from tf_movprune.core.distillation_loss import distillation_loss

LOSSES = ("loss", "ce_loss", "distillation_loss")
"""Names of the losses in the logs: the total, CE and KL."""


class Step(NamedTuple):
    """Values that a step leaves for the logs."""

    losses: tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]  # total, CE and KL, over the replicas
    size: tf.Tensor
    outputs: Any
    logits: dict[str, tf.Tensor]
    targets: dict[str, Target]


class DistillerSteps:
    """The parts of a Distiller that are the same in both shells, to be mixed into `keras.Model`.

    A shell adds `__init__`, `metrics`, `train_step`, and the methods below that raise
    NotImplementedError.
    """

    _keras: ModuleType
    """The module `keras` or `tf_keras`."""

    built: Any
    _trackers: tuple[Any, ...]
    distribute_strategy: Any
    get_metrics_result: Any

    def _set_up(
        self, student: Any, teacher: Any, temperature: float, alpha_distil: float, alpha_ce: float
    ) -> None:
        self.student = student
        self._get_teacher = lambda: teacher  # hidden from code that walks or tracks attributes
        self.temperature = float(temperature)
        self.alpha_distil = float(alpha_distil)
        self.alpha_ce = float(alpha_ce)
        self.built = True

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        self._has_default_loss = loss is None
        if loss is None:
            loss = self._keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        check_takes_logits(loss, self._keras.losses)
        super().compile(optimizer, loss, *args, **kwargs)  # type: ignore[misc]
        # Out of sight, as checkpoints are the student's and the optimizer's.
        with self.distribute_strategy.scope():
            vars(self)["_trackers"] = tuple(self._keras.metrics.Mean(name=name) for name in LOSSES)

    @property
    def teacher(self) -> Any:
        """The model that is imitated."""
        return self._get_teacher()

    def call(self, inputs: Any, training: Any = None) -> Any:
        # Keras 3 builds metrics on what data have, under a distribution strategy.
        return self.student(without_logits(inputs), training=training)

    # ---- what a shell knows

    def _mask_of(self, tensor: tf.Tensor) -> tf.Tensor | None:
        """The Keras mask that a tensor carries."""
        raise NotImplementedError

    def _task_loss(self, step: Step) -> tf.Tensor:
        """The sum over the outputs of the loss that `compile` was given, over the replicas."""
        raise NotImplementedError

    def _update_compiled_metrics(self, step: Step) -> None:
        """Updates the metrics that `compile` was given."""
        raise NotImplementedError

    # ---- steps

    def test_step(self, data: Any) -> dict[str, Any]:
        batch = self._batch(data)
        return self._logs(self._forward(batch, self._teacher_logits(batch), training=False))

    def predict_step(self, data: Any) -> Any:
        return self.student(self._batch(data).inputs, training=False)

    def _batch(self, data: Any) -> Batch:
        return batch_of(*self._keras.utils.unpack_x_y_sample_weight(as_data(data)))

    def _teacher_logits(self, batch: Batch) -> dict[str, tf.Tensor]:
        if batch.teacher_logits is not None:
            return batch.teacher_logits
        if self.teacher is None:
            raise no_teacher()
        return logits_of(self.teacher(batch.inputs, training=False))

    def _forward(self, batch: Batch, teacher: dict[str, tf.Tensor], training: bool) -> Step:
        outputs = self.student(batch.inputs, training=training)
        logits = logits_of(outputs)
        check_match(logits, teacher)
        targets = self._targets(batch, logits)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        distillation = tf.add_n(
            [
                distillation_loss(teacher[name], logits[name], self.temperature, target.valid)
                for name, target in targets.items()
            ]
        ) / (len(targets) * replicas)
        total = self.alpha_distil * distillation
        for loss in self.student.losses:
            total += tf.cast(loss, tf.float32) / replicas
        size = tf.shape(next(iter(logits.values())))[0]
        step = Step((total, None, distillation), size, outputs, logits, targets)
        if batch.labels is None:
            return step
        ce = self._task_loss(step) / len(targets)
        return step._replace(losses=(total + self.alpha_ce * ce, ce, distillation))

    def _targets(self, batch: Batch, logits: dict[str, tf.Tensor]) -> dict[str, Target]:
        if batch.labels is None and self.alpha_ce > 0:
            raise no_labels()
        targets = targets_of(batch, logits, self._mask_of)
        if self._has_default_loss:
            check_class_ids(targets, logits)
        return targets

    def _logs(self, step: Step) -> dict[str, Any]:
        """Updates the metrics with a step, and returns their results."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for tracker, value in zip(self._trackers, step.losses):
            if value is not None:
                tracker.update_state(value * replicas, sample_weight=step.size)
        if step.losses[1] is not None:
            self._update_compiled_metrics(step)
        return self.get_metrics_result()

    # ---- saving

    def __dir__(self) -> list[str]:
        # Keras writes what it finds here to files of weights.
        return [name for name in super().__dir__() if name not in ("teacher", "_trackers")]

    def get_config(self) -> NoReturn:
        raise not_saved()

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise not_saved()

    def export(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise not_saved()
