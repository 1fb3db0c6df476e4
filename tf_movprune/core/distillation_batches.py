"""Contents of batches in distillation: logits, and the labels and weights that go with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

IGNORED_LABEL = -100
"""Label of tokens that have none, in token classification."""

LABEL_NAMES = {"logits": "labels", "start_logits": "start_positions", "end_logits": "end_positions"}
"""Names of the labels that a dataset has among the inputs, by output."""


class WithTeacherLogits(NamedTuple):
    """A model's inputs and the teacher's outputs on them: `x` in a cached dataset.

    Attributes:
      inputs: the model's inputs.
      teacher_logits: logits by output.
      hidden_states: hidden states by the paths of the teacher's layers, one for each call.
    """

    inputs: Any
    teacher_logits: dict[str, tf.Tensor]
    hidden_states: Mapping[str, Sequence[tf.Tensor]]


class TeacherOutputs(NamedTuple):
    """The outputs of a teacher on a batch: logits by output, and hidden states by layer."""

    logits: dict[str, tf.Tensor]
    hidden_states: Mapping[str, Sequence[tf.Tensor]]


class Batch(NamedTuple):
    """Parts of the data that `fit` hands over."""

    inputs: Any
    labels: Any
    sample_weight: Any
    teacher: TeacherOutputs | None


class Target(NamedTuple):
    """Labels and weights that one output is compared with."""

    labels: tf.Tensor | None
    valid: tf.Tensor | None
    weights: tf.Tensor | None


def as_data(element: Any) -> Any:
    """An element of a dataset in a form in which Keras takes inputs, labels and weights apart."""
    return (element,) if isinstance(element, WithTeacherLogits) else element


def without_logits(x: Any) -> Any:
    """A model's inputs, which cached data have beside the teacher's logits."""
    return x.inputs if isinstance(x, WithTeacherLogits) else x


def batch_of(x: Any, y: Any, sample_weight: Any) -> Batch:
    """The parts of a batch; labels may be among the inputs."""
    cached = None
    if isinstance(x, WithTeacherLogits):
        x, cached = x.inputs, TeacherOutputs(x.teacher_logits, x.hidden_states)
    if y is None and isinstance(x, Mapping):
        y = {name: x[name] for name in LABEL_NAMES.values() if name in x} or None
        x = {name: value for name, value in x.items() if y is None or name not in y}
    return Batch(x, y, sample_weight, cached)


def logits_of(outputs: Any) -> dict[str, tf.Tensor]:
    """A model's logits by name: `logits`, `start_logits` and `end_logits`, or its own names.

    The tensors of a list or tuple are `output_1`, `output_2`, as in Keras.

    Raises:
      TypeError: the outputs are not logits.
      ValueError: the outputs have no axis of at least two classes.
    """
    found: dict[str, Any] = {}
    if isinstance(outputs, Mapping):
        for names in (["logits"], ["start_logits", "end_logits"]):
            if not found and all(name in outputs for name in names):
                found = {name: outputs[name] for name in names}
        if not found and not _is_of_hugging_face(outputs):
            found = dict(outputs)
    elif isinstance(outputs, (list, tuple)) and len(outputs) > 1:
        found = {f"output_{i}": value for i, value in enumerate(outputs, start=1)}
    else:
        found = {"logits": outputs[0] if isinstance(outputs, (list, tuple)) else outputs}
    if not found or not all(tf.is_tensor(v) and v.dtype.is_floating for v in found.values()):
        keys = f" with {', '.join(outputs)}" if isinstance(outputs, Mapping) else ""
        raise TypeError(
            "Expected logits as outputs: a tensor, a list, tuple or dict of float tensors, or a "
            "Hugging Face output with logits, or start_logits and end_logits; got "
            f"{type(outputs).__name__}{keys}."
        )
    for name, value in found.items():
        if value.shape.rank is not None and (value.shape.rank < 2 or value.shape[-1] == 1):
            raise ValueError(
                f"Expected logits of shape [batch, ..., classes] with at least 2 classes, got "
                f"{name} of shape {tuple(value.shape)}. For a binary or regression output there "
                "is nothing to distil with a softmax; give the models two classes."
            )
    return found


def _is_of_hugging_face(outputs: Any) -> bool:
    return hasattr(outputs, "to_tuple")


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


def targets_of(
    batch: Batch, logits: dict[str, tf.Tensor], mask_of: Callable[[tf.Tensor], tf.Tensor | None]
) -> dict[str, Target]:
    """Returns the labels and weights that each output is compared with.

    Args:
      batch: the parts of a batch.
      logits: the student's logits by output.
      mask_of: returns the Keras mask that a tensor carries, or None.

    Raises:
      ValueError: labels or weights are not those of the outputs.
    """
    labels = _by_output(batch.labels, logits, "labels")
    weights = _by_output(batch.sample_weight, logits, "sample_weight")
    return {
        name: _align(value, labels[name], weights[name], mask_of(value))
        for name, value in logits.items()
    }


def check_class_ids(targets: dict[str, Target], logits: dict[str, tf.Tensor]) -> None:
    """Raises ValueError if labels are not class ids, as the default loss needs."""
    for name, target in targets.items():
        labels = target.labels
        if labels is not None and not _are_class_ids(labels, logits[name]):
            raise ValueError(
                f"Expected integer labels of shape {tuple(logits[name].shape[:-1])}, got "
                f"{labels.dtype.name} of shape {tuple(labels.shape)}. Pass class ids, or the loss "
                "that fits your labels to compile."
            )


def packed(values: dict[str, Any], outputs: Any) -> Any:
    """Values by output, in the structure in which Keras expects them beside the outputs."""
    if list(values) == ["logits"]:
        return values["logits"]
    return values if isinstance(outputs, Mapping) else list(values.values())


def _by_output(values: Any, names: Collection[str], what: str) -> dict[str, Any]:
    """Labels or weights by the names of the outputs that they belong to; None if there are none.

    One tensor of weights is for every output.
    """
    if values is None:
        return dict.fromkeys(names)
    if isinstance(values, Mapping):
        keys = [name if name in values else LABEL_NAMES.get(name, name) for name in names]
        if all(key in values for key in keys):
            return {name: values[key] for name, key in zip(names, keys)}
        received = f"keys {', '.join(values)}"
    elif isinstance(values, (list, tuple)):
        if len(values) == len(names):
            return dict(zip(names, values))
        received = f"{len(values)} tensors"
    else:
        if len(names) == 1 or what == "sample_weight":
            return dict.fromkeys(names, values)
        received = "one tensor"
    raise ValueError(f"Expected {what} for the outputs {', '.join(names)}, got {received}.")


def _align(
    logits: tf.Tensor, labels: Any, weights: tf.Tensor | None, mask: tf.Tensor | None
) -> Target:
    """Labels and weights in the shapes of class ids, with ignored positions taken out.

    Positions that are neither masked by Keras nor labelled -100 are valid. The others have weight
    0, and class 0 in place of -100, which a loss may turn into NaN or an error.
    """
    is_by_position = mask is not None and mask.shape.rank == logits.shape.rank - 1
    valid = mask if is_by_position else None
    if labels is not None:
        labels = tf.convert_to_tensor(labels)
        if labels.dtype.is_integer and labels.shape.rank == logits.shape.rank:
            labels = tf.squeeze(labels, -1) if labels.shape[-1] == 1 else labels
        if _are_class_ids(labels, logits):
            labelled = tf.not_equal(labels, IGNORED_LABEL)
            valid = labelled if valid is None else labelled & valid
            labels = tf.where(labelled, labels, tf.zeros_like(labels))
    if valid is not None:
        weights = _as_weights(weights, valid.shape.rank) * tf.cast(valid, tf.float32)
    return Target(labels, valid, weights)


def _are_class_ids(labels: tf.Tensor, logits: tf.Tensor) -> bool:
    """Returns whether labels are integers of the logits' shape without its last axis."""
    return labels.dtype.is_integer and labels.shape.is_compatible_with(logits.shape[:-1])


def _as_weights(weights: tf.Tensor | None, rank: int) -> tf.Tensor:
    if weights is None:
        return tf.ones([])
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank > rank:
        weights = tf.squeeze(weights, -1)
    while 0 < weights.shape.rank < rank:
        weights = weights[..., tf.newaxis]
    return weights
