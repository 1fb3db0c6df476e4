"""The steps of a model that trains a student on its teacher's outputs and on labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import tensorflow as tf

from tf_movprune.core.distillation_batches import (
    Batch,
    Target,
    TeacherOutputs,
    as_data,
    batch_of,
    check_class_ids,
    check_match,
    logits_of,
    targets_of,
    without_logits,
)
from tf_movprune.core.distillation_checks import (
    Numbers,
    check_numbers,
    check_takes_logits,
    no_hidden_states,
    no_labels,
    no_teacher,
    not_saved,
)
from tf_movprune.core.distillation_loss import distillation_loss
from tf_movprune.core.hidden_layers import Choice, Layers, paired_states
from tf_movprune.core.hidden_state_loss import hidden_state_loss, valid_positions
from tf_movprune.core.layer_outputs import recorded_outputs


class Step(NamedTuple):
    """Values that a step leaves for the logs."""

    losses: dict[str, tf.Tensor]  # by name in the logs, the total first; over the replicas
    size: tf.Tensor
    outputs: Any
    logits: dict[str, tf.Tensor]
    targets: dict[str, Target]


def run_teacher(teacher: Any, layers: Mapping[str, Any], inputs: Any) -> TeacherOutputs:
    """The outputs of a teacher on the inputs of a batch.

    Args:
      teacher: a Keras model, which runs in inference mode.
      layers: its layers whose hidden states are wanted, by path.
      inputs: the model's inputs.
    """
    with recorded_outputs(layers) as states:
        outputs = teacher(inputs, training=False)
    return TeacherOutputs(logits_of(outputs), states)


class _Compared(NamedTuple):
    """The layers whose hidden states are compared; `pairs` is None without a teacher."""

    choice: Choice
    student: dict[str, Any]
    teacher: dict[str, Any]
    pairs: list[tuple[str, str]] | None


class DistillerSteps:
    """The parts of a Distiller that are the same in both shells, to be mixed into `keras.Model`.

    A shell adds `__init__`, `metrics`, `train_step`, and the methods below that raise
    NotImplementedError.
    """

    _keras: ModuleType
    """The module `keras` or `tf_keras`."""

    built: Any
    _trackers: tuple[Any, ...]
    _get_compared: Callable[[], _Compared]
    distribute_strategy: Any
    get_metrics_result: Any

    def _set_up(self, student: Any, teacher: Any, numbers: Numbers, hidden_states: Any) -> None:
        choice = Choice(hidden_states)
        check_numbers(numbers, has_hidden_states=bool(choice))
        compared = _Compared(choice, {}, {}, None)
        if choice:
            own = self._layers_of(student)
            compared = compared._replace(student=choice.of_student(own))
            if teacher is not None:
                theirs = self._layers_of(teacher)
                pairs = choice.pairs(own, theirs)
                compared = compared._replace(teacher=choice.of_teacher(theirs), pairs=pairs)
        self.student = student
        # Hidden from code that walks or tracks attributes.
        self._get_teacher = lambda: teacher
        self._get_compared = lambda: compared
        self.temperature = float(numbers.temperature)
        self.alpha_distil = float(numbers.alpha_distil)
        self.alpha_ce = float(numbers.alpha_ce)
        self.alpha_hidden = float(numbers.alpha_hidden)
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
            vars(self)["_trackers"] = tuple(
                self._keras.metrics.Mean(name=name) for name in self._loss_names()
            )

    def _loss_names(self) -> list[str]:
        """The names of the losses in the logs."""
        hidden = ["hidden_state_loss"] if self._get_compared().choice else []
        return ["loss", "ce_loss", "distillation_loss", *hidden]

    @property
    def teacher(self) -> Any:
        """The model that is imitated."""
        return self._get_teacher()

    def call(self, inputs: Any, training: Any = None) -> Any:
        # Keras 3 builds metrics on what data have, under a distribution strategy.
        return self.student(without_logits(inputs), training=training)

    def check(self, inputs: Any) -> None:
        """Runs both models on a batch, without training, to see that one can learn from the other.

        Args:
          inputs: inputs of a batch, as the models take them.

        Raises:
          ValueError: there is no teacher; or logits, or hidden states that are compared, do not
            match.
        """
        if self.teacher is None:
            raise no_teacher()
        expected = run_teacher(self.teacher, self._get_compared().teacher, inputs)
        with recorded_outputs(self._get_compared().student) as states:
            check_match(logits_of(self.student(inputs, training=False)), expected.logits)
        paired_states(self._get_compared().pairs or [], states, expected.hidden_states)

    # ---- what a shell knows

    def _layers_of(self, model: Any) -> Layers:
        """The layers of a model, whose hidden states may be compared."""
        raise NotImplementedError

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
        return self._logs(self._forward(batch, self._teacher_outputs(batch), training=False))

    def predict_step(self, data: Any) -> Any:
        return self.student(self._batch(data).inputs, training=False)

    def _batch(self, data: Any) -> Batch:
        return batch_of(*self._keras.utils.unpack_x_y_sample_weight(as_data(data)))

    def _teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        if batch.teacher is not None:
            if self._get_compared().choice and not batch.teacher.hidden_states:
                raise no_hidden_states()
            return batch.teacher
        if self.teacher is None:
            raise no_teacher()
        return run_teacher(self.teacher, self._get_compared().teacher, batch.inputs)

    def _forward(self, batch: Batch, teacher: TeacherOutputs, training: bool) -> Step:
        with recorded_outputs(self._get_compared().student) as states:
            outputs = self.student(batch.inputs, training=training)
        logits = logits_of(outputs)
        check_match(logits, teacher.logits)
        targets = self._targets(batch, logits)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        distillation = tf.add_n(
            [
                distillation_loss(
                    teacher.logits[name], logits[name], self.temperature, target.valid
                )
                for name, target in targets.items()
            ]
        ) / (len(targets) * replicas)
        losses = {"distillation_loss": distillation}
        total = self.alpha_distil * distillation
        if states:
            hidden = self._hidden_state_loss(batch.inputs, states, teacher.hidden_states) / replicas
            losses["hidden_state_loss"] = hidden
            total += self.alpha_hidden * hidden
        for loss in self.student.losses:
            total += tf.cast(loss, tf.float32) / replicas
        size = tf.shape(next(iter(logits.values())))[0]
        step = Step(losses, size, outputs, logits, targets)
        if batch.labels is not None:
            ce = self._task_loss(step) / len(targets)
            losses["ce_loss"] = ce
            total += self.alpha_ce * ce
        return step._replace(losses={"loss": total, **losses})

    def _hidden_state_loss(self, inputs: Any, states: Any, expected: Any) -> tf.Tensor:
        """The mean over the layers, and over the calls of each."""
        compared = self._get_compared()
        pairs = compared.pairs
        if pairs is None:  # there is no teacher but in the data
            own = Layers(self.student.name, compared.student, list(compared.student))
            pairs = compared.choice.pairs(own, Layers.of_cache(expected))
        values = [
            hidden_state_loss(
                teacher, student, valid_positions(inputs, self._mask_of(student), student, path)
            )
            for path, student, teacher in paired_states(pairs, states, expected)
        ]
        return tf.add_n(values) / len(values)

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
        for tracker in self._trackers:
            if tracker.name in step.losses:
                tracker.update_state(step.losses[tracker.name] * replicas, sample_weight=step.size)
        if "ce_loss" in step.losses:
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
