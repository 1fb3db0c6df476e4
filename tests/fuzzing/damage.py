"""Damage to files, and what readers may do about it.

All functions take a `random.Random`, which hypothesis provides and shrinks.
"""

import contextlib
import copy
import json
import tracemalloc

import pytest

HOSTILE = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 2**64, 10**40, 0.5, 1e308, float("nan")),
    *("", "x", "int8", "float16", "float32", "float64", "bool", "U8", "F32", "\ud800", "a" * 9999),
    *([], [[]], {}, [-1, 1], [2**40, 2**40], [0, 0, 0], {"class": "x", "config": {}}),
)
"""JSON values that few readers expect."""

TEXTS = (
    *(b"", b"null", b"[]", b"3", b'""', b"{", b"\xff\xfe{}", b"\0", b"[" * 100_000),
    *(b'{"a":' * 100_000, b'{"n": 1' + b"0" * 5000 + b"}", b'{"format": 1, "format": 1}'),
    *(b'{"a":' * 300 + b"1" + b"}" * 300, b"\xef\xbb\xbf{}"),
)
"""Files of JSON that hold no object, or an odd one."""

NUMBERS = [
    number.to_bytes(size, "little")
    for size in (2, 4, 8)
    for number in (0, 1, 2**15, 256**size // 2, 256**size - 1)
]


def damaged(choose, data, others=()):
    """Bytes with bits flipped, pieces overwritten, removed, repeated or taken from other files.

    Args:
      choose: `random.Random`.
      data: bytes of a file.
      others: bytes of other files of the format.
    """
    for _ in range(choose.choice([1, 1, 2, 3])):
        data = _damaged_once(choose, data, others or (data,))
    return data


def _damaged_once(choose, data, others):
    kind, at = choose.randrange(6), _place(choose, data)
    if kind == 0 and data:
        return data[:at] + bytes([data[at] ^ (1 << choose.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        new = choose.choice([*NUMBERS, bytes([choose.randrange(256)])])
        return data[:at] + new + data[at + len(new) :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data[:at] + data[_place(choose, data) :]
    other = choose.choice(others)
    start = _place(choose, other)
    piece = other[start : start + choose.choice([1, 8, 64, 1024, len(other)])]
    return data[:at] + piece + data[at + len(piece) * (kind == 4) :]


def _place(choose, data):
    """A place, as often near an end as anywhere."""
    size = max(len(data), 1)
    near = choose.randrange(min(size, 256))
    return choose.choice([near, size - 1 - near, choose.randrange(size)])


def places_in(value):
    """All places in a JSON value: the list or object that holds each, and its key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places_in(value[key])


def change(choose, value, keys=("x",)):
    """Changes one thing in a JSON value, in place.

    Args:
      choose: `random.Random`.
      value: list or object, which stays the outermost one.
      keys: keys that an object may get.
    """
    places = list(places_in(value))
    if not places:
        return
    owner, key = choose.choice(places)
    kind = choose.randrange(6)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, list):
        owner.insert(key, copy.deepcopy(choose.choice(owner)))
    elif kind == 2 and isinstance(owner, list):
        choose.shuffle(owner)
    elif kind == 3 and isinstance(owner, dict):
        owner[choose.choice(keys)] = copy.deepcopy(owner[key])
    elif kind == 4 and type(owner[key]) is int:
        owner[key] += choose.choice([-1, 1, 8, 2**32])
    elif kind == 5 and len(places) > 1:
        owner[key] = copy.deepcopy((lambda place: place[0][place[1]])(choose.choice(places)))
    else:
        owner[key] = copy.deepcopy(choose.choice(HOSTILE))


def damaged_json(choose, value, keys=("x",)):
    """The bytes of a JSON file of which something was changed, or that is none."""
    kind = choose.randrange(10)
    if kind == 0:
        return choose.choice(TEXTS)
    changed = copy.deepcopy(value)
    if kind == 1:
        return damaged(choose, json.dumps(changed).encode())
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        change(choose, changed, keys)
    return json.dumps(changed).encode()


@contextlib.contextmanager
def memory_of_at_most(size):
    """Asserts that no more bytes are allocated at once in Python and NumPy."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak:,} bytes"


def refused(function, *names, errors=(ValueError,)):
    """Calls a function, which may refuse what it reads, in an error that names where it was.

    Args:
      function: function without arguments.
      *names: parts of the message, of which there has to be one.
      errors: the classes of errors that are right; subclasses of them are not.

    Returns:
      False, and the result; or true, and None.
    """
    try:
        return False, function()
    except errors as error:
        assert type(error) in errors, f"{type(error)}: {error}"
        assert any(name in str(error) for name in names), str(error)
        return True, None


@contextlib.contextmanager
def in_little_memory(more=2**32):
    """Lets allocations fail that would take the process far beyond what it has.

    Args:
      more: bytes of address space that it may take besides.
    """
    resource = pytest.importorskip("resource")  # which Windows lacks
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
