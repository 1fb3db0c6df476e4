"""Logits of models, and the labels and weights that go with them, by output."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.distillation import Batch, Target, WithTeacherLogits, are_class_ids
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, is_graph_network, keras
from tf_movprune.keras2.layer import PruneLowMovement


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
        if not found and not hugging_face.is_output(outputs):
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


def ends_in_probabilities(model: keras.Model) -> bool:
    """Returns whether all outputs of a graph of layers come out of a softmax or sigmoid."""
    if isinstance(model, keras.Sequential):
        ends = model.layers[-1:]
    elif is_graph_network(model):
        ends = [node.layer for node in compat.output_nodes(model)]
    else:
        return False
    return all(map(_gives_probabilities, ends))


def _gives_probabilities(layer: Layer) -> bool:
    layer = layer.layer if isinstance(layer, PruneLowMovement) else layer
    if isinstance(layer, keras.Model):
        return ends_in_probabilities(layer)
    activation = getattr(layer, "activation", None)
    if type(layer) is keras.layers.Activation and activation is keras.activations.linear:
        # Linear activations are casts under mixed precision.
        parents = [p.layer for node in compat.call_nodes(layer) for p in node.parent_nodes]
        return bool(parents) and all(map(_gives_probabilities, parents))
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(layer, keras.layers.Softmax) or activation in probabilities


def unpack(data: Any) -> Batch:
    """Takes an element of a dataset apart; labels may be among the inputs."""
    data = (data,) if isinstance(data, WithTeacherLogits) else data
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    x, cached = x if isinstance(x, WithTeacherLogits) else (x, None)
    if y is None and isinstance(x, Mapping):
        y = {name: x[name] for name in hugging_face.LABEL_NAMES.values() if name in x} or None
        x = {name: value for name, value in x.items() if y is None or name not in y}
    return Batch(x, y, sample_weight, cached)


def by_output(values: Any, names: Collection[str], what: str) -> dict[str, Any]:
    """Labels or weights by the names of the outputs that they belong to; None if there are none.

    One tensor of weights is for every output.
    """
    if values is None:
        return dict.fromkeys(names)
    if isinstance(values, Mapping):
        keys = [
            name if name in values else hugging_face.LABEL_NAMES.get(name, name) for name in names
        ]
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


def align(logits: tf.Tensor, labels: tf.Tensor | None, weights: tf.Tensor | None) -> Target:
    """Labels and weights in the shapes of class ids, with ignored positions taken out.

    Positions that are neither masked by Keras nor labelled -100 are valid. The others have weight
    0, and class 0 in place of -100, which a loss may turn into NaN or an error.
    """
    valid = compat.keras_mask(logits)
    if valid is not None and valid.shape.rank != logits.shape.rank - 1:
        valid = None
    if labels is not None:
        labels = tf.convert_to_tensor(labels)
        if labels.dtype.is_integer and labels.shape.rank == logits.shape.rank:
            labels = tf.squeeze(labels, -1) if labels.shape[-1] == 1 else labels
        if are_class_ids(labels, logits):
            labelled = tf.not_equal(labels, hugging_face.IGNORED_LABEL)
            valid = labelled if valid is None else labelled & valid
            labels = tf.where(labelled, labels, tf.zeros_like(labels))
    if valid is not None:
        weights = _as_weights(weights, valid.shape.rank) * tf.cast(valid, tf.float32)
    return Target(labels, valid, weights)


def _as_weights(weights: tf.Tensor | None, rank: int) -> tf.Tensor:
    if weights is None:
        return tf.ones([])
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank > rank:
        weights = tf.squeeze(weights, -1)
    while 0 < weights.shape.rank < rank:
        weights = weights[..., tf.newaxis]
    return weights


def keras_arguments(
    outputs: Any, logits: dict[str, tf.Tensor], targets: dict[str, Target], fill: bool = False
) -> tuple[Any, Any, Any]:
    """Labels, logits and weights for Keras's losses and metrics, which honour masks.

    With `fill`, a mask without valid positions becomes one in which all are valid, with weight 0:
    Keras's losses divide by the number of valid positions.
    """

    def mask(target: Target) -> tf.Tensor | None:
        if target.valid is None or not fill:
            return target.valid
        return target.valid | ~tf.reduce_any(target.valid)

    return (
        _packed({name: target.labels for name, target in targets.items()}, outputs),
        _packed({name: _with_mask(logits[name], mask(t)) for name, t in targets.items()}, outputs),
        _packed({name: target.weights for name, target in targets.items()}, outputs),
    )


def _with_mask(logits: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """A copy in float32 that carries a mask where Keras looks for it."""
    return compat.attach_keras_mask(tf.identity(tf.cast(logits, tf.float32)), mask)


def _packed(values: dict[str, Any], outputs: Any) -> Any:
    """Values by output, in the structure in which Keras expects them beside the outputs."""
    if list(values) == ["logits"]:
        return values["logits"]
    return values if isinstance(outputs, Mapping) else list(values.values())
