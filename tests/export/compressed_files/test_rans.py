"""Codes by frequencies, and those that somebody made up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_movprune.export.compressed_files import rans


def again(symbols):
    return rans.decode(rans.encode(symbols), symbols.size)


@given(
    st.integers(1, 9000),
    st.sampled_from([1, 2, 3, 17, 255, 256]),
    st.floats(0, 8),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_symbols_come_back(size, values, skew, seed):
    random = np.random.RandomState(seed)
    symbols = (values * random.uniform(size=size) ** (1 + skew)).astype(np.uint8)
    np.testing.assert_array_equal(again(symbols), symbols)


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 2048, 2049, 100_000])
def test_every_number_of_states(size):
    random = np.random.RandomState(size)
    for symbols in (
        np.zeros(size, np.uint8),
        np.full(size, 255, np.uint8),
        random.randint(0, 256, size).astype(np.uint8),
        (random.uniform(size=size) < 1e-3).astype(np.uint8),
    ):
        assert rans.encode(symbols).states.size == rans.states_of(size) == -(-size // 1024)
        np.testing.assert_array_equal(again(symbols), symbols)


@pytest.mark.parametrize("deviation", [0.3, 3, 30])
def test_size_is_near_the_entropy(deviation):
    random = np.random.RandomState(0)
    symbols = np.rint(random.normal(0, deviation, 500_000)).astype(np.int8).view(np.uint8)
    _, states, words = rans.encode(symbols)
    p = np.unique(symbols, return_counts=True)[1] / symbols.size
    entropy = -symbols.size * (p * np.log2(p)).sum() / 8
    assert rans.entropy_bytes(symbols) == pytest.approx(entropy)
    assert entropy < states.nbytes + words.nbytes <= 1.005 * entropy + 4 * states.size


def test_a_code_by_hand():
    """Two values of the same frequency: each symbol is a bit of the state."""
    code = rans.encode(np.array([5, 9, 9, 5], np.uint8))
    assert code.words.size == 0 and code.levels[[5, 9]].tolist() == [rans.LEVELS] * 2
    # x → 2 x + bit of a block of 2**14, from 2**16: blocks of 2**13 for each value.
    x = 1 << 16
    for start in (0, 8192, 8192, 0):
        x = (x // 8192) * 16384 + x % 8192 + start
    assert code.states.tolist() == [x]


def crafted(**changes):
    random = np.random.RandomState(0)
    return rans.encode(random.binomial(9, 0.3, 5000).astype(np.uint8))._replace(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"levels": np.zeros(256, np.uint8)}, "Expected levels up to 64, and not only 0"),
        ({"levels": np.full(256, 65, np.uint8)}, "Expected levels up to 64"),
        ({"states": np.uint32([1 << 16] * 4 + [0xFFFF])}, "at least 65536, got 65535"),
        ({"words": np.zeros(3, np.uint16)}, "Expected more than 3 words"),
        ({"words": np.zeros(5000, np.uint16)}, "Expected a code that ends where it began"),
        ({"states": np.full(5, 1 << 20, np.uint32)}, "Expected "),
        ({"levels": np.full(256, 1, np.uint8)}, "Expected "),
    ],
)
def test_codes_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rans.decode(crafted(**changes), 5000)
