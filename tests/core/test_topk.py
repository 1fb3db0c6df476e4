"""Exact selection of the highest scores, of one tensor and of several."""

import functools

import hypothesis
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modes import MODES, compiled, every_mode, every_selection

import tf_movprune
from tf_movprune.core import masks
from tf_movprune.core.ordered_keys import RankedScores
from tf_movprune.core.topk import select

properties = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)


POSITIVE_NAN, NEGATIVE_NAN = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
SMALLEST = np.float32(1e-45)  # a denormal
INFINITY = np.float32(np.inf)


# Few shapes: XLA compiles a program for each.
SHAPES = [(1,), (6,), (4, 5)]
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, SMALLEST, -SMALLEST]
ELEMENTS = st.sampled_from([float(x) for x in SPECIAL]) | st.floats(width=32)


@st.composite
def scores_and_counts(draw, counts=1, elements=ELEMENTS):
    shape = draw(st.sampled_from(SHAPES))
    scores = draw(hnp.arrays(np.float32, shape, elements=elements))
    return scores, *(draw(st.integers(0, scores.size)) for _ in range(counts))


def topk(mode, scores, count):
    scores = tf.constant(scores, tf.float32)
    mask, threshold = compiled(mode, masks.topk_mask)(scores, tf.constant(count, tf.int64))
    assert mask.dtype == tf.bool and mask.shape == scores.shape
    assert threshold.dtype == tf.float32 and threshold.shape == ()
    return mask.numpy(), threshold.numpy()


# ---- topk_mask


@every_selection
@pytest.mark.parametrize(
    "scores, count, kept",
    [
        pytest.param([0, 0, 0, 0, 0, 0], 4, [1, 1, 1, 1, 0, 0], id="all equal"),
        pytest.param([3, 1, 2, 6, 5, 4], 0, [0, 0, 0, 0, 0, 0], id="none"),
        pytest.param([3, 1, 2, 6, 5, 4], 1, [0, 0, 0, 1, 0, 0], id="one"),
        pytest.param([3, 1, 2, 6, 5, 4], 3, [0, 0, 0, 1, 1, 1], id="half"),
        pytest.param([3, 1, 2, 6, 5, 4], 5, [1, 0, 1, 1, 1, 1], id="all but one"),
        pytest.param([3, 1, 2, 6, 5, 4], 6, [1, 1, 1, 1, 1, 1], id="all"),
        pytest.param([-3, -1, -2, -6, -5, -4], 2, [0, 1, 1, 0, 0, 0], id="negative"),
        pytest.param([1, 2, 1, 3, 1, 1], 4, [1, 1, 1, 1, 0, 0], id="tie at the threshold"),
        pytest.param([1, 2, 1, 3, 1, 1], 2, [0, 1, 0, 1, 0, 0], id="tie below the threshold"),
        pytest.param([1, 2, 1, 3, 1, 0], 5, [1, 1, 1, 1, 1, 0], id="tie that is kept whole"),
        pytest.param([-1, -0.0, 0.0, -0.0, 0.0, 1], 2, [0, 1, 0, 0, 0, 1], id="-0 equals +0"),
        pytest.param([-1, 0.0, -0.0, 0.0, -0.0, 1], 3, [0, 1, 1, 0, 0, 1], id="+0 equals -0"),
        pytest.param(
            [0, -SMALLEST, SMALLEST, 2 * SMALLEST, 0, -1], 2, [0, 0, 1, 1, 0, 0], id="denormals"
        ),
        pytest.param(
            [-SMALLEST, 0, 0, -2 * SMALLEST, -1, -0.0],
            4,
            [1, 1, 1, 0, 0, 1],
            id="negative denormals",
        ),
        pytest.param(
            [-INFINITY, 3e38, INFINITY, -3e38, INFINITY, 0],
            1,
            [0, 0, 1, 0, 0, 0],
            id="tied infinities",
        ),
        pytest.param(
            [-INFINITY, 3e38, INFINITY, -3e38, -INFINITY, 0],
            5,
            [1, 1, 1, 1, 0, 1],
            id="tied negative infinities",
        ),
        pytest.param(
            [POSITIVE_NAN, -INFINITY, NEGATIVE_NAN, -INFINITY, POSITIVE_NAN, -1],
            3,
            [0, 1, 0, 1, 0, 1],
            id="NaN is below -inf",
        ),
        pytest.param(
            [NEGATIVE_NAN, -INFINITY, POSITIVE_NAN, 0, POSITIVE_NAN, -1],
            5,
            [1, 1, 1, 1, 0, 1],
            id="NaN ties with NaN",
        ),
        pytest.param([POSITIVE_NAN, NEGATIVE_NAN] * 3, 3, [1, 1, 1, 0, 0, 0], id="nothing but NaN"),
    ],
)
def test_topk_mask_by_hand(mode, scores, count, kept):
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(reference.topk_mask(scores, count), np.array(kept, bool))
    np.testing.assert_array_equal(topk(mode, scores, count)[0], np.array(kept, bool))


@every_selection
@pytest.mark.parametrize("score", [0.0, -np.inf, np.inf, np.nan])
def test_topk_mask_of_one_element(mode, score):
    assert topk(mode, [score], 0)[0].tolist() == [False]
    assert topk(mode, [score], 1)[0].tolist() == [True]


@every_mode
@pytest.mark.parametrize("count", [0, 1, 4_000, 38_550, 77_099, 77_100])
def test_topk_mask_of_a_matrix_with_many_ties(mode, count):
    scores = np.random.default_rng(0).normal(size=(300, 257)).round(1).astype(np.float32)
    mask, threshold = topk(mode, scores, count)
    np.testing.assert_array_equal(mask, reference.topk_mask(scores, count))
    assert threshold == np.float32(reference.threshold(scores, mask))


LARGE = (96, 130)


def _large_scores():
    """By kind, scores of which the search needs its sample, its pivots and its rows."""
    random = np.random.default_rng(0)
    normal = random.standard_normal(LARGE)
    ones = np.full(LARGE, 1.0, np.float32).view(np.int32)
    scores = {
        "normal": normal,
        "heavy tails": random.standard_cauchy(LARGE),
        "columns of very different sizes": normal * np.geomspace(1e-12, 1e12, LARGE[1]),
        "sorted: neighbours share a row": np.sort(normal.ravel()).reshape(LARGE),
        "sparse": np.where(random.random(LARGE) < 0.01, normal, 0.0),
        "two clusters": np.where(random.random(LARGE) < 0.1, 1e6 + normal, normal),
        "adjacent floats": (ones + random.integers(0, 40_000, LARGE)).astype("i4").view("f4"),
        "denormals": normal * 1e-42,
        "half NaN": np.where(random.random(LARGE) < 0.5, np.nan, normal),
        "a NaN with every score": np.where(np.arange(LARGE[1]) % 2, np.nan, normal),
        "infinities": np.where(random.random(LARGE) < 0.3, np.inf * np.sign(normal), normal),
        "misleading sample": np.where(np.arange(normal.size).reshape(LARGE) % 7, normal, 9.0),
    }
    return {kind: array.astype(np.float32) for kind, array in scores.items()}


BY_KIND = _large_scores()
COUNTS = (0, 1, 2, 300, 1_248, 6_240, 11_000, 12_479, 12_480)


@every_mode
@pytest.mark.parametrize("place, kind", enumerate(BY_KIND))
def test_topk_mask_of_a_large_matrix(mode, place, kind):
    """Eagerly, where each operation is slow, with another count of each kind."""
    scores = BY_KIND[kind]
    for count in COUNTS if mode != "eager" else [COUNTS[-place % len(COUNTS)]]:
        mask, threshold = topk(mode, scores, count)
        np.testing.assert_array_equal(mask, reference.topk_mask(scores, count), str(count))
        assert threshold == reference.threshold(scores, mask)


@every_mode
@pytest.mark.parametrize("size", [2_049, 12_289])  # rows have to be padded
def test_topk_mask_of_sizes_without_divisors(mode, size):
    normal = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    for scores in (normal, np.where(np.arange(size) % 2, np.nan, normal)):
        for count in (1, 100, size // 2, size - 1) if mode != "eager" else (100,):
            mask, _ = topk(mode, scores, count)
            np.testing.assert_array_equal(mask, reference.topk_mask(scores, count))


def test_an_empty_tensor_beside_a_large_one():
    scores = [np.zeros((0, 4), np.float32), BY_KIND["normal"]]
    chosen, _ = masks.global_topk_masks([tf.constant(s) for s in scores], tf.constant(5, tf.int64))
    assert chosen[0].shape == (0, 4)
    np.testing.assert_array_equal(chosen[1], reference.topk_mask(scores[1], 5))


@pytest.mark.parametrize("sorted_up_to", [0, 2048])
def test_no_score_is_chosen_of_those_that_rank_first_where_none_is_asked_for(
    sorted_up_to, monkeypatch
):
    monkeypatch.setattr("tf_movprune.core.topk._SORTED", sorted_up_to)
    scores = RankedScores(tf.constant([1.0, 2.0, 3.0]), tf.constant([False, True, True]))
    for count, kept in ((0, []), (1, [1]), (2, [1, 2])):
        ((mask,),), thresholds = select([[scores]], tf.constant([count], tf.int64))
        assert np.flatnonzero(mask).tolist() == kept
        assert thresholds[0] == np.inf


# ---- topk_masks


@every_mode
@pytest.mark.parametrize("has_gpu", [False, True])  # one after the other, or all together
def test_topk_masks_choose_from_each_tensor_by_itself(mode, has_gpu, monkeypatch):
    devices = ["GPU"] if has_gpu else []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    select = MODES[mode](masks.topk_masks)  # compiled here, as the devices say
    scores = [BY_KIND["normal"], BY_KIND["half NaN"].T, np.zeros((5, 3), np.float32)]
    scores += [np.arange(7, dtype=np.float32)]
    for counts in ([1_248, 12_000, 4, 0], [0, 6_000, 15, 3], [12_480, 12_479, 0, 7]):
        chosen, thresholds = select([tf.constant(s) for s in scores], tf.constant(counts, tf.int64))
        assert thresholds.shape == (4,) and thresholds.dtype == tf.float32
        for tensor, count, mask, threshold in zip(scores, counts, chosen, thresholds):
            assert mask.shape == tensor.shape
            np.testing.assert_array_equal(mask, reference.topk_mask(tensor, count))
            assert threshold == reference.threshold(tensor, mask.numpy())


@every_mode
@pytest.mark.parametrize("minimums", [None, (2_000, 0, 10)])
def test_global_topk_masks_of_large_tensors(mode, minimums):
    select = MODES[mode](functools.partial(masks.global_topk_masks, minimums=minimums))
    scores = [BY_KIND["normal"], BY_KIND["sorted: neighbours share a row"], np.ones(40, "f4")]
    for count in (2_010, 2_400, 12_480, 24_999) if mode != "eager" else (2_400,):
        chosen, _ = select([tf.constant(s) for s in scores], tf.constant(count, tf.int64))
        for mask, want in zip(chosen, reference.global_topk_masks(scores, count, minimums)):
            np.testing.assert_array_equal(mask, want)


@every_selection
@properties
@hypothesis.given(case=scores_and_counts())
def test_topk_mask_equals_the_reference(mode, case):
    scores, count = case
    mask, _ = topk(mode, scores, count)
    assert mask.sum() == count
    np.testing.assert_array_equal(mask, reference.topk_mask(scores, count))


@every_selection
@properties
@hypothesis.given(case=scores_and_counts(counts=2))
def test_topk_mask_is_nested_in_the_count(mode, case):
    scores, *counts = case
    fewer, more = (topk(mode, scores, count)[0] for count in sorted(counts))
    assert np.all(fewer <= more)


@every_selection
@properties
@hypothesis.given(
    case=scores_and_counts(elements=st.integers(-1000, 1000).map(float)),
    scale=st.integers(1, 1000),
    shift=st.integers(-100_000, 100_000),
)
def test_topk_mask_is_invariant_to_scale_and_shift(mode, case, scale, shift):
    scores, count = case
    moved = np.float32(scale) * scores + np.float32(shift)  # exact: integers below 2^24
    np.testing.assert_array_equal(topk(mode, moved, count)[0], topk(mode, scores, count)[0])


@every_selection
@properties
@hypothesis.given(
    data=st.data(),
    scores=hnp.arrays(
        np.float32, (6,), elements=st.floats(width=32, allow_nan=False), unique=True
    ).filter(lambda scores: np.unique(scores).size == 6),  # -0 and +0 are unique to hypothesis
    count=st.integers(0, 6),
)
def test_topk_mask_is_permutation_equivariant_for_distinct_scores(mode, data, scores, count):
    order = np.array(data.draw(st.permutations(range(6))))
    mask, threshold = topk(mode, scores, count)
    permuted_mask, permuted_threshold = topk(mode, scores[order], count)
    np.testing.assert_array_equal(permuted_mask, mask[order])
    assert permuted_threshold == threshold


@every_selection
@properties
@hypothesis.given(case=scores_and_counts())
def test_threshold_is_the_lowest_score_that_is_kept(mode, case):
    scores, count = case
    mask, threshold = topk(mode, scores, count)
    assert threshold == reference.threshold(scores, mask)
    assert np.all(mask[scores > threshold])
    assert not np.any(mask[scores < threshold])


@every_selection
@pytest.mark.parametrize(
    "scores, count, threshold",
    [
        ([3, 1, 2, 6, 5, 4], 0, np.inf),
        ([3, 1, 2, 6, 5, 4], 2, 5),
        ([3, 1, 2, 6, 5, 4], 6, -np.inf),
        ([1, 2, 1, 3, 1, 1], 4, 1),
        ([-1.5, -2.5, -3, -4, -5, -6], 2, -2.5),
        ([-1, -2, 0, SMALLEST, 2 * SMALLEST, -SMALLEST], 2, SMALLEST),
        ([-1, -2, -3, -2 * SMALLEST, -3 * SMALLEST, -4], 1, -2 * SMALLEST),
        ([INFINITY, INFINITY, 1, 2, 3, 4], 1, np.inf),
        ([1, 2, -INFINITY, 3, 4, -INFINITY], 5, -np.inf),
        ([1, 2, POSITIVE_NAN, 3, 4, NEGATIVE_NAN], 5, -np.inf),
    ],
)
def test_threshold_by_hand(mode, scores, count, threshold):
    assert topk(mode, scores, count)[1] == np.float32(threshold)


@every_selection
def test_count_may_change_without_a_new_trace(mode):
    traces = []

    def traced(scores, count):
        traces.append(count)
        return masks.topk_mask(scores, count)

    function = MODES[mode](traced)
    scores = tf.constant([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    counts = [
        int(tf.math.count_nonzero(function(scores, tf.constant(k, tf.int64))[0])) for k in range(7)
    ]
    assert counts == list(range(7))
    assert len(traces) == (7 if mode == "eager" else 1)


def test_topk_mask_needs_a_static_shape():
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def dynamic(scores):
        return masks.topk_mask(scores, tf.constant(1, tf.int64))[0]

    with pytest.raises(ValueError, match=r"scores must have a static shape, got \(None, 3\)\."):
        dynamic(tf.zeros([2, 3]))


# ---- selection over several tensors


GLOBAL = {
    minimums: functools.partial(masks.global_topk_masks, minimums=minimums)
    for minimums in [None, (2, 0, 3)]
}


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf]) | st.floats(
    width=32, allow_nan=False
)


@every_selection
@pytest.mark.parametrize("minimums", [None, (2, 0, 3)])
@properties
@hypothesis.given(
    scores=st.tuples(*(hnp.arrays(np.float32, s, elements=NUMBERS) for s in [(2, 3), (4,), (5,)])),
    count=st.integers(0, 15),
)
def test_global_topk_equals_the_reference(mode, minimums, scores, count):
    chosen, threshold = compiled(mode, GLOBAL[minimums])(
        [tf.constant(s) for s in scores], tf.constant(count, tf.int64)
    )
    count = max(count, sum(minimums or (0,)))
    expected = reference.global_topk_masks(scores, count, minimums)
    for mask, want, s in zip(chosen, expected, scores):
        assert mask.shape == s.shape
        np.testing.assert_array_equal(mask, want)
    assert sum(int(mask.numpy().sum()) for mask in chosen) == count
    if minimums is None:
        row = np.concatenate([s.ravel() for s in scores])
        kept = np.concatenate([mask.numpy().ravel() for mask in chosen])
        assert float(threshold) == reference.threshold(row, kept)


def test_ties_go_to_the_earlier_tensor():
    chosen, _ = masks.global_topk_masks([tf.zeros([4]), tf.zeros([3])], tf.constant(5, tf.int64))
    assert [mask.numpy().tolist() for mask in chosen] == [[True] * 4, [True, False, False]]


def test_threshold_where_only_the_minimums_stay():
    scores = [tf.constant([3.0, 1.0]), tf.constant([-1.0, -2.0])]
    chosen, threshold = masks.global_topk_masks(scores, tf.constant(0, tf.int64), (1, 1))
    assert [mask.numpy().tolist() for mask in chosen] == [[True, False], [True, False]]
    assert float(threshold) == np.inf


@pytest.mark.slow
def test_global_count_beyond_float32():
    """Above 2^24 float32 has even numbers only."""
    sizes, sparsity = (2**24 + 2**20, 10), 0.05
    random = np.random.default_rng(0)
    scores = [random.standard_normal(size, dtype=np.float32) for size in sizes]
    method = tf_movprune.HardMovement(scope="global")
    select = tf.function(lambda *scores: [mask for mask, _ in method.select(scores, sparsity)])
    chosen = [mask.numpy() for mask in select(*(tf.constant(s) for s in scores))]
    kept = reference.kept_count(sum(sizes), sparsity)
    assert kept > 2**24 and kept % 2 == 1
    assert sum(int(np.count_nonzero(mask)) for mask in chosen) == kept
    cut = np.partition(np.concatenate(scores), sum(sizes) - kept)[sum(sizes) - kept]
    for mask, s in zip(chosen, scores):
        np.testing.assert_array_equal(mask, s >= cut)  # no two of these are equal at the cut
