import functools

import hypothesis
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modes import MODES, every_mode, without_sorting

from tf_movprune.core import masks
from tf_movprune.core.topk import Scores, select

TOPK = {mode: compiled(masks.topk_mask) for mode, compiled in MODES.items()}

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
    mask, threshold = TOPK[mode](scores, tf.constant(count, tf.int64))
    assert mask.dtype == tf.bool and mask.shape == scores.shape
    assert threshold.dtype == tf.float32 and threshold.shape == ()
    return mask.numpy(), threshold.numpy()


# ---- topk_mask


@every_mode
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


@every_mode
@pytest.mark.parametrize("score", [0.0, -np.inf, np.inf, np.nan])
def test_topk_mask_of_one_element(mode, score):
    assert topk(mode, [score], 0)[0].tolist() == [False]
    assert topk(mode, [score], 1)[0].tolist() == [True]


@without_sorting
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


@without_sorting
@pytest.mark.parametrize("kind", BY_KIND)
def test_topk_mask_of_a_large_matrix(mode, kind):
    scores = BY_KIND[kind]
    for count in (0, 1, 2, 300, 1_248, 6_240, 11_000, scores.size - 1, scores.size):
        mask, threshold = topk(mode, scores, count)
        np.testing.assert_array_equal(mask, reference.topk_mask(scores, count), str(count))
        assert threshold == reference.threshold(scores, mask)


@without_sorting
@pytest.mark.parametrize("size", [2_049, 12_289, 12_480])  # a prime: rows have to be padded
def test_topk_mask_of_sizes_without_divisors(mode, size):
    normal = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    for scores in (normal, np.where(np.arange(size) % 2, np.nan, normal)):
        for count in (1, 100, size // 2, size - 1):
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
    scores = Scores(tf.constant([1.0, 2.0, 3.0]), tf.constant([False, True, True]))
    for count, kept in ((0, []), (1, [1]), (2, [1, 2])):
        ((mask,),), thresholds = select([[scores]], tf.constant([count], tf.int64))
        assert np.flatnonzero(mask).tolist() == kept
        assert thresholds[0] == np.inf


# ---- topk_masks


@without_sorting
@pytest.mark.parametrize("has_gpu", [False, True])  # one after the other, or all together
def test_topk_masks_choose_from_each_tensor_by_itself(mode, has_gpu, monkeypatch):
    devices = ["GPU"] if has_gpu else []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    select = MODES[mode](masks.topk_masks)  # compiled here, as the devices say
    scores = [BY_KIND["normal"], BY_KIND["sparse"].T, np.zeros((5, 3), np.float32)]
    scores += [BY_KIND["heavy tails"], np.arange(7, dtype=np.float32), BY_KIND["half NaN"]]
    for counts in ([1_248, 6_000, 4, 0, 3, 12_000], [12_480, 12_480, 15, 12_479, 7, 12_480]):
        chosen, thresholds = select([tf.constant(s) for s in scores], tf.constant(counts, tf.int64))
        assert thresholds.shape == (6,) and thresholds.dtype == tf.float32
        for tensor, count, mask, threshold in zip(scores, counts, chosen, thresholds):
            assert mask.shape == tensor.shape
            np.testing.assert_array_equal(mask, reference.topk_mask(tensor, count))
            assert threshold == reference.threshold(tensor, mask.numpy())


@without_sorting
@pytest.mark.parametrize("minimums", [None, (2_000, 0, 10)])
def test_global_topk_masks_of_large_tensors(mode, minimums):
    select = MODES[mode](functools.partial(masks.global_topk_masks, minimums=minimums))
    scores = [BY_KIND["normal"], BY_KIND["sorted: neighbours share a row"], np.ones(40, "f4")]
    for count in (2_010, 2_400, 12_480, 24_999):
        chosen, _ = select([tf.constant(s) for s in scores], tf.constant(count, tf.int64))
        for mask, want in zip(chosen, reference.global_topk_masks(scores, count, minimums)):
            np.testing.assert_array_equal(mask, want)


@every_mode
@properties
@hypothesis.given(case=scores_and_counts())
def test_topk_mask_equals_the_reference(mode, case):
    scores, count = case
    mask, _ = topk(mode, scores, count)
    assert mask.sum() == count
    np.testing.assert_array_equal(mask, reference.topk_mask(scores, count))


@every_mode
@properties
@hypothesis.given(case=scores_and_counts(counts=2))
def test_topk_mask_is_nested_in_the_count(mode, case):
    scores, *counts = case
    fewer, more = (topk(mode, scores, count)[0] for count in sorted(counts))
    assert np.all(fewer <= more)


@every_mode
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


@every_mode
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


@every_mode
@properties
@hypothesis.given(case=scores_and_counts())
def test_threshold_is_the_lowest_score_that_is_kept(mode, case):
    scores, count = case
    mask, threshold = topk(mode, scores, count)
    assert threshold == reference.threshold(scores, mask)
    assert np.all(mask[scores > threshold])
    assert not np.any(mask[scores < threshold])


@every_mode
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


@every_mode
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


# ---- kept_count


def kept_count(mode, size, sparsity, dtype=tf.float64):
    count = MODES[mode](lambda value: masks.kept_count(size, value))(tf.constant(sparsity, dtype))
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


# ---- straight_through and apply_mask


def value_and_gradients(kernel, scores, mask, upstream):
    with tf.GradientTape() as tape:
        tape.watch([kernel, scores])
        value = masks.straight_through(kernel, scores, mask)
    return value, *tape.gradient(value, [kernel, scores], output_gradients=upstream)


def as_arrays(tensors):
    return [tensor.numpy() for tensor in tensors]


@every_mode
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_straight_through(mode, dtype):
    random = np.random.default_rng(1)
    kernel, upstream = random.normal(size=(2, 4, 5)).astype(dtype)
    scores = random.normal(size=(4, 5)).astype(np.float32)
    mask = random.random((4, 5)) < 0.5
    assert 0 < mask.sum() < mask.size

    value, to_kernel, to_scores = as_arrays(
        MODES[mode](value_and_gradients)(*map(tf.constant, (kernel, scores, mask, upstream)))
    )
    assert (value.dtype, to_kernel.dtype, to_scores.dtype) == (dtype, dtype, np.float32)
    np.testing.assert_array_equal(value, np.where(mask, kernel, 0))
    np.testing.assert_array_equal(to_kernel, np.where(mask, upstream, 0))
    np.testing.assert_array_equal(to_scores, upstream.astype("f4") * kernel.astype("f4"))


@every_mode
def test_gradient_of_the_scores_does_not_overflow_in_float16(mode):
    kernel, upstream = np.array([[300.0, 1e-4], [-400.0, 1e-4]], np.float16)
    _, _, to_scores = as_arrays(
        MODES[mode](value_and_gradients)(
            tf.constant(kernel), tf.zeros([2]), tf.constant([True, False]), tf.constant(upstream)
        )
    )
    np.testing.assert_array_equal(to_scores, kernel.astype("f4") * upstream.astype("f4"))
    assert np.all(np.isfinite(to_scores)) and np.all(to_scores != 0)


@every_mode
def test_masked_entries_are_zero_whatever_they_hold(mode):
    bad = np.array([np.nan, np.inf, -np.inf, -1.0, 2.0], np.float32)
    mask = np.array([False, False, False, False, True])
    value, to_kernel, _ = as_arrays(
        MODES[mode](value_and_gradients)(*map(tf.constant, (bad, np.zeros(5, "f4"), mask, bad)))
    )
    for array in (value, to_kernel):
        np.testing.assert_array_equal(array, [0, 0, 0, 0, 2])
        assert not np.any(np.signbit(array))


@every_mode
def test_scores_do_not_change_the_value(mode):
    kernel, mask = tf.constant([1.0, -2.0, 3.0]), tf.constant([True, True, False])
    function = MODES[mode](value_and_gradients)
    for scores in ([0.0, 0.0, 0.0], [np.nan, np.inf, -5.0]):
        value, _, to_scores = as_arrays(function(kernel, tf.constant(scores), mask, tf.ones([3])))
        assert value.tolist() == [1, -2, 0]
        assert to_scores.tolist() == [1, -2, 3]


@every_mode
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_apply_mask(mode, dtype):
    values = np.array([[1.5, -2.5, np.nan], [np.inf, 0.0, -4.0]], dtype)
    mask = np.array([[True, False, False], [False, True, True]])
    masked = MODES[mode](masks.apply_mask)(tf.constant(values), tf.constant(mask)).numpy()
    assert masked.dtype == dtype
    np.testing.assert_array_equal(masked, np.array([[1.5, 0, 0], [0, 0, -4]], dtype))
    assert not np.any(np.signbit(masked[~mask]))


# ---- blocks

BLOCKS = [((6, 8), (1, 1)), ((6, 8), (3, 1)), ((6, 8), (1, 4)), ((6, 8), (2, 4)), ((6, 8), (6, 8))]


def expanded(blocks, block_size):
    return np.kron(blocks, np.ones(block_size, blocks.dtype))


@pytest.mark.parametrize(
    "shape, block_size, expected",
    [
        ((6, 8), (1, 1), (6, 8)),
        ((3, 3, 4, 8), (1, 1), (3, 3, 4, 8)),
        ((5,), (1, 1), (5,)),
        ((6, 8), (2, 4), (3, 2)),
        ((6, 8), (6, 1), (1, 8)),
        ((6, 8), (1, 8), (6, 1)),
    ],
)
def test_block_shape(shape, block_size, expected):
    assert masks.block_shape(shape, block_size) == expected
    assert masks.block_shape(tf.TensorShape(shape), block_size) == expected


@pytest.mark.parametrize(
    "shape, block_size",
    [((6, 8), (4, 1)), ((6, 8), (1, 3)), ((6, 8), (12, 8)), ((2, 6, 8), (2, 2))],
)
def test_block_shape_names_what_does_not_fit(shape, block_size):
    message = (
        rf"block_size \({block_size[0]}, {block_size[1]}\) must divide the kernel's rows and "
        rf"columns, but the kernel has shape \({', '.join(map(str, shape))}\)\. Use a divisor, or "
        r"\(1, 1\)\."
    )
    with pytest.raises(ValueError, match=message):
        masks.block_shape(shape, block_size)


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_expand_blocks_and_its_gradient(mode, shape, block_size):
    random = np.random.default_rng(2)
    blocks = random.normal(size=masks.block_shape(shape, block_size)).astype(np.float32)
    upstream = random.integers(-9, 10, shape).astype(np.float32)  # sums are exact

    def value_and_gradient(blocks, upstream):
        with tf.GradientTape() as tape:
            tape.watch(blocks)
            value = masks.expand_blocks(blocks, block_size)
        return value, tape.gradient(value, blocks, output_gradients=upstream)

    value, gradient = as_arrays(
        MODES[mode](value_and_gradient)(tf.constant(blocks), tf.constant(upstream))
    )
    np.testing.assert_array_equal(value, expanded(blocks, block_size))
    sums = np.array(
        [
            [
                upstream[i : i + block_size[0], j : j + block_size[1]].sum()
                for j in range(0, shape[1], block_size[1])
            ]
            for i in range(0, shape[0], block_size[0])
        ]
    )
    np.testing.assert_array_equal(gradient, sums)


def test_expand_blocks_of_a_mask():
    blocks = tf.constant([[True, False], [False, True]])
    mask = masks.expand_blocks(blocks, (1, 2))
    assert mask.numpy().tolist() == [[True, True, False, False], [False, False, True, True]]


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_mean_blocks(mode, shape, block_size):
    blocks = np.random.default_rng(3).normal(size=masks.block_shape(shape, block_size))
    ramp = np.arange(block_size[0] * block_size[1]).reshape(block_size)
    values = expanded(blocks, block_size) + np.kron(np.ones(blocks.shape), ramp - ramp.mean())
    means = MODES[mode](lambda values: masks.mean_blocks(values, block_size))(
        tf.constant(values, tf.float32)
    )
    assert means.dtype == tf.float32
    np.testing.assert_allclose(means, blocks, atol=1e-5)


def test_mean_blocks_of_any_rank_without_blocks():
    values = tf.reshape(tf.range(24.0), [2, 3, 4])
    np.testing.assert_array_equal(masks.mean_blocks(values, (1, 1)), values)
    np.testing.assert_array_equal(masks.expand_blocks(values, (1, 1)), values)
