"""Teachers whose lists are known beforehand, and files of rankings with one JSON object per line."""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax.checks import check_padding
from alkd_jax.errors import printable, shown
from alkd_jax.io import write_text
from alkd_jax.llm import exchange
from alkd_jax.llm.teachers.protocol import lists_to_rankings
from alkd_jax.types import PAD, Rankings, Sessions

_MAX_ID = int(np.iinfo(np.int32).max)


@dataclasses.dataclass(frozen=True)
class ReplayTeacher:
    """Answers with lists that are known beforehand: recorded ones, or those of a training-free recommender.

    A neighbor teacher is `ReplayTeacher(baselines.held_out_lists(…))`, whose lists are made without the session they
    are for.

    Attributes:
        recorded: lists of distinct sessions.
        missing: "raise" or "skip", for sessions without a list.
    """

    recorded: Rankings
    missing: str = "raise"

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, num_items: int, catalogue: str | None = None, missing: str = "raise"
    ) -> "ReplayTeacher":
        """Reads a file of rankings, or of exported answers.

        Args:
            path: the file.
            num_items: V; items lie in ``1..V``.
            catalogue: fingerprint of the dataset; answers that were exported for another one are refused.
            missing: "raise" or "skip", for sessions without a list.

        Raises:
            ValueError: a line is damaged, was edited, or is for another catalogue; the error names file and line.
        """
        recorded = load_rankings(path, num_items=num_items)
        for number, record in read_lines(pathlib.Path(path)):
            check = record.pop("check", None)
            if check is not None and check != exchange.checksum(record):
                raise ValueError(f"{path}:{number}: edited after the export; expected the line as it was exported")
            exported_for = record.get("catalogue", catalogue)
            if catalogue is not None and exported_for != catalogue:
                raise ValueError(
                    f"{path}:{number}: catalogue is {shown(exported_for, width=20)}; "
                    f"expected {shown(catalogue, width=20)}"
                )
        return cls(recorded, missing)

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Looks up the sessions' lists; the candidates are not read. See `Teacher`.

        Raises:
            ValueError: a session has no list, and `missing` is "raise".
        """
        lists, missing = lookup_rankings(self.recorded, np.asarray(sessions.session_id))
        if len(missing) and self.missing == "raise":
            raise ValueError(
                f"recorded lists have none for {len(missing)} sessions, such as {missing[0]}; expected one for each"
            )
        return lists, {"asked": len(sessions), "missing": missing.tolist()}


@dataclasses.dataclass(frozen=True)
class ConventionalTeacher:
    """The recommender that made the candidates, in whose order they are (TR in the paper's Table 2).

    Attributes:
        k: length of the lists.
    """

    k: int = 25

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Returns the first k candidates of every session; see `Teacher`."""
        rows = zip(np.asarray(sessions.session_id).tolist(), candidates, strict=True)
        lists = {session_id: tuple(row[row > PAD][: self.k].tolist()) for session_id, row in rows}
        return lists_to_rankings(lists, self.k), {"asked": len(sessions), "missing": []}


def lookup_rankings(recorded: Rankings, session_ids: Int[np.ndarray, " M"]) -> tuple[Rankings, Int[np.ndarray, " Q"]]:
    """Looks up recorded lists by session.

    Args:
        recorded: lists of distinct sessions; an empty list is a list.
        session_ids: distinct sessions.

    Returns:
        The recorded lists of these sessions, in the order of ``session_ids``, and the ids of the sessions without one.

    Raises:
        ValueError: a session is recorded or looked up twice.
    """
    recorded_ids, session_ids = np.asarray(recorded.session_id), np.asarray(session_ids)
    _check_distinct("recorded", recorded_ids)
    _check_distinct("session_ids", session_ids)
    row_of = {session_id: row for row, session_id in enumerate(recorded_ids.tolist())}
    is_recorded = np.array([session_id in row_of for session_id in session_ids.tolist()], bool)
    rows = np.array([row_of[session_id] for session_id in session_ids[is_recorded].tolist()], int)
    lists = Rankings(recorded_ids[rows], np.asarray(recorded.items)[rows], np.asarray(recorded.mask)[rows])
    return lists, session_ids[~is_recorded]


def save_rankings(path: str | os.PathLike[str], rankings: Rankings, *, distinct: bool = True) -> None:
    """Writes rankings, one ``{"session_id": 17, "items": [3, 9]}`` per line, best item first.

    The file is complete or absent; a file of that name is replaced in one step.

    Args:
        path: the file.
        rankings: lists of distinct sessions.
        distinct: False allows an item twice in a list, as in recorded answers that are not repaired yet.

    Raises:
        ValueError: the shapes do not agree, a session or an item is repeated, or an id is out of range, which
            :func:`load_rankings` would refuse.
    """
    session_id, items, mask = (np.asarray(leaf) for leaf in (rankings.session_id, rankings.items, rankings.mask))
    _check_distinct("rankings", session_id)
    if mask.dtype != bool or items.shape != mask.shape or items.ndim != 2 or session_id.shape != items.shape[:1]:
        shapes = f"session_id {session_id.shape}, items {items.shape}, mask {mask.dtype} {mask.shape}"
        raise ValueError(f"rankings have {shapes}; expected (M,), (M, K) and bool (M, K)")
    lines = []
    for session, row, row_mask in zip(session_id.tolist(), items, mask, strict=True):
        record = {"session_id": session, "items": row[row_mask].tolist()}
        if error := _find_error(record, _MAX_ID, distinct):
            raise ValueError(f"rankings, session {session}: {error}")
        lines.append(json.dumps(record) + "\n")
    write_text(path, "".join(lines))


def load_rankings(path: str | os.PathLike[str], *, num_items: int, distinct: bool = True) -> Rankings:
    """Reads a file that :func:`save_rankings` wrote, or a file of that form from elsewhere.

    Args:
        path: the file.
        num_items: V; items lie in ``1..V``.
        distinct: False allows an item twice in a list.

    Returns:
        ``[M, K]`` rankings in the order of the file, where K is the length of the longest list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged, cut off or breaks a rule, or one list is far longer than the others; the error
            names file and line.
    """
    line_of: dict[int, int] = {}
    lists: list[list[int]] = []
    for line, record in read_lines(pathlib.Path(path)):
        error = _find_error(record, num_items, distinct)
        if not error and record["session_id"] in line_of:
            first = line_of[record["session_id"]]
            error = f"session_id is {record['session_id']}, as on line {first}; expected each session once"
        if error:
            raise ValueError(f"{path}:{line}: {error}")
        line_of[record["session_id"]] = line
        lists.append(record["items"])
    check_padding([len(listed) for listed in lists], [f"{path}:{line}" for line in line_of.values()])
    items = np.full((len(lists), max(map(len, lists), default=0)), PAD, np.int32)
    for row, listed in enumerate(lists):
        items[row, : len(listed)] = listed
    return Rankings(np.fromiter(line_of, np.int32, len(line_of)), items, items != PAD)


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line, from 1, and its JSON value."""
    with open(path, "rb") as file:
        for line, text in enumerate(file, start=1):
            try:
                yield line, json.loads(text.decode("utf-8"), object_pairs_hook=_distinct_keys)
            # The parser raises other errors than JSONDecodeError for thousands of digits or brackets.
            except (ValueError, RecursionError) as error:
                if not text.endswith(b"\n"):
                    raise ValueError(f"{path}:{line}: the last line is cut off; expected a JSON object") from error
                reason = printable(error, width=150)
                raise ValueError(f"{path}:{line}: not JSON ({reason}); expected a JSON object") from error


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of a JSON text, which must not have two values of one name."""
    if len(record := dict(pairs)) < len(pairs):
        raise ValueError("an object has two values of one name")
    return record


def _find_error(record: Any, num_items: int, distinct: bool) -> str | None:
    """Returns what is wrong with a record, or None."""
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}; expected an object with session_id and items"
    for name in ("session_id", "items"):
        if name not in record:
            return f"no {name}; expected an object with session_id and items"
    session_id, items = record["session_id"], record["items"]
    if type(session_id) is not int or not 0 <= session_id <= _MAX_ID:
        return f"session_id is {shown(session_id, width=40)}; expected an integer from 0 to {_MAX_ID}"
    if not isinstance(items, list):
        return f"items is {shown(items, width=40)}; expected a list"
    for item in items:
        if type(item) is not int or not PAD < item <= num_items:
            return f"item is {shown(item, width=40)}; expected an integer from 1 to {num_items}"
    if distinct and len(set(items)) < len(items):
        counts = collections.Counter(items)
        return f"item {next(item for item in items if counts[item] > 1)} is twice in a list; expected it once"
    return None


def _check_distinct(name: str, session_id: Int[np.ndarray, " M"]) -> None:
    """Raises ValueError where a session is repeated."""
    sessions, counts = np.unique(session_id, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: session {sessions[counts > 1][0]} is there {counts.max()} times; expected once")
