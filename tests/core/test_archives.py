"""Small files in zip archives, of which some say what is not true."""

import struct
import zipfile

import pytest
from fuzzing.damage import memory_of_at_most

from tf_movprune.core import archives
from tf_movprune.core.archives import read_member

SIZE = 2**25 + 0x1234


def written(path, data, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("config.json", data)
    return path


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_read(tmp_path, packing):
    assert read_member(written(tmp_path / "x", b"{}", packing), "config.json") == b"{}"


@pytest.mark.parametrize("says", [2, SIZE])
def test_what_a_member_unpacks_to_is_bounded_whatever_it_says(tmp_path, monkeypatch, says):
    monkeypatch.setattr(archives, "_MOST_BYTES", 2**20)
    path = written(tmp_path / "x", bytes(SIZE))
    data, size = path.read_bytes(), struct.pack("<L", SIZE)
    assert data.count(size) == 2  # in the member's header, and in the directory
    path.write_bytes(data.replace(size, struct.pack("<L", says)))
    with memory_of_at_most(2**23), pytest.raises(ValueError, match=r"config\.json"):
        read_member(path, "config.json")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_a_bound_are_refused(tmp_path, packing):
    path = written(tmp_path / "x", b"{}", packing)
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        read_member(path, "config.json")


def test_a_member_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no archive with metadata\.json"):
        read_member(written(tmp_path / "x", b"{}"), "metadata.json")
