"""Streams: the code that is chosen, sizes beside xz, and streams that somebody made up."""

import lzma

import numpy as np
import pytest

from tf_movprune.export.compressed_files.streams import decode_stream, encode_stream, most_bytes

zstandard = pytest.importorskip("zstandard")

RANDOM = np.random.RandomState(0)
ROWS = RANDOM.standard_normal([16, 64]).astype(np.float32)
BYTES = RANDOM.randint(0, 256, 300_000).astype(np.uint8)
VECTORS = {
    "nothing": np.zeros(0, np.float32),
    "one value": np.float32([3.5]),
    "zeros": np.zeros(100_000, np.float32),
    "ones": np.ones(768, np.float32),
    "noise of all bytes": BYTES,
    "normal float32": RANDOM.standard_normal(50_000).astype(np.float32),
    "normal float16": RANDOM.standard_normal(50_000).astype(np.float16),
    "normal int8": np.rint(RANDOM.normal(0, 30, 50_000)).clip(-127, 127).astype(np.int8),
    "few values": (RANDOM.uniform(size=80_000) < 0.02).astype(np.int8),
    "rows of a code book": ROWS[RANDOM.randint(0, 16, 2000)],
    "a row repeated": np.tile(ROWS[0], 3000),
    "two equal halves far apart": np.tile(BYTES, 2),
    "positions": np.sin(np.arange(512)[:, None] / 10 ** (np.arange(64) / 16)).astype(np.float32),
    "counted": np.arange(30_000, dtype=np.int32),
    "large integers": RANDOM.randint(0, 2**62, 999),
}


def raw_lzma(data, **options):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, **options}]
    return b"\1" + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def zstd(data, **options):
    return b"\0" + zstandard.ZstdCompressor(**options).compress(data)


@pytest.mark.parametrize("values", VECTORS.values(), ids=VECTORS)
def test_vectors_come_back_and_take_no_more_than_with_xz(values):
    stream = encode_stream(values)
    found = decode_stream(memoryview(stream), values.dtype, values.size)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values.reshape(-1))
    assert len(stream) <= most_bytes(values.nbytes)
    xz = lzma.compress(values.tobytes(), preset=9 | lzma.PRESET_EXTREME)
    assert len(stream) <= len(xz)


@pytest.mark.parametrize(
    "name, code, most",
    [
        ("normal int8", 2, 0.99),
        ("normal float16", 2, 0.95),
        ("normal float32", 2, 0.92),
        ("few values", 2, 0.99),
        ("rows of a code book", 1, 1),
    ],
)
def test_the_code_is_the_one_for_such_values(name, code, most):
    values = VECTORS[name]
    stream = encode_stream(values)
    xz = lzma.compress(values.tobytes(), preset=9 | lzma.PRESET_EXTREME)
    assert stream[0] == code and len(stream) < most * len(xz)


def test_a_code_as_long_as_its_plane_is_not_taken_for_it():
    """A plane of 1,126 bytes whose code by frequencies has 1,126 too is stored as it is."""
    low = np.random.RandomState(1126).randint(0, 150, 1126).astype(np.uint8)
    high = (np.random.RandomState(0).uniform(size=1126) < 0.2).astype(np.uint8)
    values = np.stack([low, high], axis=1).view(np.int16).reshape(-1)
    stream = encode_stream(values)
    assert stream[0] == 2
    np.testing.assert_array_equal(decode_stream(memoryview(stream), values.dtype, 1126), values)


FLOATS = np.arange(4, dtype=np.float32)
CODED = encode_stream(np.resize(np.uint8([1, 2, 2, 3]), 90_000)[np.argsort(BYTES[:90_000])])


@pytest.mark.parametrize(
    "stream, message",
    [
        (b"", "Expected a stream, got no bytes"),
        (b"\3", "Expected a code of a stream of 16 bytes, got number 3"),
        (b"\1", "Expected LZMA2 that decompresses to 16 bytes and ends"),
        (b"\1" + b"\xff" * 20, "Expected LZMA2"),
        (raw_lzma(bytes(15)), "LZMA2 that decompresses to 16 bytes"),
        (raw_lzma(bytes(17)), "LZMA2 that decompresses to 16 bytes"),
        (raw_lzma(bytes(10**7)), "LZMA2 that decompresses to 16 bytes"),
        (raw_lzma(bytes(16))[:-1], "LZMA2 that decompresses to 16 bytes and ends"),
        (raw_lzma(bytes(16)) + b"\0", "LZMA2 that decompresses to 16 bytes and ends"),
        (zstd(bytes(17)), "decompresses to 16 bytes, got 17"),
        (zstd(bytes(16), write_content_size=False), r"got -1 \(-1: not stated\)"),
        (zstd(bytes(16)) + b"\0", "Expected one whole Zstandard frame"),
        (b"\2", "Expected a table, states and words of 6 or more bytes, got 0"),
        (b"\2" + b"\xff" * 99, "Expected a plane of at most 4 bytes, got 1844674407370955"),
        (b"\2" + (4).to_bytes(8, "little") + b"abc", "Expected a plane of at most 4 bytes, got 4"),
        (b"\2" + 3 * ((4).to_bytes(8, "little") + b"abcd") + b"abcde", "at most 4 bytes, got 5"),
        (
            b"\2" + 3 * ((4).to_bytes(8, "little") + b"abcd") + b"abc",
            "Expected a table, states and",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_streams_that_are_refused(stream, message):
    with pytest.raises(ValueError, match=message):
        decode_stream(memoryview(stream), np.dtype(np.float32), 4)


def test_every_damaged_byte_of_a_code_is_found_or_gives_as_many_values():
    assert CODED[0] == 2
    decode_stream(memoryview(CODED), np.dtype(np.uint8), 90_000)
    random, refused = np.random.RandomState(0), 0
    for place in [*range(100), *random.randint(100, len(CODED), 50)]:
        broken = bytearray(CODED)
        broken[place] ^= 1 << random.randint(8)
        try:
            found = decode_stream(memoryview(broken), np.dtype(np.uint8), 90_000)
            assert found.size == 90_000
        except ValueError:
            refused += 1
    assert refused > 100
    for size in (0, 1, 89_999, 90_001, 2**40):
        with pytest.raises(ValueError, match="Expected"):
            decode_stream(memoryview(CODED), np.dtype(np.uint8), size)
    for length in [*range(1, 300, 7), len(CODED) - 1]:
        with pytest.raises(ValueError, match="Expected"):
            decode_stream(memoryview(CODED)[:length], np.dtype(np.uint8), 90_000)
