"""Pickles from outside as plain data: pandas frames of lists, and torch archives of float32 arrays.

A pickle is a program for a small stack machine, and Python's own reader imports and calls whatever it names. Here the
machine is replayed over the opcodes that the standard library decodes: a name is only recorded, and only if it is on a
list; a call is only recorded. Nothing is imported, called or given attributes, so there is nothing to abuse.
"""

import dataclasses
import math
import os
import pathlib
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

_PANDAS_NAMES = frozenset(
    {
        "builtins.slice",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.numeric._frombuffer",
        "numpy.dtype",
        "numpy.ndarray",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.frame.DataFrame",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.base._new_Index",
        "pandas.core.indexes.range.RangeIndex",
        "pandas.core.internals.managers.BlockManager",
    }
)
_TORCH_NAMES = frozenset({"collections.OrderedDict", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2"})
_PERSISTENT_ID = "persistent id"
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error)


@dataclasses.dataclass(frozen=True)
class Global:
    """A module's attribute that a pickle names, as ``module.attribute``; it is never looked up."""

    name: str


@dataclasses.dataclass(eq=False)
class Call:
    """A call that a pickle asks for; it is never made.

    Attributes:
        function: what would be called.
        arguments: the positional arguments.
        state: what the object's state would be set to afterwards.
        entries: what would be stored under the object's keys.
    """

    function: Global
    arguments: tuple[Any, ...]
    state: Any = None
    entries: dict[str | int, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Frame:
    """The columns of a pandas frame.

    Attributes:
        columns: column name → its N values, in the order of the rows.
        index: ``[N]`` the label of each row.
    """

    columns: Mapping[str, list[Any]]
    index: Int64[np.ndarray, " N"]


def read_pickle(data: bytes, *, names: frozenset[str], source: str) -> Any:
    """Replay a pickle without importing or calling anything.

    Args:
        data: the whole pickle.
        names: the only globals that it may refer to, as ``module.attribute``.
        source: what an error calls the file.

    Returns:
        Lists, tuples, dicts, strings, bytes and numbers, with :class:`Global` and :class:`Call` in place of objects.

    Raises:
        ValueError: the pickle is damaged, refers to another global, or needs an opcode that plain data do not.
    """
    try:
        with warnings.catch_warnings():
            # A text string with an escape that is none is decoded as it stands, and Python warns of it.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _replay(data, names)
    except _DAMAGE as error:
        raise ValueError(f"{source}: not a readable pickle: {' '.join(str(error).split())}") from error


def _replay(data: bytes, names: frozenset[str]) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, position in pickletools.genops(data):
        operation = opcode.name
        if operation in _LITERALS:
            stack.append(argument)
        elif operation == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif operation in _REMEMBER:
            memo[argument] = stack[-1]
        elif operation in _RECALL:
            stack.append(memo[argument])
        elif operation == "MARK":
            below.append(stack)
            stack = []
        elif operation in _SINCE_MARK:
            values, stack = stack, below.pop()
            _SINCE_MARK[operation](stack, values)
        elif operation in _ON_STACK:
            _ON_STACK[operation](stack)
        elif operation == "GLOBAL":
            stack.append(_global(argument.replace(" ", "."), names))
        elif operation == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if type(module) is not str or type(attribute) is not str:
                raise ValueError("it names a global by something other than strings")
            stack.append(_global(f"{module}.{attribute}", names))
        elif operation == "STOP":
            if len(stack) != 1 or below or position != len(data) - 1:
                raise ValueError(f"it stops at byte {position} of {len(data)} with {len(stack)} values, expected one")
            return stack[0]
        elif operation not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {operation} at byte {position} is not allowed")
    raise ValueError("it has no end")


def _global(name: str, names: frozenset[str]) -> Global:
    name = name.replace("numpy._core.", "numpy.core.")  # numpy 2 writes the first, numpy 1 the second
    if name not in names:
        raise ValueError(f"it refers to {name!r}, expected only names on the allow-list")
    return Global(name)


def _append(stack: list[Any], values: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise ValueError(f"it appends to a {type(stack[-1]).__name__}, expected a list")
    stack[-1].extend(values)


def _store(stack: list[Any], values: list[Any]) -> None:
    entries = stack[-1].entries if type(stack[-1]) is Call else stack[-1]
    keys = values[::2]
    if type(entries) is not dict or len(values) % 2 or not all(type(key) in (str, int) for key in keys):
        raise ValueError("it stores under keys, expected pairs of a string or integer and a value, in a dict")
    entries.update(zip(keys, values[1::2], strict=True))


def _tuple(stack: list[Any], size: int) -> None:
    if len(stack) < size:
        raise ValueError(f"it makes {size} of {len(stack)} values")
    stack[-size:] = [tuple(stack[-size:])]


def _call(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    if type(function) is not Global or type(arguments) is not tuple:
        raise ValueError(f"it calls a {type(function).__name__}, expected a named function")
    stack.append(Call(function, arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    if type(stack[-1]) is not Call:
        raise ValueError(f"it sets the state of a {type(stack[-1]).__name__}, expected an object")
    stack[-1].state = state


def _new_dict(stack: list[Any], values: list[Any]) -> None:
    stack.append({})
    _store(stack, values)


_LITERALS = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 BINFLOAT FLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 UNICODE "
    "SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_REMEMBER = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_RECALL = frozenset({"GET", "BINGET", "LONG_BINGET"})
_SINCE_MARK: Mapping[str, Callable[[list[Any], list[Any]], None]] = {
    "APPENDS": _append,
    "SETITEMS": _store,
    "TUPLE": lambda stack, values: stack.append(tuple(values)),
    "LIST": lambda stack, values: stack.append(values),
    "DICT": _new_dict,
}
_ON_STACK: Mapping[str, Callable[[list[Any]], None]] = {
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE1": lambda stack: _tuple(stack, 1),
    "TUPLE2": lambda stack: _tuple(stack, 2),
    "TUPLE3": lambda stack: _tuple(stack, 3),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "SETITEM": lambda stack: _store(stack, [stack.pop(), stack.pop()][::-1]),
    "REDUCE": _call,
    "NEWOBJ": _call,
    "BUILD": _build,
    "BINPERSID": lambda stack: stack.append(Call(Global(_PERSISTENT_ID), (stack.pop(),))),
}


def read_frame(path: str | os.PathLike[str]) -> Frame:
    """Read a pickled pandas 2 frame whose columns hold Python objects, without pandas.

    Args:
        path: the file.

    Returns:
        The columns and the row index.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not such a frame, or refers to anything else.
    """
    root = read_pickle(_existing(path).read_bytes(), names=_PANDAS_NAMES, source=str(path))
    try:
        return _frame(root)
    except _DAMAGE as error:
        raise ValueError(f"{path}: not a pandas frame of Python objects: {error}") from error


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
    if not (file := pathlib.Path(path)).is_file():
        raise FileNotFoundError(f"{file}: no such file")
    return file


def _frame(root: Any) -> Frame:
    manager = _object(root, "pandas.core.frame.DataFrame").state["_mgr"]
    blocks, (column_axis, row_axis) = _object(manager, "pandas.core.internals.managers.BlockManager").arguments
    names = _objects(_index(column_axis, "pandas.core.indexes.base.Index")["data"], ndim=1)
    if not names or len(blocks) > len(names) or not all(type(name) is str for name in names):
        raise ValueError("its columns are not named by strings")
    columns: dict[str, list[Any]] = {}
    for piece in blocks:
        values, placement, _ = _object(piece, "pandas._libs.internals._unpickle_block").arguments
        start, stop, step = _integers(_object(placement, "builtins.slice").arguments)
        columns.update(zip(names[start:stop:step], _objects(values, ndim=2), strict=True))
    if columns.keys() != set(names):
        raise ValueError(f"it has values for {len(columns)} of {len(names)} columns")
    return Frame(columns, _row_index(row_axis, len(columns[names[0]])))


def _object(node: Any, function: str) -> Call:
    if type(node) is not Call or node.function.name != function:
        found = node.function.name if type(node) is Call else type(node).__name__
        raise ValueError(f"it has a {found}, expected a {function}")
    return node


def _integers(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("it has sizes that are not whole numbers from 0")
    return values


def _index(node: Any, kind: str) -> dict[str | int, Any]:
    subclass, fields = _object(node, "pandas.core.indexes.base._new_Index").arguments
    if subclass != Global(kind) or type(fields) is not dict:
        raise ValueError(f"it has another index, expected {kind}")
    return fields


def _objects(node: Any, *, ndim: int) -> list[Any]:
    """The rows of an array of Python objects; of one dimension, the objects."""
    array = _object(node, "numpy.core.multiarray._reconstruct")
    _, shape, kind, _, values = array.state
    # numpy writes the objects in C order, whatever the order in memory
    if _object(kind, "numpy.dtype").arguments[0] not in ("O", "O8") or type(values) is not list:
        raise ValueError("it has an array of numbers, expected Python objects")
    if len(_integers(shape)) != ndim or math.prod(shape) != len(values):
        raise ValueError(f"it has {len(values)} objects in shape {shape}, expected {ndim} dimensions that hold them")
    width = shape[-1]
    return values if ndim == 1 else [values[row * width : (row + 1) * width] for row in range(shape[0])]


def _row_index(node: Any, num_rows: int) -> Int64[np.ndarray, " N"]:
    if _object(node, "pandas.core.indexes.base._new_Index").arguments[0] == Global(
        "pandas.core.indexes.range.RangeIndex"
    ):
        fields = _index(node, "pandas.core.indexes.range.RangeIndex")
        rows = range(*_integers(tuple(fields[field] for field in ("start", "stop", "step"))))
        if len(rows) != num_rows:
            raise ValueError(f"its index has {len(rows)} labels for {num_rows} rows")
        return np.array(rows, dtype=np.int64)
    data = _index(node, "pandas.core.indexes.base.Index")["data"]
    buffer, kind, shape, _ = _object(data, "numpy.core.numeric._frombuffer").arguments
    if _object(kind, "numpy.dtype").arguments[0] != "i8" or kind.state[1] != "<":
        raise ValueError("its index is not of little-endian 64-bit integers")
    if shape != (num_rows,) or len(buffer) != 8 * num_rows:
        raise ValueError(f"its index has {len(buffer)} bytes in shape {shape} for {num_rows} rows")
    return np.frombuffer(bytes(buffer), dtype="<i8").astype(np.int64)


def read_torch_archive(path: str | os.PathLike[str]) -> dict[str, Float32[np.ndarray, "..."]]:
    """Read the float32 arrays of a saved torch state dictionary, without torch.

    Args:
        path: the zip archive that ``torch.save`` wrote.

    Returns:
        Name → read-only array, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive is damaged or cut short, or holds anything but little-endian float32 arrays.
    """
    file = _existing(path)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive)
        root = read_pickle(members["data.pkl"], names=_TORCH_NAMES, source="data.pkl")
        arrays = _object(root, "collections.OrderedDict").entries
        return {str(name): _tensor(name, node, members) for name, node in arrays.items()}
    except (*_DAMAGE, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a torch archive of float32 arrays: {' '.join(str(error).split())}") from error


def _members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("it is compressed, expected stored members")
    # every member's name starts with the archive's, which may hold any character but a slash
    members = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    for name in ("data.pkl", "byteorder"):
        if name not in members:
            raise ValueError(f"it has no member {name}")
    if members["byteorder"] != b"little":
        raise ValueError(f"its byte order is {members['byteorder'][:20]!r}, expected little")
    return members


def _tensor(name: object, node: Any, members: Mapping[str, bytes]) -> Float32[np.ndarray, "..."]:
    storage, offset, shape, strides = _object(node, "torch._utils._rebuild_tensor_v2").arguments[:4]
    tag, kind, key, _, size = _object(storage, _PERSISTENT_ID).arguments[0]
    if tag != "storage" or kind != Global("torch.FloatStorage") or type(key) is not str:
        raise ValueError(f"{name} is not in a storage of float32")
    data = members[f"data/{key}"]
    _integers((offset, size)), _integers(shape), _integers(strides)
    if len(data) != 4 * size:
        raise ValueError(f"the storage of {name} has {len(data)} bytes, expected {4 * size}")
    last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    # an array has no more numbers than its storage: a stride of 0 must not unfold a small file into a large array
    if math.prod(shape) > size or (math.prod(shape) and last >= size):
        raise ValueError(f"{name} of shape {shape}, strides {strides} and offset {offset} leaves its {size} numbers")
    values = np.frombuffer(data, dtype="<f4")[min(offset, size) :]
    view = np.lib.stride_tricks.as_strided(values, shape, tuple(4 * stride for stride in strides), writeable=False)
    return view.astype(np.float32, copy=False)
