"""Batches of features: of like lengths, in an order that a seed decides."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_integer
from tf_movprune.tasks.feature_types import Features

Inputs = dict[str, np.ndarray]


class BatchPlan:
    """Which rows make up each training step: a function of the seed and the step alone.

    Every epoch is another permutation. Its rows are put in batches of like lengths, each padded to
    one of `buckets`; those left over in the buckets make batches of mixed lengths, and the last
    `len(lengths) % batch_size` rows of the permutation, which fill no batch, wait for another
    epoch. The batches then come in a random order. A resumed run continues with exactly the next
    batch, whatever came before.

    Args:
      lengths: int length of each row.
      batch_size: rows of a batch.
      buckets: ascending lengths of batches; each is a shape that XLA compiles.
      seed: seed of all epochs, in [0, 2**32).

    Attributes:
      steps_per_epoch: number of batches of an epoch.

    Raises:
      ValueError: there are fewer rows than `batch_size`, a row is longer than all buckets, or
        the seed is out of range.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, buckets: Sequence[int], seed: int = 0):
        self._lengths = np.asarray(lengths, np.int64)
        self.batch_size = check_integer("batch_size", batch_size, example=32, minimum=1)
        self.seed = check_integer("seed", seed, example=0, minimum=0)
        if self.seed >= 2**32:
            raise ValueError(f"seed must be less than 2**32, got {seed}.")
        self.buckets = _checked_buckets(buckets, int(self._lengths.max(initial=0)))
        self.steps_per_epoch = len(self._lengths) // self.batch_size
        if not self.steps_per_epoch:
            raise ValueError(
                f"batch_size must be at most {len(self._lengths)}, the number of training rows, "
                f"got {batch_size}."
            )
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """The batch of a step.

        Args:
          step: number of the step, from 0.

        Returns:
          int64 indices of its rows, and the length that they are padded to.
        """
        epoch, place = divmod(
            check_integer("step", step, example=0, minimum=0), self.steps_per_epoch
        )
        rows, lengths = self._epoch(epoch)
        return rows[place], int(lengths[place])

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices [batches, batch_size] and length of each batch of an epoch."""
        random = np.random.RandomState([self.seed, epoch])  # the same in every release of NumPy
        order = random.permutation(len(self._lengths))[: self.steps_per_epoch * self.batch_size]
        bucket = np.searchsorted(self.buckets, self._lengths[order])
        full, left = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for i in range(len(self.buckets)):
            rows = order[bucket == i]
            size = len(rows) // self.batch_size * self.batch_size
            full.append(rows[:size])
            left.append(rows[size:])
        batches = np.concatenate(full + left).reshape([-1, self.batch_size])
        batches = batches[random.permutation(len(batches))]
        longest = self._lengths[batches].max(axis=1)
        return batches, np.array(self.buckets)[np.searchsorted(self.buckets, longest)]


def length_buckets(lengths: np.ndarray, count: int = 5, multiple: int = 8) -> tuple[int, ...]:
    """A few lengths to pad to, each for about as many rows as the others.

    Args:
      lengths: int length of each row.
      count: most buckets.
      multiple: what the lengths are multiples of.
    """
    quantiles = np.quantile(lengths, np.arange(1, count + 1) / count)
    rounded = np.ceil(np.maximum(quantiles, 1) / multiple).astype(int) * multiple
    return tuple(sorted(set(rounded.tolist())))


def training_dataset(features: Features, plan: BatchPlan, first_step: int = 0) -> tf.data.Dataset:
    """Endless batches of a plan, made while the model trains on those before.

    Args:
      features: rows with targets.
      plan: their batches.
      first_step: the step that the first batch is for.

    Returns:
      A dataset of ({"ids", "mask", "segments"}, targets): int32 arrays [batch_size, length], and
      the labels or scores [batch_size], or {"start", "end"} of answers.
    """
    names = ["ids", "mask", "segments", *features.targets]
    types = [tf.int32] * 3 + [tf.as_dtype(a.dtype) for a in features.targets.values()]

    def arrays(step: np.ndarray) -> list[np.ndarray]:
        rows, length = plan.batch(int(step))
        batch = inputs_of(features, rows, length)
        return [*batch.values(), *(array[rows] for array in features.targets.values())]

    def batch(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], Any]:
        tensors = dict(zip(names, tf.numpy_function(arrays, [step], types)))
        for name, tensor in tensors.items():
            is_input = name not in features.targets
            tensor.set_shape([plan.batch_size, None] if is_input else [plan.batch_size])
        targets = {name: tensors.pop(name) for name in features.targets}
        return tensors, targets.get("labels", targets)

    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).prefetch(tf.data.AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Rows to evaluate, padded to a full batch.

    Attributes:
      rows: int64 index of each row; in the last batch, fewer than `batch_size`.
      inputs: int32 {"ids", "mask", "segments"} [batch_size, length]; beyond `rows`, copies of the
        last row.
      row_mask: bool [batch_size], True for the rows that count.
    """

    rows: np.ndarray
    inputs: Inputs
    row_mask: np.ndarray


def evaluation_batches(
    features: Features, batch_size: int, buckets: Sequence[int] | None = None
) -> Iterator[EvaluationBatch]:
    """All rows once, sorted by length, in batches of one size and of few lengths.

    Args:
      features: the rows.
      batch_size: rows of a batch.
      buckets: ascending lengths of batches; those of `length_buckets` by default.

    Raises:
      ValueError: a row is longer than all buckets.
    """
    check_integer("batch_size", batch_size, example=32, minimum=1)
    if not len(features):
        return
    lengths = features.lengths
    buckets = _checked_buckets(buckets or length_buckets(lengths), int(lengths.max()))
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = buckets[bisect.bisect_left(buckets, lengths[rows[-1]])]
        full = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
        yield EvaluationBatch(
            rows, inputs_of(features, full, length), np.arange(batch_size) < len(rows)
        )


def inputs_of(features: Features, rows: np.ndarray, length: int) -> Inputs:
    """Some rows as int32 {"ids", "mask", "segments"} [rows, length]."""
    return {
        "ids": features.ids.padded(rows, length, features.padding_id),
        "mask": (np.arange(length) < features.lengths[rows][:, None]).astype(np.int32),
        "segments": features.segments.padded(rows, length),
    }


def _checked_buckets(buckets: Sequence[int], longest: int) -> tuple[int, ...]:
    found = tuple(check_integer("Each bucket", length, example=64, minimum=1) for length in buckets)
    if not found or any(b <= a for a, b in itertools.pairwise(found)):
        raise ValueError(f"buckets must be ascending lengths such as (32, 64, 128), got {buckets}.")
    if longest > found[-1]:
        raise ValueError(
            f"The longest row has {longest} tokens, but the last of the buckets {found} is "
            f"{found[-1]}. Add one of at least {longest}, or lower max_length."
        )
    return found
