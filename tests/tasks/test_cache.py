"""The cache of features: what is read is what was written, or it is made again."""

import numpy as np
import pytest

from tf_movprune.tasks import cache

ARRAYS = {"ids": np.arange(7, dtype=np.int32), "flags": np.array([True]), "none": np.zeros([0, 2])}


def fail():
    raise AssertionError("made again")


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_made_once(tmp_path):
    made, from_cache = cache.cached(tmp_path / "new", "a", ["key"], lambda: ARRAYS)
    assert made is ARRAYS and not from_cache
    found, from_cache = cache.cached(tmp_path / "new", "a", ["key"], fail)
    assert from_cache
    same(found, ARRAYS)
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".npz"]


@pytest.mark.parametrize("key", [["key2"], ["k", "ey"], ["key", ""], ["yek"], []])
def test_other_keys(key, tmp_path):
    cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    assert not cache.cached(tmp_path, "a", key, dict)[1]


def test_no_cache():
    assert cache.cached(None, "a", ["key"], lambda: ARRAYS) == (ARRAYS, False)


def test_damaged_files_are_made_again(tmp_path):
    cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    rebuilt = 0
    damages = [whole[:n] for n in range(0, len(whole), 97)]
    for place in range(0, len(whole), 13):
        damages.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    for damage in damages:
        path.write_bytes(damage)
        found, from_cache = cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
        same(found, ARRAYS)
        rebuilt += not from_cache
        same(cache.cached(tmp_path, "a", ["key"], fail)[0], ARRAYS)
    assert rebuilt > len(damages) / 2


def test_arrays_of_objects_are_not_trusted(tmp_path):
    cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    (path,) = tmp_path.iterdir()
    with path.open("wb") as file:
        np.savez(file, ids=np.array([{}], object), digest=np.zeros(32, np.uint8))
    assert not cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)[1]


def test_whole_files_of_other_arrays_are_not_trusted(tmp_path):
    cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    arrays["ids"] = arrays["ids"] + 1
    with path.open("wb") as file:
        np.savez(file, **arrays)
    found, from_cache = cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    assert not from_cache
    same(found, ARRAYS)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match=r"not cached: .* cannot be written \(.*No space left"):
        made, from_cache = cache.cached(tmp_path, "a", ["key"], lambda: ARRAYS)
    assert made is ARRAYS and not from_cache and not list(tmp_path.iterdir())
