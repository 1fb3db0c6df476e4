"""Entries of tables that describe weights, and those that cannot."""

import pytest

from tf_movprune.export.compressed_files.table import (
    DTYPES,
    Entry,
    check_keys,
    entry_of,
    parse_json,
)


def row(**changes):
    right = {
        "name": "w",
        "shape": [4, 5],
        "dtype": "float32",
        "stored": "float32",
        "sizes": [0, 0, 80],
    }
    return {**right, **changes}


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_come_back(dtype):
    for entry in (
        Entry("w", (4, 5), dtype, dtype, (9, 0, 12), gaps=3),
        Entry("w", (), dtype, dtype, (0, 0, 12)),
        Entry("w", (0, 3), dtype, dtype, (0, 0, 9)),
        Entry("w", (4, 5), "float32", "float16", (9, 0, 12), gaps=20),
        Entry("w", (4, 5), "float32", "int8", (9, 12, 12), 0, 0),
        Entry("w", (4, 5), "float32", "int8", (0, 12, 12), 1),
        Entry("w", (4, 5), "float32", "int8", (0, 0, 0), 1, same=3),
    ):
        assert (
            entry_of({**entry.as_json(), "shape": list(entry.shape), "sizes": list(entry.sizes)})
            == entry
        )
    assert entry.elements == 20


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": ""}, "Expected a name, got ''"),
        ({"name": 3}, "Expected a name, got 3"),
        ({"shape": 3}, "Expected a shape for 'w', got 3"),
        ({"shape": "x" * 10**6}, r"Expected a shape for 'w', got 'x+\.\.\.x+'\."),
        ({"shape": [4, -5]}, "Expected a shape"),
        ({"shape": [4, 5.0]}, "Expected a shape"),
        ({"shape": [4, True]}, "Expected a shape"),
        ({"shape": [1] * 33}, "Expected a shape"),
        ({"shape": [2**40, 2**40]}, "Expected a shape for 'w' that arrays can have"),
        ({"shape": [0, 2**64]}, "Expected a shape for 'w' that arrays can have"),
        ({"dtype": "complex64"}, "Expected one of .* got 'complex64'"),
        ({"dtype": None}, "Expected one of .* got None"),
        ({"dtype": ["float32"]}, "Expected one of"),
        ({"dtype": "O", "stored": "O"}, "Expected one of"),
        ({"stored": "float64"}, "Expected a type that 'w' of float32 is stored in, got 'float64'"),
        ({"stored": []}, "Expected a type that"),
        ({"dtype": "float64", "stored": "float32"}, "Expected a type that 'w' of float64"),
        ({"dtype": "int64", "stored": "int8"}, "Expected a type that 'w' of int64"),
        ({"shape": [20], "stored": "float16"}, "Expected a type that 'w' of float32"),
        ({"stored": "int8"}, "Expected an axis of the scales of 'w', got None"),
        ({"stored": "int8", "axis": 2}, "Expected an axis .* got 2"),
        ({"stored": "int8", "axis": -1}, "Expected an axis .* got -1"),
        ({"stored": "int8", "axis": True}, "Expected an axis .* got True"),
        ({"stored": "float16", "axis": 1}, "Expected no scales for 'w'"),
        ({"dtype": "int8", "stored": "int8", "axis": 1}, "Expected no scales for 'w'"),
        ({"axis": None}, "Expected no scales for 'w'"),
        ({"sizes": [0, 0]}, "Expected three sizes for 'w', got"),
        ({"sizes": [0, 0, -9]}, "Expected three sizes"),
        ({"sizes": [0, 0, 0]}, "Expected sizes of streams that 'w' of float32"),
        ({"sizes": [0, 9, 80]}, "Expected sizes of streams"),
        ({"sizes": [0, 0, 4 * 20 + 200]}, "Expected sizes of streams"),
        ({"sizes": [20 + 200, 0, 9], "gaps": 20}, "Expected sizes of streams"),
        ({"sizes": [9, 0, 9]}, "Expected a number of gaps of 'w', got None"),
        ({"sizes": [9, 0, 9], "gaps": 21}, "Expected a number of gaps of 'w', got 21"),
        ({"sizes": [9, 0, 9], "gaps": -1}, "Expected a number of gaps of 'w', got -1"),
        ({"gaps": 0}, "Expected no gaps of 'w', which has no positions, got 0"),
        ({"stored": "int8", "axis": 1, "sizes": [0, 0, 20]}, "Expected sizes of streams"),
        ({"stored": "int8", "axis": 1, "sizes": [0, 200, 20]}, "Expected sizes of streams"),
        ({"same": 0}, "Expected no streams of 'w', got"),
        ({"same": 0, "sizes": [0, 0, 0], "gaps": 0}, "Expected no streams of 'w'"),
        ({"same": -1, "sizes": [0, 0, 0]}, "Expected the number of an entry like 'w', got -1"),
        ({"same": None, "sizes": [0, 0, 0]}, "Expected the number of an entry like 'w', got None"),
        ({"extra": 1}, "Expected an object with keys .*'sizes'.*, got"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_entries_that_no_weight_has(changes, message):
    with pytest.raises(ValueError, match=message):
        entry_of(row(**changes))


@pytest.mark.parametrize("value", [None, [], "x", 3, {"name": "w"}])
def test_entries_that_are_no_objects(value):
    with pytest.raises(ValueError, match=r"Expected an object with keys \['name', 'shape'"):
        entry_of(value)


def test_json():
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text, message in [
        ('{"a": 1, "a": 1}', r"each key once, got \['a', 'a'\]"),
        ('{"x": {"a": 1, "b": 2, "a": 3}}', "each key once"),
        ("[" * 10**6, "few levels"),
        ("{", "Expecting property name"),
    ]:
        with pytest.raises(ValueError, match=message):
            parse_json(text)
    check_keys({"a": 1}, ["a"])
    with pytest.raises(ValueError, match="Expected an object"):
        check_keys({"a": 1}, ["a", "b"])
