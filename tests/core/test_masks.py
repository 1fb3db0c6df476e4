"""Counts, masks, gates and blocks, with their gradients."""

import functools

import hypothesis
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import strategies as st
from modes import MODES, compiled, every_mode

import tf_movprune
from tf_movprune.core import masks
from tf_movprune.core.blocks import block_shape, expand_blocks, mean_blocks
from tf_movprune.core.hard_concrete import GATE_THRESHOLD, hard_concrete_gate, open_gate_probability
from tf_movprune.core.scores import ScoreUnits
from tf_movprune.core.straight_through import apply_mask, straight_through

properties = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)


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


# ---- straight_through and apply_mask


def value_and_gradients(kernel, scores, mask, upstream):
    with tf.GradientTape() as tape:
        tape.watch([kernel, scores])
        value = straight_through(kernel, scores, mask)
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
        compiled(mode, value_and_gradients)(*map(tf.constant, (kernel, scores, mask, upstream)))
    )
    assert (value.dtype, to_kernel.dtype, to_scores.dtype) == (dtype, dtype, np.float32)
    np.testing.assert_array_equal(value, np.where(mask, kernel, 0))
    np.testing.assert_array_equal(to_kernel, np.where(mask, upstream, 0))
    np.testing.assert_array_equal(to_scores, upstream.astype("f4") * kernel.astype("f4"))


@every_mode
def test_gradient_of_the_scores_does_not_overflow_in_float16(mode):
    kernel, upstream = np.array([[300.0, 1e-4], [-400.0, 1e-4]], np.float16)
    _, _, to_scores = as_arrays(
        compiled(mode, value_and_gradients)(
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
        compiled(mode, value_and_gradients)(*map(tf.constant, (bad, np.zeros(5, "f4"), mask, bad)))
    )
    for array in (value, to_kernel):
        np.testing.assert_array_equal(array, [0, 0, 0, 0, 2])
        assert not np.any(np.signbit(array))


@every_mode
def test_scores_do_not_change_the_value(mode):
    kernel, mask = tf.constant([1.0, -2.0, 3.0]), tf.constant([True, True, False])
    function = compiled(mode, value_and_gradients)
    for scores in ([0.0, 0.0, 0.0], [np.nan, np.inf, -5.0]):
        value, _, to_scores = as_arrays(function(kernel, tf.constant(scores), mask, tf.ones([3])))
        assert value.tolist() == [1, -2, 0]
        assert to_scores.tolist() == [1, -2, 3]


@every_mode
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_apply_mask(mode, dtype):
    values = np.array([[1.5, -2.5, np.nan], [np.inf, 0.0, -4.0]], dtype)
    mask = np.array([[True, False, False], [False, True, True]])
    masked = compiled(mode, apply_mask)(tf.constant(values), tf.constant(mask)).numpy()
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
    assert block_shape(shape, block_size) == expected
    assert block_shape(tf.TensorShape(shape), block_size) == expected


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
        block_shape(shape, block_size)


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_expand_blocks_and_its_gradient(mode, shape, block_size):
    random = np.random.default_rng(2)
    blocks = random.normal(size=block_shape(shape, block_size)).astype(np.float32)
    upstream = random.integers(-9, 10, shape).astype(np.float32)  # sums are exact

    def value_and_gradient(blocks, upstream):
        with tf.GradientTape() as tape:
            tape.watch(blocks)
            value = expand_blocks(blocks, block_size)
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
    mask = expand_blocks(blocks, (1, 2))
    assert mask.numpy().tolist() == [[True, True, False, False], [False, False, True, True]]


@every_mode
@pytest.mark.parametrize("shape, block_size", BLOCKS)
def test_mean_blocks(mode, shape, block_size):
    blocks = np.random.default_rng(3).normal(size=block_shape(shape, block_size))
    ramp = np.arange(block_size[0] * block_size[1]).reshape(block_size)
    values = expanded(blocks, block_size) + np.kron(np.ones(blocks.shape), ramp - ramp.mean())
    means = MODES[mode](lambda values: mean_blocks(values, block_size))(
        tf.constant(values, tf.float32)
    )
    assert means.dtype == tf.float32
    np.testing.assert_allclose(means, blocks, atol=1e-5)


def test_mean_blocks_of_any_rank_without_blocks():
    values = tf.reshape(tf.range(24.0), [2, 3, 4])
    np.testing.assert_array_equal(mean_blocks(values, (1, 1)), values)
    np.testing.assert_array_equal(expand_blocks(values, (1, 1)), values)


# ---- the threshold of soft movement


@every_mode
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9])
def test_threshold_mask(mode, threshold):
    scores = np.random.default_rng(1).normal(0, 2, [20, 30]).astype(np.float32)
    mask = compiled(mode, masks.threshold_mask)(tf.constant(scores), tf.constant(threshold), 4)
    np.testing.assert_array_equal(mask, reference.soft_mask(scores, threshold))
    assert 4 < np.sum(mask) <= 600


@every_mode
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


# ---- hard concrete gates


@every_mode
def test_gates_and_their_gradient(mode):
    scores = np.linspace(-6, 6, 41).astype(np.float32)

    def gate_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            gate = hard_concrete_gate(x)
        return gate, tape.gradient(gate, x)

    gate, gradient = MODES[mode](gate_and_gradient)(tf.constant(scores))
    np.testing.assert_allclose(gate, reference.hard_concrete_gate(scores), atol=1e-6)
    inside = (gate.numpy() > 0) & (gate.numpy() < 1)
    s = reference.sigmoid(scores.astype(np.float64))
    np.testing.assert_allclose(gradient, np.where(inside, 1.2 * s * (1 - s), 0), atol=1e-6)
    assert np.any(gate == 0) and np.any(gate == 1)
    np.testing.assert_array_equal(gate > 0, scores > GATE_THRESHOLD)


@every_mode
def test_noise_of_gates_depends_on_the_seed_alone(mode):
    scores = tf.linspace(-3.0, 3.0, 1000)

    @MODES[mode]
    def gate_and_uniform(seed):
        uniform = tf.random.stateless_uniform([1000], seed, alg="philox")
        return hard_concrete_gate(scores, seed), uniform

    gate, uniform = gate_and_uniform(tf.constant([3, 4]))
    expected = reference.hard_concrete_gate(scores.numpy(), uniform.numpy())
    np.testing.assert_allclose(gate, expected, atol=2e-6)
    other, _ = gate_and_uniform(tf.constant([4, 4]))
    assert np.mean(np.abs(gate - other)) > 0.1


def test_probability_that_a_gate_is_open():
    scores = tf.constant([-4.0, -1.0, 0.0, 2.197])
    expected = 1 / (1 + np.exp(-(scores.numpy() - 2 / 3 * np.log(0.1 / 1.1))))
    np.testing.assert_allclose(open_gate_probability(scores), expected, rtol=1e-6)
    drawn = [
        np.mean(hard_concrete_gate(tf.fill([20000], x), tf.constant([1, 2])) > 0)
        for x in scores.numpy()
    ]
    np.testing.assert_allclose(drawn, expected, atol=0.02)


@every_mode
def test_scaled_scores_hand_their_gradient_on_unscaled(mode):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            scaled = ScoreUnits(3.0).to_scores(x)
            loss = tf.reduce_sum(scaled**2)
        return scaled, tape.gradient(loss, x)

    scaled, grad = MODES[mode](gradient)(tf.constant([1.0, -2.0]))
    np.testing.assert_array_equal(scaled, [3.0, -6.0])
    np.testing.assert_array_equal(grad, [6.0, -12.0])
