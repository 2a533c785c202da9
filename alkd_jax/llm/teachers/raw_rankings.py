"""Rankings from anywhere: lists of raw item ids for raw session ids, one JSON object per line.

A line ``{"session": "ann 2020-09-13", "items": ["B01", "B07"]}`` has raw ids, a line ``{"session_id": 12, "items": [3,
5]}`` numbers, see :mod:`alkd_jax.llm.teachers.replay`. The name of the session's key tells the two forms apart.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from alkd_jax.errors import shown
from alkd_jax.llm.teachers.protocol import lists_to_rankings
from alkd_jax.llm.teachers.replay import read_lines
from alkd_jax.types import Dataset, Rankings

LIST_REASONS = ("unknown session", "session not in training", "session listed before", "too short")
ITEM_REASONS = ("unknown item", "item listed before", "in a refused list")


@dataclasses.dataclass(frozen=True)
class RawRankings:
    """Lists of raw ids as rankings of a dataset, and what was not used of them.

    Attributes:
        rankings: the used lists, of distinct training sessions.
        report: "lists_read", "lists_used" and "lists_refused" (reason → count) add up, and so do "items_read",
            "items_used" and "items_dropped".
    """

    rankings: Rankings
    report: dict[str, Any]


def has_raw_ids(path: str | os.PathLike[str]) -> bool:
    """Returns whether the first line of a file of rankings has raw ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or its first line is no object with one of the two keys.
    """
    for line, record in read_lines(pathlib.Path(path)):
        keys = {"session", "session_id"} & record.keys() if isinstance(record, dict) else set()
        if len(keys) == 1:
            return keys == {"session"}
        raise ValueError(
            f"{path}:{line}: {shown(record, width=80)}; expected one of the keys session (a raw id) and session_id (a "
            "number)"
        )
    raise ValueError(f"{path} is empty; expected a JSON object with session and items in every line")


def load_raw_rankings(path: str | os.PathLike[str], dataset: Dataset, *, min_valid: int = 20) -> RawRankings:
    """Reads a file of rankings with raw ids.

    Unknown items, and those listed before, are dropped from a list. What remains of an incomplete list is used from
    ``min_valid`` items on; a complete list is used whatever its length.

    Args:
        path: the file; every line has an id ``session`` and a list ``items`` of ids, best first, each a text or a whole
            number.
        dataset: whose raw ids they are.
        min_valid: number of items from which an incomplete list is used; at most half of the catalogue.

    Returns:
        The lists of training sessions, and the counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has another form, the dataset has no raw ids of sessions, or no list is left; the error
            names file and line, or counts what was refused.
    """
    if dataset.session_ids is None:
        raise ValueError(
            f"{path} has raw session ids, but {dataset.name} has none; expected lines with session_id, or data that an "
            "up-to-date experiments.prepare has made"
        )
    in_training = set(dataset.train.session_id.tolist())
    number_of_session = {name: number for number, name in enumerate(dataset.session_ids)}
    # The parts of a session that a split has cut have one raw id; the lists are those of its part in training.
    number_of_session |= {dataset.session_ids[number]: number for number in in_training}
    number_of_item = {name: number for number, name in enumerate(dataset.item_ids) if number}
    min_valid = min(min_valid, (dataset.num_items + 1) // 2)
    lists: dict[int, list[int]] = {}
    refused, dropped = (collections.Counter(dict.fromkeys(reasons, 0)) for reasons in (LIST_REASONS, ITEM_REASONS))
    num_lists, num_items = 0, 0
    for session, names in _read_lists(pathlib.Path(path)):
        num_lists, num_items = num_lists + 1, num_items + len(names)
        number = number_of_session.get(session)
        known = [number_of_item[name] for name in names if name in number_of_item]
        items = list(dict.fromkeys(known))
        reason = _refusal(number, in_training, lists, items, is_complete=len(items) == len(names), min_valid=min_valid)
        if reason is not None or number is None:
            refused[reason or LIST_REASONS[0]] += 1
            dropped["in a refused list"] += len(names)
            continue
        dropped["unknown item"] += len(names) - len(known)
        dropped["item listed before"] += len(known) - len(items)
        lists[number] = items
    report = {
        "lists_read": num_lists,
        "lists_used": len(lists),
        "lists_refused": dict(refused),
        "items_read": num_items,
        "items_used": num_items - dropped.total(),
        "items_dropped": dict(dropped),
    }
    if not lists:
        raise ValueError(f"{path}: no list can be used: {in_words(report)}; expected raw ids of {dataset.name}")
    width = max(map(len, lists.values()))
    return RawRankings(lists_to_rankings(lists, width), report)


def in_words(report: dict[str, Any]) -> str:
    """Returns the counts of a report in words."""
    refused = ", ".join(f"{count:,} {reason}" for reason, count in report["lists_refused"].items() if count)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.get("items_dropped", {}).items() if count)
    text = f"{report['lists_read']:,} lists read, {report['lists_used']:,} used"
    text += f", refused: {refused}" if refused else ""
    return text + (f"; {report['items_used']:,} of {report['items_read']:,} items used: {dropped}" if dropped else "")


def _refusal(
    number: int | None,
    in_training: set[int],
    lists: dict[int, list[int]],
    items: list[int],
    *,
    is_complete: bool,
    min_valid: int,
) -> str | None:
    """Returns why a list cannot be used, one of :data:`LIST_REASONS`; None where it can."""
    if number is None:
        return "unknown session"
    if number not in in_training:
        return "session not in training"
    if number in lists:
        return "session listed before"
    return "too short" if not items or (not is_complete and len(items) < min_valid) else None


def _read_lists(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the raw id of each session with those of its list.

    Raises:
        ValueError: a line has another form.
    """
    for line, record in read_lines(path):
        expected = 'expected {"session": id, "items": [id, …]} with texts or whole numbers as ids, as on the first line'
        if not isinstance(record, dict) or "session" not in record or "session_id" in record:
            raise ValueError(f"{path}:{line}: {shown(record, width=80)}; {expected}")
        session, items = record["session"], record.get("items")
        if not isinstance(items, list) or not all(type(name) in (str, int) for name in [session, *items]):
            raise ValueError(f"{path}:{line}: {shown(record, width=80)}; {expected}")
        yield str(session), [str(name) for name in items]
