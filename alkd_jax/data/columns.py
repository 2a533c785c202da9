"""Sessions as columns in files that are mapped into memory, for more sessions than a host holds.

A folder has one file of NumPy's format for each field of :class:`alkd_jax.types.Sessions`. What maps it reads only the
rows that it is asked for.
"""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from alkd_jax.checks import check_count
from alkd_jax.errors import reading, writing
from alkd_jax.io import move_into
from alkd_jax.types import Sessions

_TYPES: dict[str, type] = {"items": np.int32, "mask": np.bool_, "target": np.int32, "session_id": np.int32}


def save_columns(folder: str | os.PathLike[str], blocks: Iterable[Sessions], *, num: int, length: int) -> None:
    """Writes sessions as columns, a block at a time; the columns appear complete or not at all.

    Args:
        folder: a folder without columns; it is created if it does not exist.
        blocks: the sessions in their order.
        num: N, the number of sessions in all blocks together.
        length: L, the width of the blocks.

    Raises:
        ValueError: the folder holds columns, or the blocks have another number of sessions or another width.
        OSError: there is no room for them.

    Example:
        >>> import tempfile
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> num, length = ds.train.items.shape
        >>> folder = tempfile.mkdtemp() + "/columns"
        >>> alkd.data.save_columns(folder, [ds.train], num=num, length=length)
        >>> len(alkd.data.map_columns(folder)) == num
        True
    """
    check_count(1, num=num, length=length)
    path, names = pathlib.Path(folder), [f"{name}.npy" for name in _TYPES]
    if there := [name for name in names if (path / name).exists()]:
        raise ValueError(f"{path} holds {there[0]}; expected a folder without columns")
    partial = path / ".columns.partial"
    partial.mkdir(parents=True, exist_ok=True)
    shapes = {"items": (num, length), "mask": (num, length), "target": (num,), "session_id": (num,)}
    with writing(path):
        columns = {
            name: np.lib.format.open_memmap(partial / f"{name}.npy", mode="w+", dtype=dtype, shape=shapes[name])
            for name, dtype in _TYPES.items()
        }
        stop = 0
        for block in blocks:
            start, stop = stop, stop + len(block)
            if stop > num or block.items.shape[1] != length:
                raise ValueError(
                    f"blocks have {stop} sessions of width {block.items.shape[1]} or more; expected {num} of {length}"
                )
            for name, column in columns.items():
                column[start:stop] = getattr(block, name)
        if stop < num:
            raise ValueError(f"blocks have {stop} sessions; expected {num}")
        for column in columns.values():
            column.flush()
        move_into(path, partial, names)
        partial.rmdir()


def map_columns(folder: str | os.PathLike[str]) -> Sessions:
    """Maps the columns of :func:`save_columns` into memory, for reading.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: a column is missing.
        ValueError: a column is damaged, of another type, or has another number of sessions.
    """
    columns = {}
    for name, dtype in _TYPES.items():
        file = pathlib.Path(folder) / f"{name}.npy"
        with reading(file, expected="a column of save_columns"):
            columns[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        if columns[name].dtype != dtype or columns[name].ndim != 1 + (name in ("items", "mask")):
            found = f"{columns[name].dtype} {columns[name].shape}"
            raise ValueError(f"{file} holds {found}; expected a column of {np.dtype(dtype)}")
    sessions = Sessions(**columns)
    if {len(column) for column in columns.values()} != {len(sessions)} or sessions.mask.shape != sessions.items.shape:
        shapes = {name: column.shape for name, column in columns.items()}
        raise ValueError(f"{folder} holds columns of the shapes {shapes}; expected one number of sessions")
    return sessions
