"""Mask churn over several calls."""

import numpy as np
import pytest
from records import matrix

from tf_movprune.core.mask_churn import MaskChurn


def test_churn_since_the_last_call():
    one, other = matrix(2, 4), matrix(3, 4)
    churn = MaskChurn([one, other])
    assert churn.since_last() == 0
    mask = np.ones([2, 4], bool)
    mask[0] = False
    one.mask.assign(mask)
    assert churn.since_last() == pytest.approx(4 / 20)
    assert churn.since_last() == 0
    one.mask.assign(~mask)
    other.mask.assign(np.zeros([3, 4], bool))
    assert churn.since_last() == 1
