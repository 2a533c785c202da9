"""The files that ALKDRec's authors released: sessions, titles, recorded LLM rankings, selections.

The release numbers items from 0 by the row of the title file, and its code also pads with 0. Here item ``i`` of the
release is item ``i + 1``, and 0 is padding only. The files are read as they are and treated as untrusted.
"""

import csv
import dataclasses
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data import pickles
from alkd_jax.data.sessions import build_dataset, pack, unpack
from alkd_jax.types import PAD, Dataset, Rankings

_PAPER_COUNTS: Mapping[str, Mapping[str, int]] = {
    "ML": {"sessions": 12_323, "items": 8_475, "interactions": 112_034},
    "Games": {"sessions": 20_091, "items": 26_138, "interactions": 132_677},
}
_SELECTION_FILES: Mapping[str, str] = {
    "ALKDRec": "ALKERec",
    "RAD-BC": "RAD-BC",
    "random": "random",
    "easiest": "easiest",
    "hardest": "hardest",
}
_FAULTS = ("repeated", "in_history", "beyond_catalogue", "beyond_length")
_NO_PLACE = 25  # what the release writes for a target that is not in the list
# at most nine digits, so that every number fits int32
_RANKING = re.compile(rb"([0-9]{1,9})\t\[([0-9]{1,9}(?:, ?[0-9]{1,9})*)?\]\t([0-9]{1,9})\r?")
_SESSION_ROW = re.compile(rb"([0-9]{1,9})\r?")


def load_released(directory: str | os.PathLike[str], name: str, *, max_length: int = 10) -> Dataset:
    """Read the authors' sessions and titles, split 6:2:2 in the order of the rows as in the paper.

    Inputs without a title are left out, then sessions whose target has no title or that have no input left. The
    position of a session among the kept rows is its ``session_id``: the release's other files count the same way.

    Args:
        directory: the release, with the folders ML and Games.
        name: "ML" (HetRec 2011) or "Games" (Amazon 2018).
        max_length: L, how many of the most recent inputs a model sees.

    Returns:
        The dataset; its report counts what was dropped and says whether the counts are the paper's.

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name is unknown or a file is damaged.
    """
    folder = _folder(directory, name)
    item_ids, titles = _read_titles(folder / f"{name}_title.csv")
    frame = pickles.read_frame(folder / f"{name}.pkl")
    sessions, counts = _number_items(frame, item_ids, folder / f"{name}.pkl")
    try:
        dataset = build_dataset(name, pack(sessions), titles, item_ids, max_length=max_length, report=counts)
    except ValueError as error:
        raise ValueError(f"{folder / f'{name}.pkl'}: {error}") from error
    agrees = all(dataset.report[key] == count for key, count in _PAPER_COUNTS[name].items())
    return dataclasses.replace(dataset, report={**dataset.report, "counts_agree_with_paper": agrees})


def _folder(directory: str | os.PathLike[str], name: str) -> pathlib.Path:
    if name not in _PAPER_COUNTS:
        raise ValueError(f"dataset {name!r}, expected one of {', '.join(_PAPER_COUNTS)}")
    folder = pathlib.Path(directory) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the released files of {name} in it")
    return folder


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path.read_bytes()


def _read_titles(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """The identifiers and titles of the items, the first of each empty for the padding."""
    try:
        text = _read(path).decode("utf-8")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a UTF-8 csv file: {error}") from error
    if not rows or rows[0][1] != ["itemID", "title"]:
        raise ValueError(f"{path}, line 1: {rows[0][1] if rows else 'nothing'}, expected itemID,title")
    if not text.endswith("\n"):
        raise ValueError(f"{path}, line {reader.line_num}: no line end, the file is cut short")
    lines_by_id: dict[str, int] = {}
    for line, row in rows[1:]:
        if len(row) != 2 or not row[0]:
            raise ValueError(f"{path}, line {line}: {len(row)} fields, expected an item id and a title")
        if row[0] in lines_by_id:
            raise ValueError(f"{path}, line {line}: item {row[0]!r} was already on line {lines_by_id[row[0]]}")
        lines_by_id[row[0]] = line
    return ["", *lines_by_id], ["", *(row[1] for _, row in rows[1:])]


def _number_items(
    frame: pickles.Frame, item_ids: Sequence[str], path: pathlib.Path
) -> tuple[list[list[int]], dict[str, Any]]:
    """The kept sessions in our item numbers, the target last, and the counts of what was dropped."""
    if not {"session", "label"} <= frame.columns.keys():
        raise ValueError(f"{path}: columns {', '.join(frame.columns)}, expected session and label")
    numbers = {item_id: number for number, item_id in enumerate(item_ids) if number != PAD}
    kept, dropped = [], {"target_untitled": 0, "no_input_left": 0}
    inputs_untitled = 0
    untitled: set[str] = set()
    rows = zip(frame.columns["session"], frame.columns["label"], strict=True)
    for row, (inputs, target) in enumerate(rows):
        if type(inputs) is not list or not all(type(item) is str for item in [*inputs, target]):
            raise ValueError(f"{path}, row {row}: expected a list of item ids and an item id, as strings")
        titled = [numbers[item] for item in inputs if item in numbers]
        inputs_untitled += len(inputs) - len(titled)
        untitled.update(item for item in [*inputs, target] if item not in numbers)
        if target not in numbers:
            dropped["target_untitled"] += 1
        elif not titled:
            dropped["no_input_left"] += 1
        else:
            kept.append([*titled, numbers[target]])
    return kept, {
        "source": "the authors' release",
        "rows_read": len(frame.columns["session"]),
        "rows_dropped": dropped,
        "inputs_untitled": inputs_untitled,
        "items_untitled": len(untitled),
        **_row_order(frame.index),
    }


def _row_order(index: Int64[np.ndarray, " N"]) -> dict[str, Any]:
    """The runs of consecutive labels that the rows' index consists of: more than one where blocks were exchanged."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    runs = [[int(run[0]), int(run[-1])] for run in np.split(index, breaks) if len(run)]
    return {
        "row_order": "as in the file, not sorted by the index",
        "index_runs": runs[:10],
        "num_index_runs": len(runs),
    }


def load_released_rankings(
    directory: str | os.PathLike[str],
    name: str,
    *,
    repair: bool = True,
    length: int = 25,
    dataset: Dataset | None = None,
) -> tuple[Rankings, dict[str, Any]]:
    """Read the rankings that the authors recorded from an LLM for training sessions.

    Repairs, in this order: a repeated item keeps its first place, items of the session's history and items beyond the
    catalogue are dropped, the list is cut, an empty list is dropped.

    Args:
        directory: the release, with the folders ML and Games.
        name: "ML" or "Games".
        repair: False keeps the lists as they were recorded, repeats, history, any length and empty ones included; only
            items that the catalogue does not have are dropped all the same, since no table has a row for them.
        length: K, where a repaired list is cut.
        dataset: what :func:`load_released` gave, to spare reading it again.

    Returns:
        The rankings in the order of the file, and what was read and repaired, in lists and in entries (list items).

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name is unknown, or a file is damaged or cut short.
    """
    if length < 1:
        raise ValueError(f"length: {length}, expected at least 1")
    dataset = dataset or load_released(directory, name)
    path = _folder(directory, name) / f"{name}_LLM_Database.data"
    session_id, recorded, places = _read_rankings(path, len(dataset.train))
    sequences = unpack(dataset.train_sequences)
    whole = [sequences[row] for row in session_id]
    stages = [
        _repair(items, session[:-1], dataset.num_items, length) for items, session in zip(recorded, whole, strict=True)
    ]
    known = [[item for item in items if item <= dataset.num_items] for items in recorded]
    lists = [stage[-1] for stage in stages] if repair else known
    kept = [n for n, items in enumerate(lists) if items or not repair]
    report = {
        "file": path.name,
        "repaired": repair,
        "lists_read": len(recorded),
        "entries_read": sum(map(len, recorded)),
        "lists_empty": sum(not items for items in recorded),
        "places_disagree": sum(
            place != (items.index(session[-1]) if session[-1] in items else _NO_PLACE)
            for items, session, place in zip(recorded, whole, places, strict=True)
        ),
        "faults": _count_repairs(stages),
        "lists_kept": len(kept),
        "entries_kept": sum(len(lists[n]) for n in kept),
    }
    width = length if repair else max(map(len, recorded))
    return _rankings([session_id[n] for n in kept], [lists[n] for n in kept], width), report


def _read_rankings(path: pathlib.Path, num_train: int) -> tuple[list[int], list[list[int]], list[int]]:
    """Training session, list in our item numbers, and recorded place of the target (25 for none) of every line."""
    session_id, lists, places = [], [], []
    for line, match in _matches(path, _RANKING, "a row, a list of items and a place, tab-separated"):
        items = [int(item) + 1 for item in match[2].split(b",")] if match[2] else []
        session_id.append(_training_row(match[1], num_train, path, line))
        lists.append(items)
        places.append(int(match[3]))
    _check_distinct(session_id, path)
    return session_id, lists, places


def _matches(path: pathlib.Path, pattern: re.Pattern[bytes], expected: str) -> Iterator[tuple[int, re.Match[bytes]]]:
    *lines, rest = _read(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if (match := pattern.fullmatch(line)) is None:
            raise ValueError(f"{path}, line {number}: {line[:40].decode('ascii', 'replace')!r}, expected {expected}")
        yield number, match
    if rest or not lines:
        raise ValueError(f"{path}, line {len(lines) + 1}: no line end, the file is cut short or empty")


def _training_row(digits: bytes, num_train: int, path: pathlib.Path, line: int) -> int:
    if (row := int(digits)) >= num_train:
        raise ValueError(f"{path}, line {line}: row {row}, expected a training row below {num_train}")
    return row


def _check_distinct(rows: Sequence[int], path: pathlib.Path) -> None:
    first: dict[int, int] = {}
    for line, row in enumerate(rows, start=1):
        if first.setdefault(row, line) != line:
            raise ValueError(f"{path}, line {line}: row {row} was already on line {first[row]}")


def _repair(items: list[int], history: Sequence[int], num_items: int, length: int) -> list[list[int]]:
    """The list as read and after each of the repairs in :data:`_FAULTS`."""
    distinct = list(dict.fromkeys(items))
    fresh = [item for item in distinct if item not in history]
    known = [item for item in fresh if item <= num_items]
    return [items, distinct, fresh, known, known[:length]]


def _count_repairs(stages: Sequence[Sequence[list[int]]]) -> dict[str, dict[str, int]]:
    """How many lists each repair changed and how many entries it took, from the stages of every list."""
    lost = np.array([[len(before) - len(after) for before, after in itertools.pairwise(stage)] for stage in stages])
    return {
        fault: {"lists": int(np.sum(column > 0)), "entries": int(np.sum(column))}
        for fault, column in zip(_FAULTS, lost.T, strict=True)
    }


def _rankings(session_id: Sequence[int], lists: Sequence[Sequence[int]], width: int) -> Rankings:
    lengths = np.array([len(items) for items in lists], dtype=np.int64)
    mask = np.arange(width)[None, :] < lengths[:, None]
    items = np.full(mask.shape, PAD, dtype=np.int32)
    items[mask] = [item for row in lists for item in row]
    return Rankings(session_id=np.array(session_id, dtype=np.int32), items=items, mask=mask)


def load_released_selection(
    directory: str | os.PathLike[str], name: str, method: str, *, dataset: Dataset | None = None
) -> Int32[np.ndarray, " M"]:
    """Read which training sessions the authors chose to ask the LLM about.

    The files hold more sessions than the paper's budget; the authors' code takes the first 500 lines (750 for FPMC on
    Games).

    Args:
        directory: the release, with the folders ML and Games.
        name: "ML" or "Games".
        method: "ALKDRec", "RAD-BC", "random", "easiest" or "hardest".
        dataset: what :func:`load_released` gave, to spare reading it again.

    Returns:
        ``[M]`` distinct ``session_id`` of training sessions, in the order of the file.

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name or the method is unknown, or a file is damaged or cut short.
    """
    if method not in _SELECTION_FILES:
        raise ValueError(f"method {method!r}, expected one of {', '.join(_SELECTION_FILES)}")
    path = _folder(directory, name) / f"{name}_{_SELECTION_FILES[method]}.base"
    num_train = len((dataset or load_released(directory, name)).train)
    rows = [
        _training_row(match[1], num_train, path, line) for line, match in _matches(path, _SESSION_ROW, "a row number")
    ]
    _check_distinct(rows, path)
    return np.array(rows, dtype=np.int32)
