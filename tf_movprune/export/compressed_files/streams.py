"""Vectors as streams of bytes, each in the smallest of several codes.

docs/compressed_format.md has the format. What decodes them takes bytes from anybody.
"""

from __future__ import annotations

import lzma
from typing import Any

import numpy as np

from tf_movprune.export.compressed_files import rans

_ZSTD, _LZMA, _PLANES = range(3)

_SMALL = 1 << 16  # bytes of a stream for which all codes are tried
_LZMA_CONTEXTS = {
    1: ((3, 0, 2), (0, 0, 0), (3, 1, 1)),
    2: ((3, 0, 2), (0, 1, 1), (2, 2, 2)),
    4: ((3, 0, 2), (0, 2, 2), (2, 2, 2)),
}
"""Bits of the byte before, and of the place, that LZMA looks at (lc, lp, pb), by size of a value.

The first are those of xz.
"""

_MAX_DICTIONARY = 1 << 26  # the one of xz -9


def most_bytes(size: int) -> int:
    """Bytes that a stream of `size` bytes takes at most."""
    return size + size // 256 + 128


def encode_stream(values: np.ndarray) -> bytes:
    """The smallest of the codes of a vector that are worth trying.

    Zstandard is quick and finds what repeats, at any distance. Unless that pays, LZMA, which takes
    a hundred times as long, is tried for short vectors only.
    """
    values = np.ascontiguousarray(values).reshape(-1)
    planes = _planes(values)
    streams = [bytes([_ZSTD]) + _zstandard_frame(planes.tobytes())]
    if values.size:
        streams.append(bytes([_PLANES]) + _coded_planes(planes))
    if values.nbytes <= _SMALL or len(streams[0]) <= len(streams[-1]):
        data = values.tobytes()
        for lc, lp, pb in _LZMA_CONTEXTS.get(values.itemsize, _LZMA_CONTEXTS[4]):
            context = {"preset": 9 | lzma.PRESET_EXTREME, "lc": lc, "lp": lp, "pb": pb}
            filters = [_lzma(len(data)) | context]
            streams.append(bytes([_LZMA]) + lzma.compress(data, lzma.FORMAT_RAW, filters=filters))
    return min(streams, key=len)


def decode_stream(stream: memoryview, dtype: np.dtype, count: int) -> np.ndarray:
    """The vector of `count` values in a stream.

    Memory is in proportion to `count`, whatever the stream holds.

    Raises:
      ValueError: the stream does not hold so many values, or anything else.
    """
    size = count * dtype.itemsize
    if len(stream) == 0:
        raise ValueError("Expected a stream, got no bytes.")
    code, body = stream[0], stream[1:]
    if code == _LZMA:
        return np.frombuffer(_from_lzma(body, size), np.uint8).view(dtype)
    if code == _ZSTD:
        data = np.frombuffer(_from_zstandard(body, size), np.uint8)
        planes = list(data.reshape(dtype.itemsize, -1))
    elif code == _PLANES and count:
        planes = _from_planes(body, count, dtype.itemsize)
    else:
        raise ValueError(f"Expected a code of a stream of {size} bytes, got number {code}.")
    return np.stack(planes, axis=1).view(dtype).reshape(-1)


def zstandard_library() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(f"Compressed files need {error.name}: pip install zstandard") from error
    return zstandard


def _planes(values: np.ndarray) -> np.ndarray:
    """The lowest byte of each value, then the next of each, and so on: exponents lie together."""
    return np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T)


def _zstandard_frame(data: bytes) -> bytes:
    zstandard = zstandard_library()
    settings = {"window_log": 27, "enable_ldm": True} if len(data) > 1 << 22 else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        9, source_size=len(data), **settings
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _from_zstandard(frame: memoryview, size: int) -> bytes:
    zstandard = zstandard_library()
    try:
        found = zstandard.frame_content_size(frame)
        if found != size:
            raise ValueError(
                f"Expected a frame that decompresses to {size} bytes, got {found} (-1: not stated)."
            )
        if size:
            return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        decompressor = zstandard.ZstdDecompressor().decompressobj()  # the other looks no further
        data = decompressor.decompress(frame)
        if not decompressor.eof or decompressor.unused_data:
            raise ValueError("Expected an empty frame, got more.")
        return data
    except zstandard.ZstdError as error:
        raise ValueError(f"Expected one whole Zstandard frame: {error}.") from error


def _lzma(size: int) -> dict[str, int]:
    """The filter for data of a size, with a dictionary that has room for it: it takes memory."""
    return {"id": lzma.FILTER_LZMA2, "dict_size": min(max(size, 4096), _MAX_DICTIONARY)}


def _from_lzma(data: memoryview, size: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_lzma(size)])
    try:
        found = decompressor.decompress(data, max_length=size + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"Expected LZMA2: {error}.") from error
    if len(found) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"Expected LZMA2 that decompresses to {size} bytes and ends, got another.")
    return found


def _coded_planes(planes: np.ndarray) -> bytes:
    """The planes, each after its length but for the last, coded by frequencies if that pays."""
    *coded, last = map(_coded_plane, planes)
    return b"".join([*(len(plane).to_bytes(8, "little") + plane for plane in coded), last])


def _coded_plane(plane: np.ndarray) -> bytes:
    plain = plane.tobytes()
    if rans.entropy_bytes(plane) > 0.998 * plane.size:
        return plain
    levels, states, words = rans.encode(plane)
    frame = _zstandard_frame(np.diff(levels, prepend=np.uint8(0)).tobytes())
    parts = len(frame).to_bytes(2, "little"), frame, states.astype("<u4"), words.astype("<u2")
    return min(plain, b"".join(map(bytes, parts)), key=len)  # of that length it is plain


def _from_planes(data: memoryview, count: int, number: int) -> list[np.ndarray]:
    """A number of planes of `count` bytes."""
    planes = []
    for i in range(number):
        length = len(data)
        if i < number - 1:
            length, data = int.from_bytes(data[:8], "little"), data[8:]
        part, data = data[:length], data[length:]
        if not len(part) == length <= count:
            raise ValueError(f"Expected a plane of at most {count} bytes, got {length}.")
        is_plain = length == count
        planes.append(np.frombuffer(part, np.uint8) if is_plain else _from_frequencies(part, count))
    return planes


def _from_frequencies(data: memoryview, count: int) -> np.ndarray:
    states = 2 + int.from_bytes(data[:2], "little")
    words = states + 4 * rans.states_of(count)
    if len(data) < words or (len(data) - words) % 2:
        raise ValueError(
            f"Expected a table, states and words of {words} or more bytes, got {len(data)}."
        )
    differences = np.frombuffer(_from_zstandard(data[2:states], 256), np.uint8)
    code = rans.Code(
        levels=np.cumsum(differences, dtype=np.uint8),
        states=np.frombuffer(data[states:words], "<u4").astype(np.uint32),
        words=np.frombuffer(data[words:], "<u2"),
    )
    return rans.decode(code, count)
