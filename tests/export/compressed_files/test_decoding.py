"""Streams that somebody made up."""

import numpy as np
import pytest
from exporting import encoded

from tf_movprune.export.compressed_files.decoding import decode
from tf_movprune.export.compressed_files.table import Entry

zstandard = pytest.importorskip("zstandard")


def frame(values, dtype=np.uint8, **options):
    data = np.asarray(values, dtype)
    planes = data.view(np.uint8).reshape(-1, data.itemsize).T.tobytes()
    return b"\0" + zstandard.ZstdCompressor(**options).compress(planes)


def weight(streams, shape, dtype="float32", stored=None, axis=None, gaps=None):
    sizes = tuple(map(len, streams))
    if streams[0] and gaps is None:  # as many as the frame states
        gaps = zstandard.frame_content_size(streams[0][1:])
    return Entry("w", shape, dtype, stored or dtype, sizes, axis, gaps), b"".join(streams)


def test_streams_by_hand():
    streams = [frame([0, 2, 0]), b"", frame([1.5, -2, 3], np.float32)]
    found = decode(*weight(streams, (2, 3)))
    np.testing.assert_array_equal(found, [[1.5, 0, 0], [-2, 3, 0]])
    streams = [b"", frame([0.5, 2], np.float32), frame([-127, 2, 0, 127], np.int8)]
    found = decode(*weight(streams, (2, 2), "float32", "int8", 1))
    np.testing.assert_array_equal(found, [[-63.5, 4], [0, 254]])
    found = decode(*weight([frame([]), b"", frame([])], (2, 2), "bool"))
    assert found.dtype == bool and not found.any() and found.flags.writeable


ONES = frame([1, 1, 1, 1], np.int8)
SCALES = frame([1, 1], np.float32)
EMPTY = frame([])
TWO = frame([1, 1], np.float32)
INT8 = {"stored": "int8", "axis": 1}


@pytest.mark.parametrize(
    "streams, options, message",
    [
        ([b"", b"", b"\0abc" * 9], {}, "'w': Expected one whole Zstandard frame"),
        ([b"", b"", b"abc" * 9], {}, "'w': Expected a code of a stream of 16 bytes, got number 97"),
        ([b"", b"", b""], {}, "'w': Expected a stream, got no bytes"),
        ([b"", b"", EMPTY], {}, r"decompresses to 16 bytes, got 0"),
        ([b"", b"", frame([1] * 5, np.float32)], {}, r"decompresses to 16 bytes, got 20"),
        ([b"", b"", frame([1] * 4, np.float32, write_content_size=False)], {}, r"got -1 \(-1: not"),
        ([b"", b"", frame([1] * 4, np.float32)[:-2]], {}, "did not decompress full frame"),
        ([b"", b"", frame([1] * 4, np.float32) + b"\0"], {}, "unused data"),
        (
            [b"", b"", frame([1] * 2, np.float32) + frame([1] * 2, np.float32)],
            {},
            "16 bytes, got 8",
        ),
        ([frame([0] * 2), b"", TWO], {"gaps": 3}, "decompresses to 3 bytes, got 2"),
        ([frame([0, 0, 0]), b"", TWO], {}, "decompresses to 12 bytes, got 8"),
        ([frame([0, 9]), b"", TWO], {}, "Expected positions below 4, got 10"),
        ([frame([255, 255, 0, 1]), b"", TWO], {}, "below 4, got 512"),
        ([frame([0, 0, 255]), b"", TWO], {}, "'w': Expected positions that end with one"),
        ([frame([255]), b"", EMPTY], {}, "'w': Expected positions that end with one"),
        ([EMPTY + b"\0", b"", EMPTY], {}, "'w': Expected an empty frame, got more"),
        ([EMPTY[:-2], b"", EMPTY], {}, "'w': Expected an empty frame, got more"),
        ([EMPTY, b"", EMPTY + EMPTY], {}, "'w': Expected an empty frame, got more"),
        ([b"", b"", frame([0, 1, 2, 1])], {"dtype": "bool"}, "'w': Expected 0 and 1, got 2"),
        ([b"", SCALES, frame([1, -128, 1, 1], np.int8)], INT8, "in -127 ... 127, got -128"),
        ([b"", b"", frame([1, np.nan, 1, 1], np.float16)], {"stored": "float16"}, "finite values"),
        ([b"", b"", frame([1, np.inf, 1, 1], np.float16)], {"stored": "float16"}, "finite values"),
        ([b"", frame([1], np.float32), ONES], INT8, "decompresses to 8 bytes, got 4"),
        *(
            (
                [b"", frame([1, scale], np.float32), ONES],
                INT8,
                "Expected scales that are fin",
            )
            for scale in (np.nan, np.inf, -1.0, -0.0, 1 / 3, 3e38)
        ),
    ],
)
def test_streams_that_are_refused(streams, options, message):
    with pytest.raises(ValueError, match=message):
        decode(*weight(streams, (2, 2), **options))


def test_floats_that_are_stored_as_they_are_may_be_infinite():
    array = np.array([[np.nan, np.inf, -0.0]], np.float32)
    found = encoded(array, None)
    np.testing.assert_array_equal(decode(found.entry, found.payload), array)
