"""Files and folders that are written whole or not at all."""

import os

import pytest

from tf_movprune.export.files import check_place, replacing


def write(path, kind, text):
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "inner").write_text(text)


def read(path):
    return path.read_text() if path.is_file() else (path / "inner").read_text()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_there_is_replaced_or_stays(kind, tmp_path):
    path = tmp_path / "x"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            write(temporary, kind, text)
        assert read(path) == text and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        write(temporary, kind, "third")
        raise KeyboardInterrupt
    assert read(path) == "second" and list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere' for 'x'\. Make it first"):
        check_place(tmp_path / "nowhere" / "x")
    with pytest.raises(NotADirectoryError, match=r"file' is a file\. Pass a path in a folder"):
        check_place(tmp_path / "file" / "x")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_place(tmp_path)
    with pytest.raises(NotADirectoryError, match="the path of a folder"):
        check_place(tmp_path / "file", for_folder=True)
    check_place(tmp_path / "file")
    check_place(tmp_path, for_folder=True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_stay_links(kind, tmp_path):
    write(tmp_path / "real", kind, "first")
    (tmp_path / "latest").symlink_to("real")
    with replacing(tmp_path / "latest") as temporary:
        write(temporary, kind, "second")
    assert read(tmp_path / "real") == "second"
    assert (tmp_path / "latest").is_symlink() and len(list(tmp_path.iterdir())) == 2


def test_a_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write(path, "folder", "first")
    replace = os.replace

    def fail(source, target):
        if str(source).endswith(".tmp"):
            raise PermissionError("no")
        replace(source, target)

    with pytest.raises(PermissionError), replacing(path) as temporary:
        write(temporary, "folder", "second")
        monkeypatch.setattr(os, "replace", fail)
    assert read(path) == "first" and list(tmp_path.iterdir()) == [path]
