"""Recorded rankings: kept as one JSON object a line, and replayed in place of a teacher that costs money."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax.types import PAD, Rankings

_MAX_ID = int(np.iinfo(np.int32).max)


def replay(recorded: Rankings, session_ids: Int[np.ndarray, " M"]) -> tuple[Rankings, Int[np.ndarray, " Q"]]:
    """Answers with the recorded lists.

    Args:
        recorded: lists of distinct sessions.
        session_ids: the sessions to ask about, each once.

    Returns:
        The lists of those asked about that are recorded, in the order asked, and the ids of the others, likewise. A
        list that was recorded empty is a recorded one.

    Raises:
        ValueError: a session is recorded or asked about twice.
    """
    known, asked = np.asarray(recorded.session_id), np.asarray(session_ids)
    _check_distinct("recorded", known)
    _check_distinct("session_ids", asked)
    row_of = {session: row for row, session in enumerate(known.tolist())}
    found = np.array([session in row_of for session in asked.tolist()], bool)
    rows = np.array([row_of[session] for session in asked[found].tolist()], int)
    lists = Rankings(known[rows], np.asarray(recorded.items)[rows], np.asarray(recorded.mask)[rows])
    return lists, asked[~found]


def save_rankings(path: str | os.PathLike[str], rankings: Rankings, *, distinct: bool = True) -> None:
    """Writes rankings, one ``{"session_id": 17, "items": [3, 9]}`` a line, best item first.

    The file is there whole or not at all; one of that name is replaced in one step.

    Args:
        path: the file.
        rankings: lists of distinct sessions.
        distinct: False lets a list name an item twice, as recorded answers do before they are repaired.

    Raises:
        ValueError: what :func:`load_rankings` would not read: a repeated session or item, or an id out of range.
    """
    path = pathlib.Path(path)
    session_id, items, mask = (np.asarray(leaf) for leaf in (rankings.session_id, rankings.items, rankings.mask))
    _check_distinct("rankings", session_id)
    lines = []
    for session, row, real in zip(session_id.tolist(), items, mask, strict=True):
        record = {"session_id": session, "items": row[real].tolist()}
        if fault := _fault(record, _MAX_ID, distinct):
            raise ValueError(f"rankings: session {session}: {fault}")
        lines.append(json.dumps(record) + "\n")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_rankings(path: str | os.PathLike[str], *, num_items: int, distinct: bool = True) -> Rankings:
    """Reads what :func:`save_rankings` wrote, or a file of that form from elsewhere.

    Args:
        path: the file.
        num_items: V; items lie in ``1..V``.
        distinct: False lets a list name an item twice.

    Returns:
        ``[M, K]`` rankings in the order of the file, K the longest list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged, cut off or breaks a rule; names file and line.
    """
    sessions: dict[int, int] = {}
    lists: list[list[int]] = []
    for line, record in _records(pathlib.Path(path)):
        fault = _fault(record, num_items, distinct)
        if not fault and record["session_id"] in sessions:
            fault = f"session {record['session_id']} again, first on line {sessions[record['session_id']]}"
        if fault:
            raise ValueError(f"{path}:{line}: {fault}")
        sessions[record["session_id"]] = line
        lists.append(record["items"])
    items = np.full((len(lists), max(map(len, lists), default=0)), PAD, np.int32)
    for row, listed in enumerate(lists):
        items[row, : len(listed)] = listed
    return Rankings(np.fromiter(sessions, np.int32, len(sessions)), items, items != PAD)


def _records(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yields line numbers from 1 and what stands there."""
    with open(path, "rb") as file:
        for line, text in enumerate(file, start=1):
            try:
                yield line, json.loads(text.decode("utf-8"))
            # A number of thousands of digits and a thousandfold bracket are no JSON errors to the parser.
            except (ValueError, RecursionError) as error:
                if not text.endswith(b"\n"):
                    raise ValueError(f"{path}:{line}: the last line is cut off") from error
                raise ValueError(f"{path}:{line}: not JSON: {error}") from error


def _fault(record: Any, num_items: int, distinct: bool) -> str | None:
    """Returns what is wrong with a record, or None."""
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, expected an object with session_id and items"
    for name in ("session_id", "items"):
        if name not in record:
            return f"no {name}, expected an object with session_id and items"
    session, items = record["session_id"], record["items"]
    if type(session) is not int or not 0 <= session <= _MAX_ID:
        return f"session_id {session!r:.40}, expected an integer from 0 to {_MAX_ID}"
    if not isinstance(items, list):
        return f"items {items!r:.40}, expected a list"
    for item in items:
        if type(item) is not int or not PAD < item <= num_items:
            return f"item {item!r:.40}, expected an integer from 1 to {num_items}"
    if distinct and len(set(items)) < len(items):
        return f"item {next(item for item in items if items.count(item) > 1)} twice in a list"
    return None


def _check_distinct(name: str, session_id: Int[np.ndarray, " M"]) -> None:
    found, times = np.unique(session_id, return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{name}: session {found[times > 1][0]} stands there {times.max()} times, expected once")
