"""How many weights stay, and masks from a threshold."""

import functools

import hypothesis
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import strategies as st
from modes import compiled, every_mode, every_selection

import tf_movprune
from tf_movprune.core import masks

properties = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)


# ---- counts


@pytest.mark.parametrize(
    "size, fraction, expected",
    [(100, 0.29, 29), (100, 0.299, 29), (1000, 0.0, 0), (10**9, 0.57, 570_000_000)],
)
def test_minimum_count(size, fraction, expected):
    assert masks.minimum_count(size, fraction) == expected


# ---- kept_count


@functools.cache
def kept_count_of(size):
    return lambda sparsity: masks.kept_count(size, sparsity)


def kept_count(mode, size, sparsity, dtype=tf.float64):
    count = compiled(mode, kept_count_of(size))(tf.constant(sparsity, dtype))
    assert count.dtype == tf.int64 and count.shape == ()
    return int(count)


@every_mode
@pytest.mark.parametrize(
    "shape, counts",
    [
        ((768, 768), [294_912, 88_473, 58_982, 29_491, 17_694]),
        ((768, 3072), [1_179_648, 353_894, 235_929, 117_964, 70_778]),
    ],
)
def test_kept_counts_of_the_reference_code(mode, shape, counts):
    size = shape[0] * shape[1]
    kept = [kept_count(mode, size, 1 - v) for v in (0.5, 0.15, 0.10, 0.05, 0.03)]
    assert kept == counts


@pytest.mark.parametrize(
    "shape, counts",
    [
        ((768, 768), [294_912, 88_473, 58_982, 29_491, 17_694]),
        ((768, 3072), [1_179_648, 353_894, 235_929, 117_964, 70_778]),
    ],
)
def test_kept_counts_of_the_reference_code_in_float32(shape, counts):
    """tfmot's schedules return float32."""
    size = shape[0] * shape[1]
    sparsities = (0.5, 0.85, 0.9, 0.95, 0.97)
    assert [kept_count("eager", size, s, tf.float32) for s in sparsities] == counts


@every_mode
@pytest.mark.parametrize(
    "size, sparsity, dtype, count",
    [
        (1000, 0.9, tf.float64, 100),  # 1 - 0.9 is less than 0.1
        (1000, 0.8, tf.float32, 200),  # float32(0.8) is more than 0.8
        (1000, 0.9, tf.float32, 100),
        (10, 0.0, tf.float64, 10),
        (10, 0.0, tf.float32, 10),
        (10, 1.0, tf.float64, 0),
        (10, 0.9999, tf.float64, 0),
        (10, 0.95, tf.float64, 0),
        (1, 0.5, tf.float64, 0),
        (19, 0.5, tf.float64, 9),
        (20, 0.95, tf.float64, 1),
    ],
)
def test_kept_count_by_hand(mode, size, sparsity, dtype, count):
    assert kept_count(mode, size, sparsity, dtype) == count


@every_mode
@pytest.mark.parametrize("size", [2**24 + 3, 84_934_656, 2**31 + 1, 6 * 2**31 + 5])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.85, 0.9, 0.97])
def test_kept_count_beyond_float32_and_int32(mode, size, sparsity):
    assert kept_count(mode, size, sparsity) == reference.kept_count(size, sparsity)


@pytest.mark.parametrize("size", [2**23, 2**24, 84_934_656])
def test_kept_count_is_exact_where_a_float32_sparsity_is(size):
    sparsities = [0.25, 0.5, 0.75]
    counts = [kept_count("eager", size, sparsity, tf.float32) for sparsity in sparsities]
    assert counts == [size * 3 // 4, size // 2, size // 4]


@hypothesis.settings(properties, max_examples=200)
@hypothesis.given(size=st.integers(1, 10**10), sparsity=st.integers(0, 9999))
def test_kept_count_equals_the_reference(size, sparsity):
    sparsity = sparsity / 10_000
    assert kept_count("eager", size, sparsity) == reference.kept_count(size, sparsity)


@hypothesis.settings(properties, max_examples=200)
@hypothesis.given(size=st.integers(1, 20_000), sparsity=st.integers(0, 99))
def test_kept_count_equals_the_reference_in_float32(size, sparsity):
    sparsity = sparsity / 100
    assert kept_count("eager", size, sparsity, tf.float32) == reference.kept_count(size, sparsity)


@hypothesis.settings(properties, max_examples=100)
@hypothesis.given(
    size=st.integers(1, 10**10), sparsities=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
)
def test_kept_count_falls_with_sparsity(size, sparsities):
    fewer_zeros, more_zeros = (kept_count("eager", size, s) for s in sparsities)
    assert 0 <= more_zeros <= fewer_zeros <= size


# ---- the threshold of soft movement


@every_selection
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9])
def test_threshold_mask(mode, threshold):
    scores = np.random.default_rng(1).normal(0, 2, [20, 30]).astype(np.float32)
    mask = compiled(mode, masks.threshold_mask)(tf.constant(scores), tf.constant(threshold), 4)
    np.testing.assert_array_equal(mask, reference.soft_mask(scores, threshold))
    assert 4 < np.sum(mask) <= 600


@every_selection
@pytest.mark.parametrize("scores", [np.full(600, -3.0), np.linspace(-9, -3, 600)])
def test_threshold_mask_keeps_a_minimum(mode, scores):
    """Also where all scores tie, where the reference code empties the mask."""
    scores = scores.astype(np.float32).reshape(20, 30)
    mask = compiled(mode, masks.threshold_mask)(tf.constant(scores), tf.constant(0.1), 4)
    assert np.sum(mask) == 4
    np.testing.assert_array_equal(mask, reference.topk_mask(scores, 4))


def test_minimum_of_soft_movement_is_that_of_the_reference_code():
    for n, kept in [(1, 1), (199, 1), (200, 2), (1000, 6), (589824, 2950)]:
        ((mask, _),) = tf_movprune.SoftMovement(1.0).select([tf.fill([n], -5.0)], tf.constant(0.1))
        assert np.sum(mask) == kept == min(n, int(0.005 * n) + 1)
