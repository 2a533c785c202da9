"""SR-GNN's pickles, ``(prefixes, targets)`` with items from 1, read as plain data."""

import os
import pathlib
from typing import Any

import numpy as np

from alkd_jax.data import pickles
from alkd_jax.data.interactions import Interactions, gather
from alkd_jax.data.text.bad_rows import BadRows

_PLAIN_LISTS: frozenset[str] = frozenset()


def load_srgnn(train: str | os.PathLike[str], test: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Read whole sessions from the files that hold all their prefixes.

    The files list each session whole and then its prefixes, longest first; the prefixes are folded into the session
    they belong to, since examples of one session must not be counted as many.

    Args:
        train: ``train.txt``, a pickle.
        test: ``test.txt``, a pickle.
        strict: whether the first bad session is an error.

    Returns:
        The interactions with session and split; times are the order of the rows, and there are no titles.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not a pickle of plain lists of numbers, or has a bad session and ``strict`` is set.

    Reference:
        Wu et al.: Session-based Recommendation with Graph Neural Networks, 2019.
    """
    import polars as pl

    bad_rows = BadRows(strict)

    def frame(path: str | os.PathLike[str], number: str) -> tuple[str, Any]:
        sessions = _fold(*_read(pathlib.Path(path), bad_rows))
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
    return gather(name, (frame(path, number) for path, number in ((train, "0"), (test, "2"))), bad_rows)


def _read(path: pathlib.Path, bad_rows: BadRows) -> tuple[list[int], list[list[int]]]:
    """Row numbers, from 1, and the items of each row, the target last."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found = pickles.read_pickle(path.read_bytes(), names=_PLAIN_LISTS, source=str(path))
    if not (isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(part, list) for part in found)):
        raise ValueError(f"{path}: expected a pair of lists, prefixes and targets")
    if len(found[0]) != len(found[1]):
        raise ValueError(f"{path}: {len(found[0])} prefixes and {len(found[1])} targets, expected equal numbers")
    good: list[tuple[int, list[int]]] = []
    bad: list[tuple[int, Any]] = []
    for row, (prefix, target) in enumerate(zip(*found, strict=True), 1):
        whole = [*prefix, target] if isinstance(prefix, list) and prefix else []
        plain = whole and all(type(item) is int and item > 0 for item in whole)
        (good if plain else bad).append((row, whole or prefix))
    bad_rows.add(str(path), "not a list of item numbers from 1", bad)
    return [row for row, _ in good], [items for _, items in good]


def _fold(rows: list[int], sessions: list[list[int]]) -> list[tuple[int, list[int]]]:
    """The sessions without the rows that are the row before less its target."""
    return [
        (row, items)
        for place, (row, items) in enumerate(zip(rows, sessions, strict=True))
        if not place or items != sessions[place - 1][:-1]
    ]
