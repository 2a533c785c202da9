"""Pickled pandas frames of Python objects, read without pandas."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from alkd_jax.data.pickles import (
    DECODE_ERRORS,
    Global,
    check_not_shared,
    existing_file,
    expect_call,
    expect_sizes,
    read_pickle,
)
from alkd_jax.errors import printable, shown

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


@dataclasses.dataclass(frozen=True)
class Frame:
    """The columns of a pandas frame.

    Attributes:
        columns: column name → N values, in the order of the rows.
        index: ``[N]`` label of each row.
    """

    columns: Mapping[str, list[Any]]
    index: Int64[np.ndarray, " N"]


def read_frame(path: str | os.PathLike[str]) -> Frame:
    """Reads a pickled pandas 2 frame whose columns contain Python objects, without pandas.

    Args:
        path: the file.

    Returns:
        The columns and the row index.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not such a frame, or refers to other names.
    """
    data = existing_file(path).read_bytes()
    root = read_pickle(data, allowed_names=_PANDAS_NAMES, source=str(path))
    try:
        frame = _frame(root, len(data))
    except DECODE_ERRORS as error:
        raise ValueError(f"{path}: not a pandas frame of Python objects: {printable(error, width=300)}") from error
    for values in frame.columns.values():
        check_not_shared(values, len(data), source=str(path))
    return frame


def _frame(root: Any, size: int) -> Frame:
    manager = expect_call(root, "pandas.core.frame.DataFrame").state["_mgr"]
    blocks, (column_axis, row_axis) = expect_call(manager, "pandas.core.internals.managers.BlockManager").arguments
    names = _objects(_index(column_axis, "pandas.core.indexes.base.Index")["data"], ndim=1)
    if not names or len(blocks) > len(names) or not all(type(name) is str for name in names):
        raise ValueError("its columns are not named by strings; expected one string per column")
    columns: dict[str, list[Any]] = {}
    cells = 0
    for pandas_block in blocks:
        values, placement, _ = expect_call(pandas_block, "pandas._libs.internals._unpickle_block").arguments
        start, stop, step = expect_sizes(expect_call(placement, "builtins.slice").arguments)
        for name, column in zip(names[start:stop:step], _objects(values, ndim=2), strict=True):
            if name in columns:
                raise ValueError(f"it has column {shown(name)} twice; expected distinct columns")
            columns[name] = column
            cells += len(column)
        if cells > size:
            raise ValueError(f"its columns have {cells} cells in {size} bytes; expected an array for each block")
    if len(columns) != len(names):
        raise ValueError(f"it has values for {len(columns)} of {len(names)} columns; expected all")
    return Frame(columns, _row_index(row_axis, len(columns[names[0]])))


def _index(node: Any, kind: str) -> dict[str | int, Any]:
    subclass, fields = expect_call(node, "pandas.core.indexes.base._new_Index").arguments
    if subclass != Global(kind) or type(fields) is not dict:
        raise ValueError(f"it has another index; expected {kind}")
    return fields


def _objects(node: Any, *, ndim: int) -> list[Any]:
    """Returns the objects of a one-dimensional array, or the rows of a two-dimensional one."""
    array = expect_call(node, "numpy.core.multiarray._reconstruct")
    _, shape, kind, _, values = array.state
    # NumPy writes the objects in C order, whatever their order in memory.
    if expect_call(kind, "numpy.dtype").arguments[0] not in ("O", "O8") or type(values) is not list:
        raise ValueError("it has an array of numbers; expected Python objects")
    if len(expect_sizes(shape)) != ndim or math.prod(shape) != len(values):
        raise ValueError(
            f"it has {len(values)} objects in shape {shown(shape)}; expected {ndim} dimensions of that size"
        )
    if not values:
        raise ValueError("it has no rows or no columns; expected at least one")
    width = shape[-1]
    return values if ndim == 1 else [values[row * width : (row + 1) * width] for row in range(shape[0])]


def _row_index(node: Any, num_rows: int) -> Int64[np.ndarray, " N"]:
    if expect_call(node, "pandas.core.indexes.base._new_Index").arguments[0] == Global(
        "pandas.core.indexes.range.RangeIndex"
    ):
        fields = _index(node, "pandas.core.indexes.range.RangeIndex")
        rows = range(*expect_sizes(tuple(fields[field] for field in ("start", "stop", "step"))))
        if len(rows) != num_rows:
            raise ValueError(f"its index has {len(rows)} labels for {num_rows} rows; expected one per row")
        return np.array(rows, dtype=np.int64)
    data = _index(node, "pandas.core.indexes.base.Index")["data"]
    buffer, kind, shape, _ = expect_call(data, "numpy.core.numeric._frombuffer").arguments
    if expect_call(kind, "numpy.dtype").arguments[0] != "i8" or kind.state[1] != "<":
        raise ValueError("its index has another type; expected little-endian 64-bit integers")
    if shape != (num_rows,) or len(buffer) != 8 * num_rows:
        raise ValueError(
            f"its index has {len(buffer)} bytes in shape {shown(shape)}; expected 8 bytes for each of {num_rows} rows"
        )
    return np.frombuffer(bytes(buffer), dtype="<i8").astype(np.int64)
