"""What TensorBoard is shown of records of masked kernels."""

import sys

import numpy as np
import pytest
from records import kernel_of, matrix, weight

from tf_movprune.core.granularity import HEADS, NEURONS
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.summaries import Summaries, named_kernels, summary_values


def first(count, size=16):
    return (np.arange(size) < count).reshape(-1, 4)


def test_kernels_of_a_layer_are_named_apart():
    one, other = matrix(4, 4), matrix(4, 4)
    units = [
        kernel_of([Part(weight(4, 4), 1)], (4,), block_size=block_size)
        for block_size in (HEADS, NEURONS)
    ]
    assert named_kernels([one], ["kernel"]) == [("", one)]
    names = ["query.kernel", "key.kernel"]
    assert named_kernels([one, other], names) == [(".query.kernel", one), (".key.kernel", other)]
    assert named_kernels(units[:1], names) == [(".heads", units[0])]
    assert named_kernels(units, ["kernel"]) == [(".heads", units[0]), (".neurons", units[1])]


def test_values_of_all_layers_and_of_each():
    query, key, dense = matrix(4, 4), matrix(4, 4), matrix(8, 4)
    for kernel, count, threshold in ((query, 4, 0.5), (key, 8, 0.25), (dense, 32, -1.0)):
        kernel.mask.assign(first(count, kernel.size))
        kernel.threshold.assign(threshold)
    layers = {"attention": [(".query", query), (".key", key)], "dense": [("", dense)]}
    before = {"attention": [first(16), first(16)], "dense": [first(30, 32)]}
    after = {"attention": [first(4), first(8)], "dense": [first(32, 32)]}
    values = {tag: float(value) for tag, value in summary_values(layers, before, after).items()}
    assert values == {
        "sparsity/attention": 20 / 32,
        "churn/attention": 20 / 32,
        "threshold/attention.query": 0.5,
        "threshold/attention.key": 0.25,
        "sparsity/dense": 0.0,
        "churn/dense": 2 / 32,
        "threshold/dense": -1.0,
        "sparsity": 20 / 64,
        "churn": 22 / 64,
    }


class Watched(Summaries):
    """Keeps what it would write."""

    def __init__(self, *args):
        super().__init__(*args)
        self.steps = []

    def write(self, step):
        self.steps.append(step)


@pytest.fixture
def tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", sys)


@pytest.mark.parametrize(
    "update_freq, written",
    [(1, [2, 4, 9, 10, 10]), (4, [4, 9, 10]), (5, [9, 10, 10]), ("epoch", [10])],
)
def test_steps_at_which_values_are_written(tmp_path, tensorboard, update_freq, written):
    """Of executions of several steps, those that reach or pass a multiple, and the end."""
    summaries = Watched(str(tmp_path), update_freq)
    assert not summaries.has_begun
    summaries.begin({"first": [("", matrix(4, 4))]}, 1)
    assert summaries.has_begun
    for step in (2, 4, 9, 10):
        summaries.end_step(step)
    summaries.end(10)
    assert summaries.steps == written


@pytest.mark.parametrize(
    "update_freq, error, message",
    [
        (0, ValueError, "update_freq must be at least 1, got 0"),
        ("batch", ValueError, "update_freq must be \"epoch\" or a number of steps, got 'batch'"),
        (2.5, TypeError, r"update_freq must be an integer such as 100, got 2\.5"),
    ],
)
def test_update_freq_out_of_range(tmp_path, tensorboard, update_freq, error, message):
    with pytest.raises(error, match=message):
        Summaries(str(tmp_path), update_freq)


def test_tensorboard_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs TensorBoard.*pip install tensorboard"):
        Summaries(str(tmp_path), "epoch")
