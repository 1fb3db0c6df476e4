"""Weights as bytes: positions, rounded values, and how near they come to the bound."""

import numpy as np
import pytest
from exporting import QUANTIZATIONS, decoded, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_movprune.export.compressed_files import coding, decoding, streams

pytest.importorskip("zstandard")


def positions_again(positions):
    chunks = list(decoding.decode_positions(coding.encode_positions(positions)))
    assert all(chunk.dtype == np.int64 for chunk in chunks)
    return np.concatenate([[], *chunks])


@given(st.integers(0, 2000), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_positions_come_back(size, density, seed):
    positions = np.flatnonzero(np.random.RandomState(seed).uniform(size=size) < density)
    np.testing.assert_array_equal(positions_again(positions), positions)


@pytest.mark.parametrize(
    "positions",
    [
        [],
        [0],
        [254],
        [255],
        [256],
        [509, 510, 765],
        [2**31 - 1],
        [5, 2**31 + 7, 2**32 + 1],
        list(range(600)),
    ],
)
def test_positions_by_hand(positions):
    np.testing.assert_array_equal(positions_again(np.array(positions, np.int64)), positions)


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_positions_across_chunks(chunk, monkeypatch):
    monkeypatch.setattr(decoding, "_CHUNK", chunk)
    for positions in ([0, 3, 600, 601, 5000], [10**5], range(9)):
        found = positions_again(np.array(positions, np.int64))
        np.testing.assert_array_equal(found, positions)


def test_bytes_of_positions_are_those_of_the_format():
    coded = coding.encode_positions(np.array([0, 3, 4, 4 + 256, 4 + 256 + 257 + 255]))
    assert coded.tolist() == [0, 2, 0, 255, 0, 255, 255, 1]


@pytest.mark.parametrize("density", [0.01, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_size_is_near_the_bound(quantization, density):
    random = np.random.RandomState(0)
    size = bound = 0
    for shape in [(384, 384)] * 4 + [(384, 1536), (1536, 384)]:
        array = random.standard_normal(shape).astype(np.float32)
        array *= random.uniform(size=shape) < density
        weight = encoded(array, quantization)
        size, bound = size + len(weight.payload), bound + weight.bound
        nonzeros = np.count_nonzero(decoded(weight))
        p = nonzeros / array.size
        positions = -array.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
        bytes_per_value = {"int8": 1, "float16": 2, None: 4}[quantization]
        assert weight.bound == pytest.approx(positions + nonzeros * bytes_per_value)
    # Scales of int8, which the bound leaves out, weigh most where the fewest values are.
    assert size / bound <= {"int8": 1.25, "float16": 1.1, None: 1.05}[quantization]


def test_positions_are_near_their_entropy():
    random = np.random.RandomState(0)
    for density in (0.01, 0.03, 0.1, 0.3, 0.5):
        positions = np.flatnonzero(random.uniform(size=1_000_000) < density)
        size = len(streams.encode_stream(coding.encode_positions(positions)))
        assert size <= 1.02 * coding.entropy_bytes(positions.size, 1_000_000)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("density", [0, 0.001, 0.2, 0.97, 1])
def test_int8_and_float16_keep_zeros_and_round(quantization, density):
    random = np.random.RandomState(0)
    array = random.standard_normal([60, 80]).astype(np.float32)
    array *= np.geomspace(1e-3, 1e3, 80, dtype=np.float32)
    array *= random.uniform(size=array.shape) < density
    for part, axis in [("layers", 0), ("embeddings", 1)]:
        found = decoded(encoded(array, quantization, part))
        assert found.dtype == np.float32
        assert not found[array == 0].any()
        error = np.abs(found - array)
        if quantization is None:
            np.testing.assert_array_equal(found, array)
        elif quantization == "float16":
            assert (error <= np.abs(array) * 2**-11 + 2**-25).all()
        else:
            step = np.abs(array).max(axis, keepdims=True) / 127 * (1 + 2**-7)
            assert (error <= step * 0.50001).all()
            assert density == 0 or error.max() > 0


@pytest.mark.parametrize(
    "array",
    [
        np.zeros([4, 5], np.float32),
        np.zeros([0, 5], np.float32),
        np.float32(3),
        np.array(7, np.int64),
        np.arange(12, dtype=np.int32).reshape(3, 4),
        np.array([True, False]),
        np.array([0, 0, 1e-300, np.pi]),
        np.array([[1e-45, 3e38, 0]], np.float32),
        np.full([3, 3], 1e-45, np.float32),
    ],
    ids=repr,
)
@pytest.mark.parametrize("quantization", ["int8", None])
def test_odd_arrays(array, quantization):
    weight = encoded(np.asarray(array), quantization)
    found = decoded(weight)
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.flags.writeable
    if quantization is None or weight.entry.stored == weight.entry.dtype:
        np.testing.assert_array_equal(found, array)
    else:
        assert np.isfinite(found).all() and not found[array == 0].any()


def test_nan_and_infinity_need_float32():
    array = np.array([[np.nan, np.inf, 0, 1]], np.float32)
    np.testing.assert_array_equal(decoded(encoded(array, None)), array)
    for quantization in ("int8", "float16"):
        message = rf"'w' .*{quantization}\. Pass quantization=None"
        with pytest.raises(ValueError, match=message):
            encoded(array, quantization)
    large = np.array([[70000, 1]], np.float32)
    with pytest.raises(ValueError, match="too large for float16"):
        encoded(large, "float16")
    assert decoded(encoded(large, "int8"))[0, 0] == pytest.approx(70000, rel=0.005)
    largest = np.full([1, 2], np.finfo(np.float32).max)
    with pytest.raises(ValueError, match="too large for int8"):
        encoded(largest, "int8")
    with pytest.raises(TypeError, match="'w' has dtype complex64"):
        encoded(np.ones(3, np.complex64), None)
