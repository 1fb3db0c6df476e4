"""Rows of different lengths in one array."""

import numpy as np

from tf_movprune.tasks.rows import Rows

EMPTY = np.zeros(0, np.int32)


def test_rows_are_what_they_were_made_of():
    arrays = [np.arange(3), np.arange(0), np.arange(5)]
    rows = Rows.of(arrays, EMPTY)
    assert len(rows) == 3 and rows.values.dtype == np.int32 and rows.lengths.tolist() == [3, 0, 5]
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(rows[i], array)


def test_no_rows():
    rows = Rows.of([], np.zeros([0, 2], np.int32))
    assert len(rows) == 0 and rows.values.shape == (0, 2)


def test_padded_rows():
    rows = Rows.of([np.array([1, 2, 3]), EMPTY, np.array([4])], EMPTY)
    found = rows.padded(np.array([2, 0, 1]), 4, padding=9)
    assert found.tolist() == [[4, 9, 9, 9], [1, 2, 3, 9], [9, 9, 9, 9]]
    assert found.dtype == np.int32
