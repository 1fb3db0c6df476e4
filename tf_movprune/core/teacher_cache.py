"""A teacher's logits on a dataset, computed once before distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.distillation_batches import (
    TeacherOutputs,
    WithTeacherLogits,
    batch_of,
    without_logits,
)
from tf_movprune.core.distiller import run_teacher


def cached_logits(
    dataset: tf.data.Dataset, teacher: Callable[..., Any], layers: Mapping[str, Any]
) -> tf.data.Dataset:
    """Runs a teacher once over a dataset and keeps both in memory.

    Args:
      dataset: finite dataset of batches of dense tensors: `x`, `(x, y)` or `(x, y, sample_weight)`.
      teacher: a Keras model, run in inference mode.
      layers: its layers whose hidden states are kept too, by path.

    Returns:
      A dataset of the same batches, with known cardinality and `WithTeacherLogits` as inputs.

    Raises:
      TypeError: `dataset` is not a dataset of dense tensors.
      ValueError: the dataset is empty or infinite, or hidden states are not finite in float16.
    """
    _check_dataset(dataset)

    @tf.function(reduce_retracing=True)
    def run(inputs: Any) -> TeacherOutputs:
        logits, states = run_teacher(teacher, layers, inputs)
        return TeacherOutputs(
            {name: tf.cast(value, tf.float32) for name, value in logits.items()},
            {path: tuple(tf.cast(x, tf.float16) for x in states[path]) for path in states},
        )

    elements = []
    for element in dataset:
        x, *rest = element if type(element) is tuple else (element,)
        x = without_logits(x)
        inputs = batch_of(x, rest[0] if rest else None, None).inputs
        elements.append((WithTeacherLogits(x, *run(inputs)), *rest))
    if not elements:
        raise ValueError("The dataset is empty.")
    arrays = [tf.nest.map_structure(lambda t: t.numpy(), element) for element in elements]
    for element in arrays:
        _check_finite(element[0].hidden_states)

    def copies() -> Any:  # TensorFlow may compute in place in the arrays it is given
        return (tf.nest.map_structure(np.copy, element) for element in arrays)

    cached = tf.data.Dataset.from_generator(
        copies, output_signature=tf.nest.map_structure(_common_spec, *elements)
    )
    return cached.apply(tf.data.experimental.assert_cardinality(len(arrays)))


def _check_finite(hidden_states: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Raises ValueError if states in half of the memory are not those of the teacher any more."""
    for path, states in hidden_states.items():
        if not all(np.isfinite(array).all() for array in states):
            raise ValueError(
                f"The teacher's hidden states of {path!r} are not finite in float16, in which they "
                "are cached. If they are in float32, distil without a cache: pass the teacher to "
                "the Distiller."
            )


def _common_spec(*tensors: tf.Tensor) -> tf.TensorSpec:
    sizes = (set(size) for size in zip(*(tensor.shape for tensor in tensors)))
    shape = [size.pop() if len(size) == 1 else None for size in sizes]
    return tf.TensorSpec(shape, tensors[0].dtype)


def _check_dataset(dataset: Any) -> None:
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(f"Expected a tf.data.Dataset of batches, got {type(dataset).__name__}.")
    specs = tf.nest.flatten(dataset.element_spec)
    if not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise TypeError(f"Expected a dataset of dense tensors, got {dataset.element_spec}.")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("The dataset is infinite: cache it before repeat().")
