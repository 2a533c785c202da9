"""Untrusted pickles read as plain data.

A pickle is a program for a small stack machine, and Python's own reader imports and calls whatever the program names.
This module interprets the opcodes that the standard library decodes and only records names and calls. A name must be on
an allow-list. Nothing is imported, called or assigned, so that a hostile file cannot run code. The values it makes may
take a certain multiple of the file's size in memory, so that a small file cannot fill the memory either.
"""

import dataclasses
import os
import pathlib
import pickletools
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alkd_jax.errors import printable, shown

PERSISTENT_ID = "persistent id"
DECODE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error)
_BYTES_PER_BYTE = 24  # a list of one number, the largest of plain data, is 4 bytes in a file and 96 in memory
_SPARE_BYTES = 1 << 24
_MAX_OPEN_MARKS = 1000
_HIGHEST_PROTOCOL = 5
_MAX_KEY = 1 << 60  # the hash of a smaller integer is the integer, so that keys do not collide


@dataclasses.dataclass(frozen=True)
class Global:
    """A module's attribute that a pickle names, as ``module.attribute``; it is never imported."""

    name: str


@dataclasses.dataclass(eq=False, slots=True)
class Call:
    """A call in a pickle; it is never executed.

    Attributes:
        function: the function to call.
        arguments: the positional arguments.
        state: the state that is set on the resulting object.
        entries: the items that are stored in the resulting object, key → value.
    """

    function: Global
    arguments: tuple[Any, ...]
    state: Any = None
    entries: dict[str | int, Any] = dataclasses.field(default_factory=dict)


def read_pickle(data: bytes, *, allowed_names: frozenset[str], source: str) -> Any:
    """Interprets a pickle without importing or calling anything.

    Args:
        data: the complete pickle.
        allowed_names: the globals that the pickle may refer to, as ``module.attribute``.
        source: name of the file in error messages.

    Returns:
        Lists, tuples, dicts, strings, bytes and numbers, with :class:`Global` and :class:`Call` in place of objects.

    Raises:
        ValueError: the pickle is damaged, refers to another global, needs an opcode that plain data do not, or makes
            much more of its bytes than plain data do.
    """
    try:
        with warnings.catch_warnings():
            # Python warns of an invalid escape in a text string and keeps its characters.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _interpret(data, allowed_names)
    except DECODE_ERRORS as error:
        reason = "it takes a value that it did not make" if isinstance(error, LookupError) else error
        raise ValueError(f"{source}: not a readable pickle: {printable(reason, width=300)}") from error


def _interpret(data: bytes, allowed_names: frozenset[str]) -> Any:
    stack: list[Any] = []
    outer_stacks: list[list[Any]] = []
    memo = _Memo()
    made_bytes, frame_end = -_SPARE_BYTES, 0
    argument: Any
    for opcode, argument, position in pickletools.genops(data):
        operation = opcode.name
        if operation in _LITERALS:
            stack.append(argument)
        elif operation in _MEMO_PUT:
            made_bytes += memo.put(argument, stack[-1])
        elif operation in _MEMO_GET:
            stack.append(memo.get(argument))
        elif operation == "MARK":
            if len(outer_stacks) == _MAX_OPEN_MARKS:
                raise ValueError(f"it is nested deeper than {_MAX_OPEN_MARKS} at byte {position}; expected plain data")
            outer_stacks.append(stack)
            stack = []
        elif operation in _MARK_OPERATIONS:
            values, stack = stack, outer_stacks.pop()
            _MARK_OPERATIONS[operation](stack, values)
        elif operation in _STACK_OPERATIONS:
            _STACK_OPERATIONS[operation](stack)
        elif operation == "GLOBAL":
            stack.append(_global(argument.replace(" ", "."), allowed_names))
        elif operation == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if type(module) is not str or type(attribute) is not str:
                raise ValueError("it names a global by something other than strings")
            stack.append(_global(f"{module}.{attribute}", allowed_names))
        elif operation == "STOP":
            if len(stack) != 1 or outer_stacks or position != len(data) - 1:
                raise ValueError(
                    f"it stops at byte {position} of {len(data)} with {len(stack)} values; expected one at the end"
                )
            return stack[0]
        elif operation == "PROTO":
            if argument > _HIGHEST_PROTOCOL:
                raise ValueError(f"its protocol is {argument}; expected at most {_HIGHEST_PROTOCOL}")
        elif operation == "FRAME":
            if not frame_end <= (position or 0) or (frame_end := (position or 0) + 9 + argument) > len(data):
                raise ValueError(f"it has a frame of {argument} bytes at byte {position}; expected frames side by side")
        else:
            raise ValueError(f"opcode is {operation} at byte {position}; expected one of plain data")
        made_bytes += _MADE_BYTES.get(operation, 0)
        if made_bytes > _BYTES_PER_BYTE * (position or 0):
            raise ValueError(
                f"its first {position} bytes make {made_bytes + _SPARE_BYTES} bytes of lists and objects; "
                f"expected at most {_BYTES_PER_BYTE} for each"
            )
    raise ValueError("it has no STOP opcode")


class _Memo:
    """Values that a pickle refers to again. Writers number them from 0, so that a list holds them all but odd ones."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._others: dict[int, Any] = {}

    def put(self, index: int | None, value: Any) -> int:
        """Keeps a value under an index, None for the next one, and returns the bytes of memory that it takes."""
        if index is None or index == len(self._values):
            self._values.append(value)
            return 8
        if 0 <= index < len(self._values):
            self._values[index] = value
            return 0
        self._others[index] = value
        return 128

    def get(self, index: int) -> Any:
        return self._values[index] if 0 <= index < len(self._values) else self._others[index]


def _global(name: str, allowed_names: frozenset[str]) -> Global:
    name = name.replace("numpy._core.", "numpy.core.")  # the names of NumPy 2 and NumPy 1
    if name not in allowed_names:
        raise ValueError(f"it refers to {shown(name)}; expected {' or '.join(sorted(allowed_names)) or 'no name'}")
    return Global(name)


def _append(stack: list[Any], values: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise ValueError(f"it appends to a {type(stack[-1]).__name__}; expected a list")
    stack[-1].extend(values)


def _store(stack: list[Any], values: list[Any]) -> None:
    entries = stack[-1].entries if type(stack[-1]) is Call else stack[-1]
    keys = values[::2]
    is_key = (type(key) is str or (type(key) is int and abs(key) < _MAX_KEY) for key in keys)
    if type(entries) is not dict or len(values) % 2 or not all(is_key):
        raise ValueError(
            "it stores items in another object or under other keys; "
            "expected a dict with strings or short integers as keys"
        )
    entries.update(zip(keys, values[1::2], strict=True))


def _tuple(stack: list[Any], size: int) -> None:
    if len(stack) < size:
        raise ValueError(f"it makes a tuple of {size} from {len(stack)} values; expected at least {size}")
    stack[-size:] = [tuple(stack[-size:])]


def _call(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    if type(function) is not Global or type(arguments) is not tuple:
        raise ValueError(f"it calls a {type(function).__name__}; expected a named function")
    stack.append(Call(function, arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    if type(stack[-1]) is not Call:
        raise ValueError(f"it sets the state of a {type(stack[-1]).__name__}; expected an object")
    stack[-1].state = state


def _new_dict(stack: list[Any], values: list[Any]) -> None:
    stack.append({})
    _store(stack, values)


_LITERALS = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 BINFLOAT FLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 UNICODE "
    "SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_MEMO_PUT = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_MEMO_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MARK_OPERATIONS: Mapping[str, Callable[[list[Any], list[Any]], None]] = {
    "APPENDS": _append,
    "SETITEMS": _store,
    "TUPLE": lambda stack, values: stack.append(tuple(values)),
    "LIST": lambda stack, values: stack.append(values),
    "DICT": _new_dict,
}
_STACK_OPERATIONS: Mapping[str, Callable[[list[Any]], None]] = {
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
    "BINPERSID": lambda stack: stack.append(Call(Global(PERSISTENT_ID), (stack.pop(),))),
}

_MADE_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("EMPTY_LIST", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT"), 64),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "BINPERSID", "SETITEM", "SETITEMS"), 168),
}
"""Opcode → the bytes of memory of what it makes, beside the numbers and strings in it."""


def expect_call(node: Any, function: str) -> Call:
    """Returns a node if it is a call of this function.

    Raises:
        ValueError: the node is anything else.
    """
    if type(node) is not Call or node.function.name != function:
        actual = node.function.name if type(node) is Call else type(node).__name__
        raise ValueError(f"it has a {actual}; expected a {function}")
    return node


def expect_sizes(values: Any) -> tuple[int, ...]:
    """Returns a node if it is a tuple of integers of at least 0.

    Raises:
        ValueError: the node is anything else.
    """
    if type(values) is not tuple or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("it has sizes that are not integers; expected integers from 0")
    return values


def check_not_shared(lists: Iterable[Any], size: int, *, source: str) -> None:
    """Checks that a pickle does not let one list stand for many rows, which would take much more memory than the file.

    Args:
        lists: the rows; values that are no lists count as nothing.
        size: number of bytes of the pickle.
        source: name of the file in error messages.

    Raises:
        ValueError: the rows have more values than the file has bytes.
    """
    total = sum(len(row) for row in lists if type(row) is list)
    if total > size:
        raise ValueError(f"{source}: {total} values in {size} bytes; expected each row to have a list of its own")


def existing_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not (file := pathlib.Path(path)).is_file():
        raise FileNotFoundError(f"{file}: no such file")
    return file
