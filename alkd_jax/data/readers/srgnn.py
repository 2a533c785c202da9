"""SR-GNN's files: pickles of ``(prefixes, targets)`` with items from 1, read as plain data."""

import os
import pathlib
from typing import Any

import numpy as np

from alkd_jax.data import pickles
from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.errors import shown

_NO_NAMES: frozenset[str] = frozenset()


def load_srgnn(train: str | os.PathLike[str], test: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads complete sessions from files that contain all their prefixes.

    The files list each complete session and then its prefixes, longest first. The prefixes are dropped, because they
    are examples made from the same session.

    Args:
        train: ``train.txt``, a pickle.
        test: ``test.txt``, a pickle.
        strict: whether the first bad session raises an error.

    Returns:
        The interactions with session and split. Times are row numbers, and there are no titles.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not a pickle of plain lists of numbers, or has a bad session while ``strict`` is set.

    Reference:
        Wu et al.: Session-based Recommendation with Graph Neural Networks, 2019.
    """
    import polars as pl

    bad_rows = BadRows(strict)

    def frame(path: str | os.PathLike[str], number: str) -> tuple[str, Any]:
        rows, lists = _read(pathlib.Path(path), bad_rows)
        sessions = _drop_prefixes(rows, lists)
        bad_rows.prefixes[str(path)] += len(rows) - len(sessions)
        length = [len(items) for _, items in sessions]
        names = np.repeat([f"{number}:{line}" for line, _ in sessions], length)
        return str(path), pl.DataFrame(
            {
                "line": np.repeat([line for line, _ in sessions], length),
                "session": pl.Series(names, dtype=pl.String),
                "item": pl.Series([str(item) for _, items in sessions for item in items], dtype=pl.String),
            }
        ).with_columns(split=pl.lit(number))

    name = f"SR-GNN {pathlib.Path(train).parent.name}".strip()
    return build_interactions(name, (frame(path, number) for path, number in ((train, "0"), (test, "2"))), bad_rows)


def _read(path: pathlib.Path, bad_rows: BadRows) -> tuple[list[int], list[list[int]]]:
    """Returns row numbers, from 1, and the items of each row, the target last."""
    data = pickles.existing_file(path).read_bytes()
    content = pickles.read_pickle(data, allowed_names=_NO_NAMES, source=str(path))
    if not (
        isinstance(content, tuple | list) and len(content) == 2 and all(isinstance(part, list) for part in content)
    ):
        raise ValueError(f"{path}: not a pair of lists; expected prefixes and targets")
    if len(content[0]) != len(content[1]):
        raise ValueError(f"{path}: {len(content[0])} prefixes and {len(content[1])} targets; expected equal numbers")
    pickles.check_not_shared(content[0], len(data), source=str(path))
    good: list[tuple[int, list[int]]] = []
    bad: list[tuple[int, str]] = []
    for row, (prefix, target) in enumerate(zip(*content, strict=True), 1):
        items = [*prefix, target] if isinstance(prefix, list) and prefix else []
        if items and all(type(item) is int and 0 < item < 1 << 63 for item in items):
            good.append((row, items))
        else:
            bad.append((row, shown(prefix)))
    bad_rows.found[str(path)] += len(content[0])
    bad_rows.add(str(path), "not a list of item numbers from 1", bad)
    return [row for row, _ in good], [items for _, items in good]


def _drop_prefixes(rows: list[int], sessions: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Returns the rows that are not the previous row without its last item."""
    return [
        (row, items)
        for index, (row, items) in enumerate(zip(rows, sessions, strict=True))
        if not index or items != sessions[index - 1][:-1]
    ]
