"""Batches: a plan that depends on seed and step alone, and few shapes."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_movprune.tasks.batches import (
    BatchPlan,
    evaluation_batches,
    length_buckets,
    training_dataset,
)
from tf_movprune.tasks.feature_types import Features
from tf_movprune.tasks.rows import Rows

LENGTHS = np.random.RandomState(0).randint(2, 30, 103)
BUCKETS = (8, 16, 32)


def features(lengths=LENGTHS, targets=None):
    """Row i is made of i + 1; its segments of i."""
    ids = [np.full(length, i + 1, np.int32) for i, length in enumerate(lengths)]
    segments = [row - 1 for row in ids]
    empty = np.zeros(0, np.int32)
    targets = {"labels": np.arange(len(ids), dtype=np.int32)} if targets is None else targets
    return Features(Rows.of(ids, empty), Rows.of(segments, empty), targets, -1, len(ids), 32)


def batches(plan, steps):
    return [(rows.tolist(), length) for rows, length in map(plan.batch, steps)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 32), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_an_epoch_has_each_row_at_most_once(lengths, batch_size, seed):
    if len(lengths) < batch_size:
        return
    plan = BatchPlan(np.array(lengths), batch_size, BUCKETS, seed)
    assert plan.steps_per_epoch == len(lengths) // batch_size
    for epoch in (0, 3):
        first = epoch * plan.steps_per_epoch
        found = batches(plan, range(first, first + plan.steps_per_epoch))
        rows = [row for batch, _ in found for row in batch]
        assert len(rows) == len(set(rows)) == plan.steps_per_epoch * batch_size
        for batch, length in found:
            longest = max(lengths[row] for row in batch)
            assert length == min(bucket for bucket in BUCKETS if bucket >= longest)


def test_few_batches_mix_lengths():
    plan = BatchPlan(LENGTHS, 5, BUCKETS)
    mixed = 0
    for step in range(plan.steps_per_epoch):
        rows, _ = plan.batch(step)
        mixed += len(set(np.searchsorted(BUCKETS, LENGTHS[rows]))) > 1
    assert mixed < len(BUCKETS)


def test_every_step_is_a_function_of_seed_and_step():
    plan = BatchPlan(LENGTHS, 5, BUCKETS, seed=1)
    in_order = batches(plan, range(70))
    assert batches(BatchPlan(LENGTHS, 5, BUCKETS, seed=1), reversed(range(70))) == in_order[::-1]
    assert batches(BatchPlan(LENGTHS, 5, BUCKETS, seed=2), range(70)) != in_order
    assert in_order[:20] != in_order[20:40]


def test_the_plan_is_the_same_for_ever():
    plan = BatchPlan(np.array([3, 9, 4, 17, 8, 30, 5]), 2, BUCKETS, seed=7)
    assert batches(plan, range(6)) == [
        ([5, 3], 32),
        ([4, 6], 8),
        ([2, 1], 16),
        ([5, 3], 32),
        ([2, 6], 8),
        ([0, 1], 16),
    ]


def test_each_row_has_its_turn():
    plan = BatchPlan(LENGTHS, 20, BUCKETS)
    seen = collections.Counter()
    for step in range(40 * plan.steps_per_epoch):
        seen.update(plan.batch(step)[0].tolist())
    assert len(seen) == len(LENGTHS) and min(seen.values()) > 30
    shortest, longest = np.argsort(LENGTHS)[[0, -1]]
    assert abs(seen[shortest] - seen[longest]) < 8


def test_training_continues_with_the_next_batch():
    plan = BatchPlan(LENGTHS, 5, BUCKETS)
    whole = list(training_dataset(features(), plan).take(30))
    resumed = list(training_dataset(features(), plan, first_step=23).take(7))
    for step, (expected, found) in enumerate(zip(whole[23:], resumed), 23):
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
        rows, length = plan.batch(step)
        inputs, labels = found
        np.testing.assert_array_equal(labels, rows)
        assert inputs.keys() == {"ids", "mask", "segments"} and inputs["ids"].shape == (5, length)
        assert {array.dtype for array in inputs.values()} == {tf.int32}
        np.testing.assert_array_equal(tf.reduce_sum(inputs["mask"], 1), LENGTHS[rows])
        mask = inputs["mask"] == 1
        np.testing.assert_array_equal(inputs["ids"], tf.where(mask, rows[:, None] + 1, -1))
        np.testing.assert_array_equal(inputs["segments"], tf.where(mask, rows[:, None], 0))


def test_shapes_and_types_of_training_batches():
    answers = {"start": LENGTHS.astype(np.int32), "end": LENGTHS.astype(np.int32)}
    scores = {"labels": LENGTHS.astype(np.float32)}
    plan = BatchPlan(LENGTHS, 5, BUCKETS)
    inputs, targets = training_dataset(features(targets=answers), plan).element_spec
    assert inputs["mask"] == tf.TensorSpec([5, None], tf.int32, name=None)
    assert targets == {key: tf.TensorSpec([5], tf.int32) for key in ("start", "end")}
    _, targets = training_dataset(features(targets=scores), plan).element_spec
    assert targets == tf.TensorSpec([5], tf.float32)


def test_evaluation_has_each_row_once_in_few_shapes():
    data = features()
    found = list(evaluation_batches(data, 10, BUCKETS))
    assert sorted(np.concatenate([batch.rows for batch in found])) == list(range(103))
    assert {batch.inputs["ids"].shape for batch in found} == {(10, n) for n in BUCKETS}
    for batch in found:
        assert batch.row_mask.sum() == len(batch.rows) == (3 if batch is found[-1] else 10)
        np.testing.assert_array_equal(
            batch.inputs["mask"].sum(1)[batch.row_mask], LENGTHS[batch.rows]
        )
        full = np.pad(batch.rows, (0, 10 - len(batch.rows)), mode="edge")
        np.testing.assert_array_equal(batch.inputs["ids"][:, 0], full + 1)
    assert not list(evaluation_batches(features([]), 10))


def test_buckets_by_length():
    assert length_buckets(np.arange(1, 101), 4) == (32, 56, 80, 104)
    assert length_buckets(np.array([5, 5, 5])) == (8,)
    assert max(length_buckets(LENGTHS)) >= LENGTHS.max()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((LENGTHS, 104, BUCKETS), r"batch_size must be at most 103, .* rows, got 104\."),
        ((LENGTHS, 0, BUCKETS), r"batch_size must be at least 1, got 0\."),
        ((LENGTHS, 5, (8, 16)), r"longest row has 29 tokens, .* \(8, 16\) is 16\. Add one of"),
        ((LENGTHS, 5, (16, 8)), r"buckets must be ascending .* got \(16, 8\)\."),
        ((LENGTHS, 5, BUCKETS, 2**32), r"seed must be less than 2\*\*32, got 4294967296\."),
        ((LENGTHS, 5, ()), r"buckets must be ascending"),
    ],
)
def test_plans_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchPlan(*arguments)
