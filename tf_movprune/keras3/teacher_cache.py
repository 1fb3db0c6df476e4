"""A Keras 3 teacher's logits on a dataset, computed once before distillation."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_movprune.core.teacher_cache import cached_logits
from tf_movprune.keras3.distiller import check_teacher


def cache_teacher_logits(dataset: tf.data.Dataset, teacher: keras.Model) -> tf.data.Dataset:
    """Runs a Keras 3 teacher over a dataset; see `tf_movprune.cache_teacher_logits`."""
    check_teacher(teacher)
    return cached_logits(dataset, teacher)
