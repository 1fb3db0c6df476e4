"""A tf_keras teacher's logits on a dataset, computed once before distillation."""

from __future__ import annotations

import tensorflow as tf

from tf_movprune.core.teacher_cache import cached_logits
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.distiller import check_teacher


def cache_teacher_logits(dataset: tf.data.Dataset, teacher: keras.Model) -> tf.data.Dataset:
    """Runs a tf_keras teacher over a dataset; see `tf_movprune.cache_teacher_logits`."""
    check_teacher(teacher)
    return cached_logits(dataset, teacher)
