"""Rows on what remains of each weight, and the names of groups."""

import numpy as np
import pytest
from records import CUBIC, kernel_of, matrix, weight

import tf_movprune
from tf_movprune.core.granularity import HEADS, NEURONS
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.remaining import group_names, remaining_rows, zero_rows


def keep(kernel, count):
    kernel.mask.assign(np.arange(kernel.size).reshape(kernel.mask.shape) < count)
    return kernel


def weight_of(kernel):
    return kernel.parts[0].weight


def test_rows_of_layers_with_one_kernel_and_with_several():
    query, key, dense = keep(matrix(4, 4), 3), keep(matrix(4, 4), 16), keep(matrix(4, 2), 0)
    rows = remaining_rows(
        {
            "attention": (
                [query, key],
                [("query.kernel", weight_of(query)), ("key.kernel", weight_of(key))],
            ),
            "a/dense": ([dense], [("kernel", weight_of(dense))]),
        }
    )
    group = "HardMovement to sparsity 0.75"
    assert rows == [
        ("attention.query.kernel", (4, 4), 3, group),
        ("attention.key.kernel", (4, 4), 16, group),
        ("a/dense.kernel", (4, 2), 0, group),
    ]


def test_weights_that_nothing_masks_remain_whole():
    kernel = keep(matrix(4, 4), 5)
    ((_, shape, count, _),) = remaining_rows({"first": ([kernel], [("other", weight(3, 2))])})
    assert (shape, count) == ((3, 2), 6)


def test_weights_of_units_remain_with_their_units():
    """Two of three heads remain, of two columns each; biases are in no row."""
    query, output = weight(5, 6), weight(6, 5)
    parts = [Part(query, 1), Part(weight(6), 0, is_bias=True), Part(output, 0)]
    heads = keep(kernel_of(parts, (3,), block_size=HEADS), 2)
    rows = remaining_rows(
        {"query": ([heads], [("kernel", query)]), "output": ([heads], [("kernel", output)])}
    )
    group = "HardMovement to sparsity 0.75 of heads"
    assert rows == [("query.kernel", (5, 6), 20, group), ("output.kernel", (6, 5), 20, group)]


@pytest.mark.parametrize(
    "zeros, is_default, is_listed", [(1, False, False), (2, False, True), (0, True, True)]
)
def test_weights_of_plain_models_are_listed_if_they_could_be_pruned_ones(
    zeros, is_default, is_listed
):
    """The row of a padding token is not taken for pruning."""
    kernel = (np.arange(128).reshape(32, 4) >= zeros).astype("float32")
    weights = [("kernel", kernel), ("other", np.ones([2, 3]))]
    rows = zero_rows([("dense", is_default, weights)])
    listed = [("dense.kernel", (32, 4), 128 - zeros, "zeros"), ("dense.other", (2, 3), 6, "zeros")]
    assert rows == (listed if is_listed else [])


@pytest.mark.parametrize(
    "method, schedule, block_size, name",
    [
        (None, CUBIC, (1, 1), "HardMovement to sparsity 0.75"),
        (None, CUBIC, (2, 4), "HardMovement to sparsity 0.75 of blocks of 2 x 4"),
        (None, CUBIC, NEURONS, "HardMovement to sparsity 0.75 of neurons"),
        (tf_movprune.L0(), None, (1, 1), "L0"),
        (tf_movprune.KeepZeros(), None, NEURONS, "KeepZeros of neurons"),
        (
            tf_movprune.SoftMovement(1.0),
            tf_movprune.CubicThreshold(0.1, 0, 4),
            (1, 1),
            "SoftMovement to threshold 0.1",
        ),
    ],
)
def test_name_of_a_group(method, schedule, block_size, name):
    kernel = matrix(4, 8, method=method, schedule=schedule, block_size=block_size)
    assert group_names([kernel]) == {id(kernel): name}


def test_groups_that_differ_in_other_things_are_numbered():
    schedules = [tf_movprune.CubicSparsity(0.75, 0, end) for end in (4, 5, 6, 4)]
    kernels = [matrix(4, 4, schedule=schedule) for schedule in schedules]
    name = "HardMovement to sparsity 0.75"
    names = group_names(kernels)
    assert [names[id(k)] for k in kernels] == [name, f"{name} (2)", f"{name} (3)", name]
