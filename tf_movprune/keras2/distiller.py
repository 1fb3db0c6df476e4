"""Training of a student on its teacher's outputs and on labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tf_movprune.core.arguments import check_number
from tf_movprune.core.distillation import (
    Batch,
    Target,
    WithTeacherLogits,
    are_class_ids,
    check_match,
)
from tf_movprune.core.losses import distillation_loss
from tf_movprune.core.wording import counted
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.batches import (
    align,
    by_output,
    ends_in_probabilities,
    keras_arguments,
    logits_of,
    unpack,
)
from tf_movprune.keras2.compat import check_keras_object, keras
from tf_movprune.keras2.layer_tree import pruned_layers


class _Step(NamedTuple):
    """Values that a step leaves for the logs."""

    losses: tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]  # total, CE and KL, over the replicas
    size: tf.Tensor
    compared: tuple[Any, Any, Any]


class Distiller(keras.Model):
    """Trains a student on labels and its teacher's outputs; a model for `fit` and `evaluate`.

        loss = alpha_distil * KL + alpha_ce * CE + sum(student.losses)

    KL is `distillation_loss`. CE is the cross-entropy of the student's logits with integer labels,
    or the `loss` given to `compile`. Both are means over the outputs if there are several, such as
    the start and end of an answer. Both are float32 under every precision policy.

        student = tf_movprune.prune_low_movement(student, schedule)
        distiller = tf_movprune.Distiller(student, teacher)
        distiller.compile(optimizer, metrics=["accuracy"], jit_compile=True)
        distiller.fit(dataset, callbacks=[tf_movprune.UpdatePruningStep()])
        plain = tf_movprune.strip_pruning(distiller)  # the student

    Outputs are logits [batch, ..., classes]: a tensor, a list, tuple or dict of tensors, or a
    Hugging Face output, whose `logits`, or `start_logits` and `end_logits`, are used. Labels are
    `y`, or in the inputs under Hugging Face's names if there is no `y`. They may be missing if
    `alpha_ce` is 0. Examples or tokens labelled -100, or masked by a Keras mask, count for nothing
    in the loss and in metrics. `sample_weight` weights CE but not KL: an example of weight 0 is
    labelled by the teacher alone.

    The logs are `loss`, `ce_loss`, `distillation_loss`, and the metrics of `compile` on the
    student's logits. `predict` returns the student's outputs. Weights, checkpoints and
    `trainable_weights` are the student's. Under a distribution strategy, make both models in its
    scope.

    Args:
      student: built `tf_keras` model.
      teacher: built `tf_keras` model, which runs in inference mode; None if all data come from
        `cache_teacher_logits`.
      temperature: temperature of KL, greater than 0.
      alpha_distil: weight of KL, at least 0.
      alpha_ce: weight of CE, at least 0. One of the two weights must be above 0.

    Raises:
      TypeError: a model is not a `tf_keras` model.
      ValueError: a model is not built or ends in a softmax or sigmoid, the teacher is pruned or
        shares weights that the student trains, or a number is out of its range. In `fit`: the
        outputs of student and teacher do not match, labels do not fit them, or there is neither a
        teacher nor cached logits.

    Reference:
      Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531; Sanh, Wolf & Rush (2020),
      https://arxiv.org/abs/2005.07683, section 6.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        temperature: float = 2.0,
        alpha_distil: float = 0.5,
        alpha_ce: float = 0.5,
        **kwargs: Any,
    ):
        _check_numbers(temperature, alpha_distil, alpha_ce)
        _check_model(student, "student")
        if teacher is not None:
            check_teacher(teacher)
            _check_apart(student, teacher)
        super().__init__(autocast=False, **kwargs)
        self.student = student
        self._get_teacher = lambda: teacher  # hidden from code that walks or tracks attributes
        self.temperature = float(temperature)
        self.alpha_distil = float(alpha_distil)
        self.alpha_ce = float(alpha_ce)
        self.built = True

    @property
    def teacher(self) -> keras.Model | None:
        """The model that is imitated."""
        return self._get_teacher()

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    # ---- training

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        self._has_default_loss = loss is None
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().compile(optimizer, loss, *args, **kwargs)
        names = ("loss", "ce_loss", "distillation_loss")
        with self.distribute_strategy.scope():
            # Keras must not track these: checkpoints are the student's and the optimizer's.
            vars(self)["_trackers"] = tuple(keras.metrics.Mean(name=name) for name in names)

    @property
    def metrics(self):
        trackers = vars(self).get("_trackers", ())
        losses = self.compiled_loss.metrics if trackers else []  # the trackers tell more
        hidden = {id(metric) for metric in losses}
        return [*trackers, *(m for m in super().metrics if id(m) not in hidden)]

    def train_step(self, data):
        batch = unpack(data)
        teacher_logits = self._teacher_logits(batch)
        with tf.GradientTape() as tape:
            step = self._forward(batch, teacher_logits, training=True)
        self.optimizer.minimize(step.losses[0], self.trainable_variables, tape=tape)
        return self._update_metrics(step)

    def test_step(self, data):
        batch = unpack(data)
        return self._update_metrics(
            self._forward(batch, self._teacher_logits(batch), training=False)
        )

    def predict_step(self, data):
        x = (data,) if isinstance(data, WithTeacherLogits) else data
        x, _, _ = keras.utils.unpack_x_y_sample_weight(x)
        return self.student(x.inputs if isinstance(x, WithTeacherLogits) else x, training=False)

    def _teacher_logits(self, batch: Batch) -> dict[str, tf.Tensor]:
        if batch.teacher_logits is not None:
            return batch.teacher_logits
        if self.teacher is None:
            raise ValueError(
                "This Distiller has no teacher, and the data carry no teacher's logits. Pass it a "
                "teacher, or data that tf_movprune.cache_teacher_logits returned, for validation "
                "too."
            )
        return logits_of(self.teacher(batch.inputs, training=False))

    def _forward(self, batch: Batch, teacher: dict[str, tf.Tensor], training: bool) -> _Step:
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
        ce = None
        if batch.labels is not None:
            ce = self.compiled_loss(*keras_arguments(outputs, logits, targets, fill=True))
            ce /= len(targets)
            total += self.alpha_ce * ce
        size = tf.shape(next(iter(logits.values())))[0]
        return _Step((total, ce, distillation), size, keras_arguments(outputs, logits, targets))

    def _targets(self, batch: Batch, logits: dict[str, tf.Tensor]) -> dict[str, Target]:
        if batch.labels is None and self.alpha_ce > 0:
            names = ", ".join(hugging_face.LABEL_NAMES.values())
            raise ValueError(
                f"Labels are missing. Pass y, or {names} among the inputs, or set alpha_ce=0 to "
                "learn from the teacher alone."
            )
        labels = by_output(batch.labels, logits, "labels")
        weights = by_output(batch.sample_weight, logits, "sample_weight")
        targets = {name: align(logits[name], labels[name], weights[name]) for name in logits}
        if self._has_default_loss and batch.labels is not None:
            for name, target in targets.items():
                _check_labels(target.labels, logits[name])
        return targets

    def _update_metrics(self, step: _Step) -> dict[str, tf.Tensor]:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for tracker, value in zip(self._trackers, step.losses):
            if value is not None:
                tracker.update_state(value * replicas, sample_weight=step.size)
        if step.losses[1] is not None:
            self.compiled_metrics.update_state(*step.compared)
        return self.get_metrics_result()

    # ---- saving

    def __dir__(self):
        # Keras writes what it finds here to files of weights.
        return [name for name in super().__dir__() if name not in ("teacher", "_trackers")]

    def get_config(self):
        raise ValueError(
            "A Distiller is not saved as a whole: save its student, "
            "tf_movprune.strip_pruning(distiller) once it is pruned. To go on training later, use "
            "save_weights or tf.train.Checkpoint."
        )

    def save(self, *args, **kwargs):
        self.get_config()

    def export(self, *args, **kwargs):
        self.get_config()


def _check_numbers(temperature: float, alpha_distil: float, alpha_ce: float) -> None:
    check_number("temperature", temperature, example=2.0, above=0)
    for name, alpha in (("alpha_distil", alpha_distil), ("alpha_ce", alpha_ce)):
        check_number(name, alpha, example=0.5, minimum=0)
    if alpha_distil == alpha_ce == 0:
        raise ValueError("alpha_distil and alpha_ce are both 0: there is nothing to learn from.")


def _check_model(model: Any, role: str) -> None:
    check_keras_object(model, keras.Model, f"a tf_keras model as {role}")
    if not model.built:
        raise ValueError(
            f"The {role} {model.name!r} is not built yet. Call it once on example inputs, for "
            "instance model(batch)."
        )
    if ends_in_probabilities(model):
        raise ValueError(
            f"The {role} {model.name!r} gives probabilities, and logits are distilled: it ends in "
            "a softmax or sigmoid. Leave that out, and pass compile a loss with from_logits=True, "
            "or none."
        )


def check_teacher(teacher: Any) -> None:
    """Raises TypeError or ValueError if a model cannot teach."""
    _check_model(teacher, "teacher")
    if pruned_layers(teacher):
        raise ValueError(
            f"The teacher {teacher.name!r} still has pruning wrappers. If it is the student, swap "
            "the two: Distiller(student, teacher). Otherwise pass what "
            "tf_movprune.strip_pruning(teacher) returns."
        )


def _check_apart(student: keras.Model, teacher: keras.Model) -> None:
    fixed = {id(weight) for weight in teacher.weights}
    shared = [weight.name for weight in student.trainable_weights if id(weight) in fixed]
    if shared:
        raise ValueError(
            f"The teacher shares {counted(len(shared), 'weight')} with the student, such as "
            f"{shared[0]!r}, and would change while it trains. prune_low_movement keeps the layers "
            "of the model that it is given: load the teacher anew, or copy it before, with "
            "keras.models.clone_model and set_weights."
        )


def _check_labels(labels: tf.Tensor, logits: tf.Tensor) -> None:
    if not are_class_ids(labels, logits):
        raise ValueError(
            f"Expected integer labels of shape {tuple(logits.shape[:-1])}, got "
            f"{labels.dtype.name} of shape {tuple(labels.shape)}. Pass class ids, or the loss that "
            "fits your labels to compile."
        )
