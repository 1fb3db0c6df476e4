"""A Keras 3 teacher's logits on a dataset, computed once before distillation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.hidden_layers import Choice
from tf_movprune.core.teacher_cache import cached_logits
from tf_movprune.keras3.distiller import check_teacher
from tf_movprune.keras3.hidden_layers import layers_with_states


def cache_teacher_logits(
    dataset: tf.data.Dataset, teacher: keras.Model, hidden_states: Any = None
) -> tf.data.Dataset:
    """Runs a Keras 3 teacher over a dataset; see `tf_movprune.cache_teacher_logits`."""
    check_teacher(teacher)
    choice = Choice(hidden_states)
    layers = choice.of_teacher(layers_with_states(teacher)) if choice else {}
    return cached_logits(dataset, teacher, layers)
