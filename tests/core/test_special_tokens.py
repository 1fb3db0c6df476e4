"""Special tokens around sequences, as BERT and RoBERTa have them."""

import numpy as np
import pytest

from tf_movprune.core.special_tokens import SpecialTokens

BERT = SpecialTokens((101,), (102,), (102,), second_segment=1)
ROBERTA = SpecialTokens((0,), (2, 2), (2,), split=2)
A, B = np.array([7, 8], np.int32), np.array([9], np.int32)


def test_one_sequence():
    ids, segments = BERT.joined(A)
    assert ids.tolist() == [101, 7, 8, 102] and segments.tolist() == [0, 0, 0, 0]
    assert ids.dtype == segments.dtype == np.int32 and BERT.count(pair=False) == 2


def test_two_sequences():
    ids, segments = BERT.joined(A, B)
    assert ids.tolist() == [101, 7, 8, 102, 9, 102] and segments.tolist() == [0, 0, 0, 0, 1, 1]
    assert BERT.count(pair=True) == 3
    ids, segments = ROBERTA.joined(A, B)
    assert ids.tolist() == [0, 7, 8, 2, 2, 9, 2] and not segments.any()
    assert ROBERTA.count(pair=True) == 4


def test_empty_sequences():
    ids, segments = BERT.joined(A[:0], B[:0])
    assert ids.tolist() == [101, 102, 102] and segments.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "expected, join, segments",
    [
        (
            BERT,
            lambda a, b: [101, *a, 102, *b, 102],
            lambda a, b: [0] * (len(a) + 2) + [1] * (len(b) + 1),
        ),
        (ROBERTA, lambda a, b: [0, *a, 2, 2, *b, 2], lambda a, b: [0] * (len(a) + len(b) + 4)),
    ],
)
def test_found_by_what_a_tokenizer_does(expected, join, segments):
    assert SpecialTokens.of_function(join, segments) == expected
