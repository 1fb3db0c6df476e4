"""Files of `torch.save`: what they hold is read, and nothing in them is run."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from tf_movprune.pytorch.bin_files import read_bin
from tf_movprune.pytorch.pickles import read_pickle

MAGIC = 0x1950A86A20F9469CFC6C


@pytest.fixture(autouse=True)
def fake_torch(monkeypatch):
    """Functions of the names that pickles of PyTorch have, which can be written and not called."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def define(module, name):
        def function(*args):
            raise AssertionError(f"{name} was called")

        function.__module__, function.__qualname__ = module.__name__, name
        setattr(module, name, function)

    for name in ("FloatStorage", "LongStorage", "Size", "device"):
        define(torch, name)
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        define(utils, name)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Storage:
    def __init__(self, key, values, size=None):
        self.key, self.values = key, values
        self.size = values.size if size is None else size


class Pickler(pickle.Pickler):
    def __init__(self, file, is_old):
        super().__init__(file, protocol=2)
        self.is_old = is_old

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        kind = sys.modules["torch"].__dict__[
            {"float32": "FloatStorage", "int64": "LongStorage"}[obj.values.dtype.name]
        ]
        return ("storage", kind, obj.key, "cpu", obj.size, *([None] if self.is_old else []))


def tensor(storage, shape, strides, offset=0):
    rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
    return Calls(rebuild, storage, offset, shape, strides, False, collections.OrderedDict())


def pickled(obj, *, is_old=False):
    file = io.BytesIO()
    Pickler(file, is_old).dump(obj)
    return file.getvalue()


def write(path, obj, storages=(), *, is_old=False, compression=zipfile.ZIP_STORED):
    """Writes a file as `torch.save` does, in the format since PyTorch 1.6 or the one before."""
    data = pickled(obj, is_old=is_old) if not isinstance(obj, bytes) else obj
    if is_old:
        keys = [storage.key for storage in storages]
        parts = [pickled(x) for x in (MAGIC, 1001, {"little_endian": True})]
        parts += [data, pickled(keys)]
        parts += [struct.pack("<q", s.size) + s.values.tobytes() for s in storages]
        path.write_bytes(b"".join(parts))
    else:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("name/data.pkl", data)
            for storage in storages:
                archive.writestr(f"name/data/{storage.key}", storage.values.tobytes())
    return path


@pytest.fixture(params=[False, True], ids=["archive", "before_1.6"])
def is_old(request):
    return request.param


def test_tensors_are_read(tmp_path, is_old):
    first = Storage("0", np.arange(24, dtype="float32"))
    second = Storage("1", np.arange(5))
    tensors = collections.OrderedDict(
        whole=tensor(first, (4, 6), (6, 1)),
        part=tensor(first, (2, 3), (6, 1), 8),
        transposed=tensor(first, (6, 4), (1, 6)),
        scalar=tensor(second, (), (), 3),
        none=tensor(second, (0, 2), (2, 1)),
        parameter=Calls(
            sys.modules["torch._utils"]._rebuild_parameter,
            tensor(second, (5,), (1,)),
            True,
            collections.OrderedDict(),
        ),
    )
    tensors._metadata = collections.OrderedDict(version=1)  # as a state dict has
    found = read_bin(write(tmp_path / "a.bin", tensors, [first, second], is_old=is_old))
    whole = np.arange(24, dtype="float32").reshape(4, 6)
    wanted = {
        "whole": whole,
        "part": whole.ravel()[8:20].reshape(2, 6)[:, :3],
        "transposed": whole.T,
        "scalar": np.int64(3),
        "none": np.zeros([0, 2]),
        "parameter": np.arange(5),
    }
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name].array(), values)
        assert found[name].shape == np.shape(values)


def test_every_protocol_of_pickle_is_read():
    value = {"a": [1, 2.5, True, None, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "b": {}}
    value["c"] = value["a"]
    for protocol in range(5):
        assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == value


# ---- hostile files


class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize(
    "attack",
    [
        lambda place: Calls(os.mkdir, str(place)),
        lambda place: Calls(eval, f"__import__('os').mkdir({str(place)!r})"),
        lambda place: {"a": Calls(exec, f"__import__('os').mkdir({str(place)!r})")},
        lambda place: Calls(getattr, os, "mkdir"),
        lambda place: Calls(sys.modules["torch"].device, "cpu"),
    ],
)
def test_no_function_is_called(tmp_path, is_old, attack):
    place = tmp_path / "made"
    try:
        data = pickled(attack(place))
    except TypeError:  # a module, which no pickle has
        data = pickled(Calls(os.mkdir, str(place))).replace(b"mkdir", b"rmdir")
    path = write(tmp_path / "a.bin", data, is_old=is_old)
    with pytest.raises(ValueError, match=r"names .*no part of a tensor.* not called|opcode"):
        read_bin(path)
    assert not place.exists()


OPCODES = {
    "instance": b"(S'a'\nios\nmkdir\n.",
    "object": b"(cos\nmkdir\nS'a'\no.",
    "new object": b"\x80\x02cos\nmkdir\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "names on the stack": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93.",
    "attributes of a class": b"ccollections\nOrderedDict\n}S'a'\nI1\nsb.",
    "buffer": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("data", OPCODES.values(), ids=OPCODES)
def test_other_opcodes_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save: its pickle"):
        read_bin(write(tmp_path / "a.bin", data))


def nested_tuples(depth):
    """A tuple of two of the same, and so on: 2 ** depth of them, were it written out."""
    data = b"\x80\x02)"
    for i in range(depth):
        data += b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86"
    return data


ABSURD = {
    "text of 4 GB": b"\x80\x02X\xff\xff\xff\xff",
    "text of 2 ** 60 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**60),
    "bytes of 2 ** 60": b"\x80\x05\x96" + struct.pack("<Q", 2**60),
    "number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "place 2 ** 32 in the memo": b"\x80\x02]r\xff\xff\xff\xff.",
    "key that takes for ever to hash": b"\x80\x02}" + nested_tuples(60)[2:] + b"Ns.",
    "identity that takes for ever to print": nested_tuples(60) + b"Q.",
    "storage that takes for ever to print": nested_tuples(60) + b"\x85(" + b"Q.",
    "nothing": b"",
    "no end": b"\x80\x02}",
    "empty stack": b"\x80\x02\x86.",
    "no mark": b"\x80\x02}u.",
    "odd items": b"}(S'a'\nu.",
    "no text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
}


@pytest.mark.parametrize("data", ABSURD.values(), ids=ABSURD)
def test_absurd_pickles_are_refused_without_taking_memory(tmp_path, is_old, data):
    import tracemalloc

    path = tmp_path / "a.bin"
    if is_old:
        path.write_bytes(data)
    else:
        write(path, data)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save|no 'a'|mapping"):
        read_bin(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_too_large_a_pickle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"too large for names and shapes"):
        read_bin(write(tmp_path / "a.bin", b"\x80\x02" + b"}" * 2**21 + b"."))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "size", "message"),
    [
        ((10**6, 10**6), (0, 0), 0, None, r"needs more numbers than the 8"),
        ((9,), (1,), 0, None, r"needs more numbers"),
        ((8,), (1,), 1, None, r"needs more numbers"),
        ((2, 2), (5, 4), 0, None, r"needs more numbers"),
        ((-1,), (1,), 0, None, r"no valid shape|without a valid shape"),
        ((2,), (-1,), 1, None, r"without a valid shape"),
        ((2, 2), (1,), 0, None, r"without a valid shape"),
        ((2.0,), (1,), 0, None, r"without a valid shape"),
        ((1,) * 40, (1,) * 40, 0, None, r"more than 32 axes"),
        ((8,), (1,), 0, 10**12, r"storage '0' is missing, cut off|cut off"),
        ((8,), (1,), 0, -8, r"no storage"),
    ],
)
def test_absurd_tensors_are_refused(tmp_path, is_old, shape, strides, offset, size, message):
    storage = Storage("0", np.arange(8, dtype="float32"), size)
    tensors = {"a": tensor(storage, shape, strides, offset)}
    with pytest.raises(ValueError, match=message):
        read_bin(write(tmp_path / "a.bin", tensors, [storage], is_old=is_old))


def test_storages_of_which_tensors_say_different_things_are_refused(tmp_path):
    """Else the numbers behind the smaller one would be read as the larger one's."""
    large = Storage("0", np.zeros(8, "float32"), 10**6)
    small = Storage("0", np.zeros(8, "float32"))
    tensors = {"a": tensor(large, (10**6,), (1,)), "b": tensor(small, (8,), (1,))}
    with pytest.raises(ValueError, match=r"different things of one storage"):
        read_bin(write(tmp_path / "a.bin", tensors, [small], is_old=True))
    with pytest.raises(ValueError, match=r"storage '0' is missing, cut off, or not of the size"):
        read_bin(write(tmp_path / "b.bin", tensors, [small]))


def central_directory(data):
    return data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)  # of the storage


@pytest.mark.parametrize("change", ["no bytes", "checksum", "one bit"])
def test_damaged_storages_are_told_of_when_they_are_read(tmp_path, change):
    storage = Storage("0", np.arange(1000, dtype="float32"))
    path = write(tmp_path / "a.bin", {"a": tensor(storage, (1000,), (1,))}, [storage])
    data = bytearray(path.read_bytes())
    place = central_directory(data)
    if change == "no bytes":
        data[place + 16 : place + 24] = bytes(8)  # checksum and compressed size
    elif change == "checksum":
        data[place + 16] ^= 1
    else:
        data[data.index(storage.values[500:502].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save"):
        read_bin(path)["a"].array()


def test_tensors_that_are_not_just_their_numbers_are_refused(tmp_path, is_old):
    storage = Storage("0", np.arange(8, dtype="float32"))
    rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
    hooks = collections.OrderedDict()
    value = Calls(rebuild, storage, 0, (8,), (1,), False, hooks, {"neg": True})
    with pytest.raises(ValueError, match=r"not just its numbers"):
        read_bin(write(tmp_path / "a.bin", {"a": value}, [storage], is_old=is_old))


def test_long_shapes_are_refused_before_they_are_copied(tmp_path):
    size = sys.modules["torch"].Size
    shape = [1] * 100_000
    storage = Storage("0", np.arange(8, dtype="float32"))
    for value in ([Calls(size, shape)] * 3, {"a": tensor(storage, shape, shape)}):
        with pytest.raises(ValueError, match=r"more than 32 axes"):
            read_bin(write(tmp_path / "a.bin", value, [storage]))


def test_keys_of_storages_that_are_no_text_are_refused(tmp_path):
    storage = Storage("0", np.arange(8, dtype="float32"))
    path = write(tmp_path / "a.bin", {"a": tensor(storage, (8,), (1,))}, [storage], is_old=True)
    keys = nested_tuples(60) + b"\x85."
    path.write_bytes(path.read_bytes().replace(pickled(["0"]), keys))
    with pytest.raises(ValueError, match=r"storages that no tensor has"):
        read_bin(path)


def test_files_that_are_cut_off_are_refused(tmp_path, is_old):
    storage = Storage("0", np.arange(1000, dtype="float32"))
    path = write(
        tmp_path / "a.bin", {"a": tensor(storage, (1000,), (1,))}, [storage], is_old=is_old
    )
    data = path.read_bytes()
    for size in (0, 3, 10, 60, 200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save"):
            read_bin(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"mapping from names to tensors, got a value of type list"),
        ({"epoch": 3}, r"a value of type int for 'epoch'"),
        ({"model": {"a": 1}}, r"a value of type dict for 'model'"),
        ({3: 4}, r"for 3"),
    ],
)
def test_other_things_than_weights_are_refused(tmp_path, is_old, value, message):
    with pytest.raises(ValueError, match=message):
        read_bin(write(tmp_path / "a.bin", value, is_old=is_old))


def test_archives_of_another_kind_are_refused(tmp_path):
    storage = Storage("0", np.zeros(10**6, "float32"))
    path = tmp_path / "a.bin"
    value = {"a": tensor(storage, (10**6,), (1,))}
    with pytest.raises(ValueError, match=r"entries are compressed"):
        read_bin(write(path, value, [storage], compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match=r"storage '0' is missing"):
        read_bin(write(path, value))
    write(path, value, [storage])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("name/byteorder", "big")
    with pytest.raises(ValueError, match=r"big-endian"):
        read_bin(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name/constants.pkl", b"")
    with pytest.raises(ValueError, match=r"without one data\.pkl"):
        read_bin(path)
