"""The files that ALKDRec's authors released: sessions, titles, recorded LLM rankings, selections.

The release numbers items from 0 by the row of the file of titles, and its code also pads with 0. Here item ``i`` of the
release is item ``i + 1``, and 0 is padding only. The files are read in their original form and are not trusted.
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

from alkd_jax import paper_settings
from alkd_jax.checks import check_at_least, check_padding
from alkd_jax.data.pandas_frames import Frame, read_frame
from alkd_jax.data.sessions import build_dataset, pack, unpack
from alkd_jax.data.text.source_files import file_below
from alkd_jax.errors import printable, shown
from alkd_jax.types import PAD, Dataset, Rankings

_SELECTION_FILES: Mapping[str, str] = {
    "ALKDRec": "ALKERec",
    "RAD-BC": "RAD-BC",
    "random": "random",
    "easiest": "easiest",
    "hardest": "hardest",
}
_REPAIRS = ("repeated", "in_history", "beyond_catalogue", "beyond_length")
_NOT_IN_LIST = 25  # position that the release records for a target that is not in the list
# At most nine digits, so that every number fits into int32.
_RANKING_LINE = re.compile(rb"([0-9]{1,9})\t\[([0-9]{1,9}(?:, ?[0-9]{1,9})*)?\]\t([0-9]{1,9})\r?")
_SELECTION_LINE = re.compile(rb"([0-9]{1,9})\r?")


def load_released(directory: str | os.PathLike[str], name: str, *, max_length: int = 10) -> Dataset:
    """Reads the authors' sessions and titles, split 6:2:2 in the order of the rows as in the paper.

    Inputs without a title are dropped, then sessions whose target has no title or that have no input left. The position
    of a session among the remaining rows is its ``session_id``, as in the release's other files.

    Args:
        directory: folder of the release, which contains the folders ML and Games.
        name: "ML" (HetRec 2011) or "Games" (Amazon 2018).
        max_length: L, the number of most recent inputs that a model sees.

    Returns:
        The dataset; its report has the counts of what was dropped and whether the sizes agree with the paper.

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name is unknown or a file is damaged.

    Example:
        >>> ds = alkd.load_released("alkdrec-release", "ML")  # doctest: +SKIP
        >>> len(ds.train), len(ds.validation), len(ds.test)  # doctest: +SKIP
        (7393, 2465, 2465)
        >>> ds.num_items  # doctest: +SKIP
        8475
    """
    folder = _folder(directory, name)
    item_ids, titles = _read_titles(file_below(folder, f"{name}_title.csv"))
    sessions_file = file_below(folder, f"{name}.pkl")
    sessions, counts = _number_items(read_frame(sessions_file), item_ids, sessions_file)
    try:
        dataset = build_dataset(name, pack(sessions), titles, item_ids, max_length=max_length, report=counts)
    except ValueError as error:
        raise ValueError(f"{sessions_file}: {error}") from error
    agrees = all(dataset.report[key] == count for key, count in paper_settings.SETTINGS[name].release_counts.items())
    return dataclasses.replace(dataset, report={**dataset.report, "counts_agree_with_paper": agrees})


def _folder(directory: str | os.PathLike[str], name: str) -> pathlib.Path:
    if name not in paper_settings.SETTINGS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(paper_settings.SETTINGS)}")
    folder = pathlib.Path(directory) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a folder with the released files of {name}")
    return folder


def _read_titles(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the identifiers and titles of the items, each with an empty first entry for the padding."""
    try:
        text = path.read_bytes().decode("utf-8")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a UTF-8 csv file: {printable(error, width=150)}") from error
    if not rows or rows[0][1] != ["itemID", "title"]:
        raise ValueError(f"{path}, line 1: {shown(rows[0][1]) if rows else 'nothing'}; expected itemID,title")
    if not text.endswith("\n"):
        raise ValueError(f"{path}, line {reader.line_num}: no newline at the end; the file is truncated")
    lines_by_id: dict[str, int] = {}
    for line, row in rows[1:]:
        if len(row) != 2 or not row[0]:
            raise ValueError(f"{path}, line {line}: {len(row)} fields; expected an item id and a title")
        if any("\n" in field or "\r" in field for field in row):
            raise ValueError(f"{path}, up to line {line}: a quote is open over several lines; expected a row a line")
        if (first := lines_by_id.setdefault(row[0], line)) != line:
            raise ValueError(
                f"{path}, line {line}: item {shown(row[0])} is on line {first} too; expected distinct items"
            )
    return ["", *lines_by_id], ["", *(row[1] for _, row in rows[1:])]


def _number_items(frame: Frame, item_ids: Sequence[str], path: pathlib.Path) -> tuple[list[list[int]], dict[str, Any]]:
    """Returns the remaining sessions with items in ``1..V``, the target last, and the counts of what was dropped."""
    if not {"session", "label"} <= frame.columns.keys():
        raise ValueError(f"{path}: columns are {', '.join(frame.columns)}; expected session and label")
    numbers = {item_id: number for number, item_id in enumerate(item_ids) if number != PAD}
    sessions, dropped = [], {"target_untitled": 0, "no_input_left": 0}
    inputs_untitled = 0
    untitled: set[str] = set()
    rows = zip(frame.columns["session"], frame.columns["label"], strict=True)
    for row, (inputs, target) in enumerate(rows):
        if type(inputs) is not list or not all(type(item) is str for item in [*inputs, target]):
            raise ValueError(
                f"{path}, row {row}: inputs or target are of other types; expected a list of strings and a string"
            )
        titled = [numbers[item] for item in inputs if item in numbers]
        inputs_untitled += len(inputs) - len(titled)
        untitled.update(item for item in [*inputs, target] if item not in numbers)
        if target not in numbers:
            dropped["target_untitled"] += 1
        elif not titled:
            dropped["no_input_left"] += 1
        else:
            sessions.append([*titled, numbers[target]])
    return sessions, {
        "source": "the authors' release",
        "rows_read": len(frame.columns["session"]),
        "rows_dropped": dropped,
        "inputs_untitled": inputs_untitled,
        "items_untitled": len(untitled),
        **_row_order(frame.index),
    }


def _row_order(index: Int64[np.ndarray, " N"]) -> dict[str, Any]:
    """Returns the runs of consecutive labels in the index of the rows: more than one if blocks were exchanged."""
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
    """Reads the rankings that the authors recorded from an LLM for training sessions.

    Repairs, in this order: repetitions of an item are dropped, then items of the session's history, then items outside
    the catalogue; the list is truncated; an empty list is dropped.

    Args:
        directory: folder of the release, which contains the folders ML and Games.
        name: "ML" or "Games".
        repair: False returns the lists as recorded, with repetitions, items of the history, any length and empty lists;
            items outside the catalogue are dropped even then, because no table has a row for them.
        length: K, the length to which a repaired list is truncated.
        dataset: result of :func:`load_released`; None to read it.

    Returns:
        The rankings in the order of the file, and the counts of what was read and repaired, in lists and in entries
        (items of lists).

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name is unknown, or a file is damaged or truncated.
    """
    check_at_least(1, length=length)
    dataset = dataset or load_released(directory, name)
    path = file_below(_folder(directory, name), f"{name}_LLM_Database.data")
    session_id, recorded, positions = _read_rankings(path, len(dataset.train))
    sequences = unpack(dataset.train_sequences)
    complete = [sequences[row] for row in session_id]
    stages = [
        _repair(items, session[:-1], dataset.num_items, length)
        for items, session in zip(recorded, complete, strict=True)
    ]
    known = [[item for item in items if item <= dataset.num_items] for items in recorded]
    lists = [stage[-1] for stage in stages] if repair else known
    selected = [n for n, items in enumerate(lists) if items or not repair]
    report = {
        "file": path.name,
        "repaired": repair,
        "lists_read": len(recorded),
        "entries_read": sum(map(len, recorded)),
        "lists_empty": sum(not items for items in recorded),
        "places_disagree": sum(
            position != (items.index(session[-1]) if session[-1] in items else _NOT_IN_LIST)
            for items, session, position in zip(recorded, complete, positions, strict=True)
        ),
        "faults": _count_repairs(stages),
        "lists_kept": len(selected),
        "entries_kept": sum(len(lists[n]) for n in selected),
    }
    if not repair:
        check_padding([len(items) for items in recorded], [f"{path}, line {n + 1}" for n in range(len(recorded))])
    width = length if repair else max(map(len, recorded))
    return _pack_rankings([session_id[n] for n in selected], [lists[n] for n in selected], width), report


def _read_rankings(path: pathlib.Path, num_train: int) -> tuple[list[int], list[list[int]], list[int]]:
    """Returns every line's training session, list with items from 1, and recorded position of the target (25: none)."""
    session_id, lists, positions = [], [], []
    for line, match in _match_lines(path, _RANKING_LINE, "a row, a list of items and a position, separated by tabs"):
        items = [int(item) + 1 for item in match[2].split(b",")] if match[2] else []
        session_id.append(_training_row(match[1], num_train, path, line))
        lists.append(items)
        positions.append(int(match[3]))
    _check_distinct(session_id, path)
    return session_id, lists, positions


def _match_lines(
    path: pathlib.Path, pattern: re.Pattern[bytes], expected: str
) -> Iterator[tuple[int, re.Match[bytes]]]:
    *lines, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if (match := pattern.fullmatch(line)) is None:
            raise ValueError(
                f"{path}, line {number}: {shown(line[:40].decode('ascii', 'replace'))}; expected {expected}"
            )
        yield number, match
    if rest or not lines:
        raise ValueError(f"{path}, line {len(lines) + 1}: no newline at the end; the file is empty or truncated")


def _training_row(digits: bytes, num_train: int, path: pathlib.Path, line: int) -> int:
    if (row := int(digits)) >= num_train:
        raise ValueError(f"{path}, line {line}: row is {row}; expected a training row below {num_train}")
    return row


def _check_distinct(rows: Sequence[int], path: pathlib.Path) -> None:
    first_line: dict[int, int] = {}
    for line, row in enumerate(rows, start=1):
        if first_line.setdefault(row, line) != line:
            raise ValueError(f"{path}, line {line}: row {row} is on line {first_line[row]} too; expected distinct rows")


def _repair(items: list[int], history: Sequence[int], num_items: int, length: int) -> list[list[int]]:
    """Returns the list as read and after each of the repairs in :data:`_REPAIRS`."""
    distinct = list(dict.fromkeys(items))
    unseen = [item for item in distinct if item not in history]
    in_catalogue = [item for item in unseen if item <= num_items]
    return [items, distinct, unseen, in_catalogue, in_catalogue[:length]]


def _count_repairs(stages: Sequence[Sequence[list[int]]]) -> dict[str, dict[str, int]]:
    """Returns how many lists each repair changed and how many entries it dropped, from the stages of every list."""
    num_dropped = np.array(
        [[len(before) - len(after) for before, after in itertools.pairwise(stage)] for stage in stages]
    )
    return {
        repair: {"lists": int(np.sum(column > 0)), "entries": int(np.sum(column))}
        for repair, column in zip(_REPAIRS, num_dropped.T, strict=True)
    }


def _pack_rankings(session_id: Sequence[int], lists: Sequence[Sequence[int]], width: int) -> Rankings:
    lengths = np.array([len(items) for items in lists], dtype=np.int64)
    mask = np.arange(width)[None, :] < lengths[:, None]
    items = np.full(mask.shape, PAD, dtype=np.int32)
    items[mask] = [item for row in lists for item in row]
    return Rankings(session_id=np.array(session_id, dtype=np.int32), items=items, mask=mask)


def load_released_selection(
    directory: str | os.PathLike[str], name: str, method: str, *, dataset: Dataset | None = None
) -> Int32[np.ndarray, " M"]:
    """Reads which training sessions the authors selected for the LLM.

    The files contain more sessions than the paper's budget; the authors' code takes the first 500 lines (750 for FPMC
    on Games).

    Args:
        directory: folder of the release, which contains the folders ML and Games.
        name: "ML" or "Games".
        method: "ALKDRec", "RAD-BC", "random", "easiest" or "hardest".
        dataset: result of :func:`load_released`; None to read it.

    Returns:
        ``[M]`` distinct ``session_id`` of training sessions, in the order of the file.

    Raises:
        FileNotFoundError: a file of the release is missing.
        ValueError: the name or the method is unknown, or a file is damaged or truncated.
    """
    if method not in _SELECTION_FILES:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(_SELECTION_FILES)}")
    path = file_below(_folder(directory, name), f"{name}_{_SELECTION_FILES[method]}.base")
    num_train = len((dataset or load_released(directory, name)).train)
    rows = [
        _training_row(match[1], num_train, path, line)
        for line, match in _match_lines(path, _SELECTION_LINE, "a row number")
    ]
    _check_distinct(rows, path)
    return np.array(rows, dtype=np.int32)
