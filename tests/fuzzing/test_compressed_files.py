"""Damaged and crafted compressed files give the right weights, or a ValueError."""

import numpy as np
import pytest
import tf_keras as keras
from exporting import compressed_files
from fuzzing.damage import change, damaged, memory_of_at_most, refused
from fuzzing.profiles import each_of
from hypothesis import strategies as st

import tf_movprune
from tf_movprune.export import reader

pytest.importorskip("zstandard")
from crafted_files import Parts, are_equal, loader, network


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of all kinds of streams; the first is that of `network`."""
    folder = tmp_path_factory.mktemp("files")
    paths = compressed_files(network(), folder)
    wide = keras.Sequential([keras.layers.Dense(90, input_shape=(40,), name=n) for n in "a"])
    wide.add(keras.layers.Dense(3, dtype="bfloat16"))
    wide.layers[0].kernel.assign(np.random.RandomState(0).standard_normal([40, 90]))
    tf_movprune.export_compressed(wide, folder / "wide.movprune", quantization=None)
    return [*paths, folder / "wide.movprune"]


def damaged_files(files, folder, count, *, is_quick):
    whole, path = [file.read_bytes() for file in files], folder / "x"

    def read():
        with reader.read(path) as weights:
            return dict(weights)

    @each_of(st.randoms(use_true_random=False), count, is_quick=is_quick)
    def is_refused(choose):
        data = damaged(choose, choose.choice(whole), whole)
        path.write_bytes(data)
        with memory_of_at_most(2**22):
            is_right, _ = refused(read, str(path))
        assert is_right == (data not in whole)


def crafted_files(files, folder, count, *, is_quick):
    """Changes what the table and the header say, or bytes of weights, with a right checksum."""
    load, seen = loader(network(), folder / "x"), {"same": 0, "refused": 0, "others": 0}
    right = [load(file.read_bytes()) for file in files[:3]]

    @each_of(st.randoms(use_true_random=False), count, is_quick=is_quick)
    def is_right_or_refused(choose):
        which = choose.randrange(3)
        parts = Parts(files[which])
        payload = parts.payload
        for _ in range(choose.choice([1, 1, 1, 2, 3])):
            if choose.randrange(4) == 0:
                parts.payload = damaged(choose, parts.payload)
            else:
                root = choose.choice([parts.table, parts.table, parts.about])
                change(choose, root, keys=("axis", "gaps", "same", "x"))
        found = load(parts.data())
        is_same = found is not None and parts.payload == payload  # else these are other weights
        if is_same:
            assert are_equal(found, right[which])
        seen["same" if is_same else "others" if found is not None else "refused"] += 1

    print(seen)
    assert seen["refused"] > 0.5 * sum(seen.values()) and (seen["same"] or is_quick)


def test_some_damaged_files(files, tmp_path):
    damaged_files(files, tmp_path, 60, is_quick=True)


def test_some_crafted_files(files, tmp_path):
    crafted_files(files, tmp_path, 40, is_quick=True)


@pytest.mark.slow
def test_many_damaged_files(files, tmp_path):
    damaged_files(files, tmp_path, 3000, is_quick=False)


@pytest.mark.slow
def test_many_crafted_files(files, tmp_path):
    crafted_files(files, tmp_path, 1500, is_quick=False)
