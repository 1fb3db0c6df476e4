"""Comparison of a file's outputs with its model's."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_movprune.core.inference import Example, Inference
from tf_movprune.export.export_report import ExportReport, largest_difference

PATH = pathlib.Path("file")


def compared(expected, outputs, atol=None, again=None):
    again = expected if again is None else again
    inference = Inference("net", [], lambda: {"y": tf.constant(again)}, [])
    example = Example({}, {"y": np.asarray(expected)})
    return largest_difference(PATH, inference, example, outputs, 1e-4, atol)


@pytest.mark.parametrize(
    ("expected", "output", "difference"),
    [
        ([1.0, -2.0], [1.0, -2.0], 0.0),
        ([1.0, 1000.0], [1.0, 1000.0625], 0.0625),  # of the largest output
        ([-np.inf, np.inf], [-np.inf, np.inf], 0.0),
        ([-np.inf, 1.0], [np.finfo(np.float32).min, 1.0], 0.0),  # which the converter makes of it
        ([True, False], [True, False], 0.0),
        ([1j, 2.0], [1j, 2.0], 0.0),
        (np.zeros([2, 0]), np.zeros([2, 0]), 0.0),
        (["a", "b"], np.array([b"a", b"b"], object).astype(str), 0.0),
    ],
)
def test_outputs_that_pass(expected, output, difference):
    assert compared(expected, {"y": output}) == difference


@pytest.mark.parametrize(
    ("expected", "outputs", "message"),
    [
        ([1.0], {"y": [1.1]}, "'y' would differ .* up to 0.1, .* raise atol"),
        ([1.0], {"y": [np.nan]}, "up to nan"),
        ([np.nan], {"y": [np.nan]}, "up to nan"),
        ([np.inf, 1.0], {"y": [np.inf, 2.0]}, "up to 1, and at most 0.0001"),
        ([np.inf, 1.0], {"y": [-np.inf, 1.0]}, "up to 6.81e[+]38"),
        ([1j], {"y": [2j]}, "up to 1,"),
        ([True], {"y": [False]}, "up to 1,"),
        (["a"], {"y": ["b"]}, "up to inf"),
        ([[1.0], [1.0]], {"y": [1.0]}, r"of shape \(1,\), and .* \(2, 1\)\. Fixed sizes may help"),
        ([1.0], {"z": [1.0]}, r"its outputs would be \['z'\], and .* \['y'\]"),
        ([1.0], {}, r"its outputs would be \[\]"),
    ],
)
def test_outputs_that_do_not_pass(expected, outputs, message):
    with pytest.raises(RuntimeError, match=f"^file was not written: .*{message}"):
        compared(expected, outputs)


def test_models_that_are_not_deterministic():
    with pytest.raises(RuntimeError, match="own outputs differ as much from call to call"):
        compared([1.0], {"y": [2.0]}, again=[3.0])
    assert compared([1.0], {"y": [2.0]}, atol=1.0) == 1.0


@pytest.mark.parametrize("total, words", [(1, "1 of 1 head removed"), (4, "1 of 4 heads removed")])
def test_what_was_removed_is_counted(total, words):
    shapes = {"x": (1,)}
    report = ExportReport(PATH, 10, 5, shapes, shapes, None, removed={"heads": (1, total)})
    assert f"; {words}; " in str(report)
