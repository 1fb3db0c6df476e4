"""Pickles that describe tensors, read without running anything.

The unpickler of Python calls whatever function a pickle names. This one follows the opcodes itself,
which it takes from `pickletools`. It knows tensors, storages and dictionaries, and makes nothing
else: the names of all other functions and classes are refused, and none is imported or called.
"""

from __future__ import annotations

import io
import pickletools
import reprlib
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

_MOST_BYTES = 2**20  # names and shapes take some 200 bytes a tensor
_MOST_AXES = 32
_DTYPES = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
}
_ORDERED_DICT = "collections.OrderedDict"
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETER = "torch._utils._rebuild_parameter"
_SIZE = "torch.Size"
_KNOWN = {
    _ORDERED_DICT,
    *_TENSORS,
    _PARAMETER,
    _SIZE,
    *(f"{module}.{name}" for module in ("torch", "torch.storage") for name in _DTYPES),
}


class Storage(NamedTuple):
    """A run of numbers in a file."""

    key: str
    dtype: np.dtype
    size: int


class View(NamedTuple):
    """A tensor in a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A function or class that a pickle names."""

    text: str


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_IN_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ARGUMENTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    )
)


def read_pickle(file: BinaryIO) -> Any:
    """Reads one pickle, and leaves the file behind it.

    Returns:
      What it describes, with a `View` for each tensor.

    Raises:
      ValueError: it describes anything else, or is damaged.
    """
    start = file.tell()
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(_Limited(file)):  # type: ignore[arg-type]
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged near byte {file.tell() - start:,}.") from error
    return machine.stack.pop()


class _Limited(io.RawIOBase):
    """A file that refuses to be read further than the names and shapes of tensors go."""

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file, self._left = file, _MOST_BYTES

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("its pickle is too large for names and shapes of tensors.")

    def read(self, size: int = -1) -> bytes:
        self._spend(size)
        return self._file.read(size)

    def readline(self, size: int | None = -1) -> bytes:
        line = self._file.readline(min(self._left, 2**16))
        self._spend(len(line))
        return line

    def tell(self) -> int:
        return self._file.tell()


class _Machine:
    """The stack and memo of an unpickler."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follows an opcode."""
        stack = self.stack
        if name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _IN_TUPLE:
            stack[-_IN_TUPLE[name] :] = [tuple(stack[-_IN_TUPLE[name] :])]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "LIST"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            _expect(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            self._set_items(name)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_known(".".join(argument.split(" "))))
        elif name == "STACK_GLOBAL":
            module, attribute = stack.pop(-2), stack.pop()
            stack.append(_known(f"{_expect(str, module)}.{_expect(str, attribute)}"))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(_expect(_Name, function).text, _expect(tuple, arguments)))
        elif name == "BUILD":  # attributes of a state dict, such as its _metadata
            stack.pop()
            _expect(dict, stack[-1])
        else:
            raise ValueError(f"its pickle has the opcode {name}, which no tensor needs.")

    def _to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _set_items(self, name: str) -> None:
        items = [self.stack.pop(-2), self.stack.pop()] if name == "SETITEM" else self._to_mark()
        if name == "DICT":
            self.stack.append({})
        target = _expect(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A nested tuple as a key could take for ever to hash.
            target[key if isinstance(key, int) else _expect(str, key)] = value


def _expect(cls: Any, value: Any) -> Any:
    if not isinstance(value, cls):
        raise ValueError(
            f"its pickle has a {type(value).__name__} in the place of a {cls.__name__.lstrip('_')}."
        )
    return value


def _known(name: str) -> _Name:
    if name not in _KNOWN:
        raise ValueError(
            f"its pickle names {name[:100]}, which is no part of a tensor. It was not called. Save "
            "the model's state_dict() alone, or as safetensors."
        )
    return _Name(name)


def _storage(description: Any) -> Storage:
    """The storage of a persistent id: kind, type, key, device, size and, in old files, a view."""
    kind, dtype, key, _, size, *view = _expect(tuple, description)
    name = _expect(_Name, dtype).text.rpartition(".")[2]
    is_whole = view in ([], [None])
    if kind != "storage" or name not in _DTYPES or not _is_size(size) or not is_whole:
        raise ValueError(f"its pickle refers to {reprlib.repr(description)}, which is no storage.")
    return Storage(_expect(str, key), _DTYPES[name], size)


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """The result of a function that is known, without calling it."""
    if name == _ORDERED_DICT and not arguments:
        return {}
    if name in _TENSORS:
        storage, offset, shape, strides, *rest = arguments
        shape, strides = _sizes(shape), _sizes(strides)
        if len(shape) != len(strides) or not _is_size(offset):
            raise ValueError("its pickle has a tensor without a valid shape.")
        if any(rest[2:]):  # such as a sign that is kept apart
            raise ValueError("its pickle has a tensor that is not just its numbers.")
        return View(_expect(Storage, storage), offset, shape, strides)
    if name == _PARAMETER:
        return _expect(View, arguments[0])
    if name == _SIZE:
        return _sizes(*arguments)
    raise ValueError(f"its pickle calls {name} with arguments that no tensor has.")


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > _MOST_AXES:
        raise ValueError(f"its pickle has a tensor of more than {_MOST_AXES} axes, or of none.")
    if not all(map(_is_size, values)):
        raise ValueError("its pickle has a tensor without a valid shape.")
    return tuple(values)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
