"""Masks that are the zeros of weights, on records of kernels."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES, every_mode
from records import CUBIC, weight

import tf_movprune
from tf_movprune.core import kept_zeros, run_checks
from tf_movprune.core.counting import is_zero
from tf_movprune.core.granularity import NEURONS
from tf_movprune.core.masked_kernel import MaskedKernel, Part
from tf_movprune.core.matrix_layout import MatrixLayout
from tf_movprune.core.once_sparse import check_schedules_end, has_reached_target
from tf_movprune.core.refresh import refresh_masks
from tf_movprune.core.schedules import EveryStep, FixedMasks
from tf_movprune.core.settings import Settings
from tf_movprune.core.summaries import summary_values


def kept(parts, shape, method=None, **settings):
    """The record of a kernel as a shell makes it."""
    settings = Settings(method=method or tf_movprune.KeepZeros(), **settings)
    first = kept_zeros.start_of_mask(settings, parts)
    return MaskedKernel(
        settings,
        parts,
        mask=tf.Variable(first(shape, tf.bool)),
        threshold=tf.Variable(kept_zeros.first_threshold(settings), dtype=tf.float32),
    )


def sparse(*shape, zeros):
    """A weight with zeros at the given places."""
    values = weight(*shape).numpy()
    for place in zeros:
        values[place] = 0
    return tf.Variable(values)


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- masks


@every_mode
def test_zeros_are_told_from_the_smallest_numbers(mode):
    values = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-39, 1e-30, 1, -np.inf, np.nan], np.float32)
    found = MODES[mode](is_zero)(tf.constant(values))
    assert found.numpy().tolist() == [True] * 2 + [False] * 7


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_zeros_of_any_precision(dtype):
    values = np.array([[0, 6e-8], [-0.0, 1.0]], np.float32)
    kernel = kept([Part(tf.Variable(tf.cast(values, dtype)))], (2, 2))
    np.testing.assert_array_equal(kernel.mask, values != 0)


def test_blocks_are_masked_if_all_is_zero():
    places = [(slice(0, 2), slice(0, 2)), (0, 2), (slice(2, 4), slice(4, 6))]
    kernel = kept([Part(sparse(4, 6, zeros=places))], (2, 3), block_size=(2, 2))
    assert kernel.mask.numpy().tolist() == [[False, True, True], [True, True, False]]
    assert kernel.threshold.numpy() == 1.0


def test_blocks_of_the_matrix_that_a_layer_multiplies_with():
    layout = MatrixLayout((1,), (0, 2))
    kernel = sparse(2, 4, 3, zeros=[(1, slice(0, 2))])  # columns 3 to 5, rows 0 and 1
    found = kept([Part(kernel, layout=layout)], (2, 2), block_size=(2, 3))
    assert found.mask.numpy().tolist() == [[True, False], [True, True]]


def neurons(biases=(0.5, 0.0, 0.0), first=(slice(None), 1), second=(1,)):
    """Three neurons, of which one is all zero unless it is said otherwise."""
    parts = [
        Part(sparse(4, 3, zeros=[first]), 1),
        Part(tf.Variable(np.float32(biases)), 0, is_bias=True),
        Part(sparse(3, 5, zeros=[second]), 0),
    ]
    return kept(parts, (3,), block_size=NEURONS)


@pytest.mark.parametrize(
    "changes, mask",
    [
        ({}, [True, False, True]),
        ({"biases": (0.0, 1e-40, 0.0)}, [True, True, True]),
        ({"second": (1, slice(4))}, [True, True, True]),
        ({"first": (slice(3), 1)}, [True, True, True]),
    ],
)
def test_neurons_are_masked_if_all_their_weights_and_biases_are_zero(changes, mask):
    assert neurons(**changes).mask.numpy().tolist() == mask


def test_masks_of_other_methods_begin_with_all():
    kernel = kept([Part(sparse(2, 2, zeros=[0]))], (2, 2), tf_movprune.Magnitude(), schedule=CUBIC)
    assert np.all(kernel.mask) and kernel.threshold == -np.inf


@pytest.mark.parametrize("in_graph", [False, True])
def test_masks_are_never_refreshed(in_graph, monkeypatch):
    kernel = kept([Part(sparse(4, 4, zeros=[0]))], (4, 4))
    kernel.parts[0].weight.assign(tf.reverse(kernel.parts[0].weight, [0]))
    before = kernel.mask.numpy()
    monkeypatch.delattr(tf_movprune.KeepZeros, "select")  # nothing of it is in the graph either
    refresh = tf.function(refresh_masks) if in_graph else refresh_masks
    for step in (0, 1, 9):
        step = tf.constant(step, tf.int64)
        assert not refresh([kernel], step, force=True)
        assert not refresh([kernel], step, window=3)
    np.testing.assert_array_equal(kernel.mask, before)


def test_methods_and_schedules_go_together():
    with pytest.raises(ValueError, match=r"KeepZeros takes no schedule, got .* EveryStep"):
        Settings(EveryStep(), tf_movprune.KeepZeros())
    with pytest.raises(ValueError, match="L0 takes no schedule, got L0 with FixedMasks"):
        Settings(FixedMasks(), tf_movprune.L0())


def test_masked_weights_get_no_gradient():
    kernel = kept([Part(sparse(4, 4, zeros=[(0, 1), 2]))], (4, 4))
    (part,) = kernel.parts
    with tf.GradientTape() as tape:
        masked = kernel.masked(part, tf.convert_to_tensor(part.weight), training=True)
        loss = tf.reduce_sum(3 * masked)
    np.testing.assert_array_equal(tape.gradient(loss, part.weight), np.where(kernel.mask, 3, 0))


# ---- checks


def layers(*members):
    return {
        f"layer_{i}": ([kernel], [("kernel", part.weight) for part in kernel.parts])
        for i, kernel in enumerate(members)
    }


def test_zeros_that_are_all_kept(no_warnings):
    dense = kept([Part(weight(4, 4))], (4, 4))
    scattered = kept([Part(sparse(4, 4, zeros=[(0, 1), (3, 2)]))], (4, 4))
    nothing = kept([Part(sparse(4, 4, zeros=[slice(4)]))], (2, 2), block_size=(2, 2))
    kept_zeros.check_zeros(layers(dense, scattered, nothing, neurons()))
    kept_zeros.check_zeros({})


def test_nothing_is_zero():
    other = kept([Part(sparse(4, 4, zeros=[0]))], (4, 4), tf_movprune.Magnitude(), schedule=CUBIC)
    dense = kept([Part(weight(4, 6))], (4, 6))
    with pytest.raises(ValueError, match=r"^Nothing is zero in layer_1\.kernel \(4, 6\): KeepZ"):
        kept_zeros.check_zeros(layers(other, dense))
    kept_zeros.check_zeros(layers(other))


def test_zeros_that_would_come_back():
    good = kept([Part(sparse(4, 4, zeros=[(0, 1)]))], (4, 4))
    block = slice(0, 2), slice(0, 2)
    bad = kept([Part(sparse(4, 4, zeros=[block, (3, 2)]))], (2, 2), block_size=(2, 2))
    message = (
        r"^KeepZeros with block_size Blocks\(2, 2\) masks what is zero as a whole, and other zeros "
        r"would come back in training: 1 of layer_1\.kernel \(4, 4\)\. Leave block_size out"
    )
    with pytest.raises(ValueError, match=message):
        kept_zeros.check_zeros(layers(good, bad))
    with pytest.raises(ValueError, match=r"neurons|NEURONS.*: 1 of .*, 5 of .*kernel \(3, 5\)"):
        kept_zeros.check_zeros(layers(neurons(first=(0, 0))))


def test_zero_biases_of_others_are_no_zeros_to_keep():
    kept_zeros.check_zeros(layers(neurons(biases=(0.0, 0.0, 0.0))))


def test_a_zero_that_one_of_two_masks_keeps(no_warnings):
    """The second of two chains of neurons has columns of its own, and rows of the first."""
    shared = sparse(3, 2, zeros=[1])
    rows = kept([Part(sparse(4, 3, zeros=[(slice(None), 1)]), 1), Part(shared, 0)], (3,), **UNITS)
    columns = kept([Part(shared, 1), Part(weight(2, 2), 0)], (2,), **UNITS)
    assert rows.mask.numpy().tolist() == [True, False, True] and np.all(columns.mask)
    for pair in ((rows, columns), (columns, rows)):
        kept_zeros.check_zeros(layers(*pair))
    kept_zeros.warn_if_zeros_are_elsewhere({"a": [rows], "b": [rows, columns], "c": [columns]}, 0)
    with pytest.raises(ValueError, match=r"2 of layer_0\.kernel \(3, 2\)"):
        kept_zeros.check_zeros(layers(columns))


UNITS = {"block_size": NEURONS}


@pytest.mark.parametrize("count, warns", [(1, False), (2, True)])
def test_zeros_in_other_places_than_the_masks(count, warns):
    other = kept([Part(sparse(10, 16, zeros=[1]))], (10, 16))
    kernel = kept([Part(sparse(10, 16, zeros=[0]))], (10, 16))  # 144 remain
    values = kernel.parts[0].weight.numpy()
    values[9, :count] = 0
    kernel.parts[0].weight.assign(values)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept_zeros.warn_if_zeros_are_elsewhere({"a": [kernel], "b": [other]}, 1)
        assert not caught
        kept_zeros.warn_if_zeros_are_elsewhere({"a": [kernel], "b": [other]}, 0)
    assert [str(each.message)[:20] for each in caught] == ["Weights of a are zer"] * warns


def test_masks_without_zeros():
    dense = kept([Part(weight(4, 4))], (4, 4))
    other = kept([Part(weight(4, 4))], (4, 4), tf_movprune.Magnitude(), schedule=CUBIC)
    with pytest.raises(ValueError, match=r"masks of KeepZeros have no zeros: .* prune a sparse"):
        kept_zeros.check_anything_is_masked([dense, other])
    kept_zeros.check_anything_is_masked([other])
    kept_zeros.check_anything_is_masked([dense, kept([Part(sparse(2, 2, zeros=[0]))], (2, 2))])


def test_masks_are_as_they_should_be_from_the_start(no_warnings):
    """Also if nothing remains, or nothing is masked, beside others that were trained."""
    dense = kept([Part(weight(4, 4))], (2, 2), block_size=(2, 2))
    nothing = kept([Part(sparse(4, 4, zeros=[slice(4)]))], (4, 4))
    run_checks.warn_if_behind("model", {"a": [dense], "b": [nothing]})
    trained = kept([Part(weight(2, 2))], (2, 2), tf_movprune.Magnitude(), schedule=CUBIC)
    refresh_masks([trained], tf.constant(4, tf.int64))
    run_checks.warn_if_behind("model", {"a": [trained], "b": [nothing]})
    run_checks.warn_if_ahead([dense, nothing], 0)
    run_checks.check_schedule(nothing.settings.ramp, run_checks.Run(0, 1, "this run has 1 step"))
    assert run_checks.describe_ramp([nothing]).endswith("matrix. Sparsity is fixed: 1.00.")
    check_schedules_end([nothing])
    assert has_reached_target([nothing, dense], 0, 0.5)
    assert not has_reached_target([nothing, dense], 0, 0.51)


def test_masks_beside_others_that_were_never_refreshed():
    nothing = kept([Part(sparse(4, 4, zeros=[slice(4)]))], (4, 4))
    other = kept([Part(weight(4, 4))], (4, 4), tf_movprune.Magnitude(), schedule=CUBIC)
    with pytest.warns(UserWarning, match="never refreshed: stripping gives the model as it was"):
        run_checks.warn_if_behind("model", {"a": [nothing], "b": [other]})


def test_values_for_tensorboard():
    kernel = kept([Part(sparse(4, 4, zeros=[0]))], (4, 4))
    masks = {"a": [kernel.mask.numpy()]}
    values = summary_values({"a": [("", kernel)]}, masks, masks)
    assert {tag: float(value) for tag, value in values.items()} == {
        "sparsity/a": 0.25,
        "churn/a": 0.0,
        "threshold/a": 1.0,
        "sparsity": 0.25,
        "churn": 0.0,
    }
