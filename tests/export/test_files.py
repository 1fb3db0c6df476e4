"""Files and folders that are written whole or not at all."""

import ctypes
import errno
import os
import shutil
import threading

import pytest

from tf_movprune.export import files
from tf_movprune.export.files import check_place, replacing


@pytest.fixture(params=["exchange", "no exchange"])
def system(request, monkeypatch, tmp_path_factory):
    """A system that exchanges two names at once, or does not."""
    if request.param == "no exchange":
        monkeypatch.setattr(files, "_libc", lambda: None)
    else:
        skip_without_exchange(tmp_path_factory.mktemp("probe"))
    return request.param


def skip_without_exchange(folder):
    names = [folder / "a", folder / "b"]
    for name in names:
        name.mkdir()
    if not files._exchange(*names):
        pytest.skip("this file system does not exchange names")


def write(path, kind, text):
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "inner").write_text(text)
        (path / "variables").mkdir()
        (path / "variables" / "data").write_text(text)


def read(path):
    return path.read_text() if path.is_file() else (path / "inner").read_text()


def failing_at(monkeypatch, module, name, call, error):
    """Lets call number `call` of a function, counted from 0, raise, and all others pass."""
    right, calls = getattr(module, name), []

    def function(*args, **kwargs):
        calls.append(args)
        if len(calls) == call + 1:
            raise error
        return right(*args, **kwargs)

    monkeypatch.setattr(module, name, function)
    return calls


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_there_is_replaced_or_stays(kind, tmp_path, system):
    path = tmp_path / "x"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            write(temporary, kind, text)
        assert read(path) == text and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        write(temporary, kind, "third")
        raise KeyboardInterrupt
    assert read(path) == "second" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
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
def test_links_stay_links(kind, tmp_path, system):
    write(tmp_path / "real", kind, "first")
    (tmp_path / "latest").symlink_to("real")
    with replacing(tmp_path / "latest") as temporary:
        write(temporary, kind, "second")
    assert read(tmp_path / "real") == "second"
    assert (tmp_path / "latest").is_symlink() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("was_there", [True, False])
def test_failing_steps_change_nothing(kind, error, was_there, tmp_path, system, monkeypatch):
    path = tmp_path / "x"
    if was_there:
        write(path, kind, "first")
    is_atomic = kind == "file" or not was_there or system == "exchange"
    steps = [(os, "fsync", i) for i in range({"file": 2, "folder": 5}[kind])]
    if kind == "folder" and was_there and system == "exchange":
        steps.append((files, "_exchange", 0))
    else:
        steps += [(os, "replace", i) for i in range(1 if is_atomic else 2)]
    for module, name, call in steps:
        with monkeypatch.context() as patch:
            calls = failing_at(patch, module, name, call, error)
            with pytest.raises(type(error)), replacing(path) as temporary:
                write(temporary, kind, "second")
            assert len(calls) > call
        assert list(tmp_path.iterdir()) == ([path] if was_there else [])
        if was_there:
            assert read(path) == "first"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_everything_is_on_disk_before_it_takes_its_place(kind, tmp_path, system, monkeypatch):
    path = tmp_path / "x"
    write(path, kind, "first")
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no names of descriptors")
    flushed, sync = [], os.fsync

    def recording(descriptor):
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), read(path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with replacing(path) as temporary:
        write(temporary, kind, "second")
    names = ["", "/inner", "/variables", "/variables/data"] if kind == "folder" else [""]
    written = [(f"{temporary}{name}", "first") for name in names]
    assert sorted(flushed[: len(names)]) == written
    assert flushed[len(names) :] == [(str(tmp_path), "first"), (str(tmp_path), "second")]


def test_a_failure_after_the_exchange_leaves_the_new_folder(tmp_path, system, monkeypatch):
    path = tmp_path / "x"
    write(path, "folder", "first")
    failing_at(monkeypatch, os, "fsync", 5, OSError(errno.EIO, "broken disk"))
    with replacing(path) as temporary:
        write(temporary, "folder", "second")
    assert read(path) == "second" and list(tmp_path.iterdir()) == [path]
    failing_at(monkeypatch, shutil, "rmtree", 0, PermissionError("mine"))
    message = r"Could not remove .*: mine\. Delete it"
    with pytest.warns(UserWarning, match=message), replacing(path) as temporary:
        write(temporary, "folder", "third")
    assert read(path) == "third" and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_come_back_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write(path, "folder", "first")
    monkeypatch.setattr(files, "_libc", lambda: None)
    right = os.replace

    def fail(source, target):
        if target == path:
            raise PermissionError("no")
        right(source, target)

    with pytest.raises(PermissionError), replacing(path) as temporary:
        write(temporary, "folder", "second")
        monkeypatch.setattr(os, "replace", fail)
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".old" and read(kept) == "first"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM])
def test_file_systems_without_an_exchange(code, tmp_path, monkeypatch):
    class Libc:
        @staticmethod
        def renameat2(*args):
            ctypes.set_errno(code)
            return -1

    path = tmp_path / "x"
    write(path, "folder", "first")
    monkeypatch.setattr(files, "_libc", Libc)
    with replacing(path) as temporary:
        write(temporary, "folder", "second")
    assert read(path) == "second" and list(tmp_path.iterdir()) == [path]
    code = errno.EIO  # the system has an exchange, and it failed
    with pytest.raises(OSError, match=r"x\.\w+\.tmp' -> '.*x'"), replacing(path) as temporary:
        write(temporary, "folder", "third")
    assert read(path) == "second" and list(tmp_path.iterdir()) == [path]


def test_an_exchanged_folder_is_never_missing(tmp_path):
    skip_without_exchange(tmp_path)
    path = tmp_path / "x"
    write(path, "folder", "0")
    missing, done = [], threading.Event()

    def watch():
        while not done.is_set():
            if not path.exists():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for i in range(1, 30):
            with replacing(path) as temporary:
                write(temporary, "folder", str(i))
    finally:
        done.set()
        watcher.join()
    assert not missing and read(path) == "29"
