"""Moves the undamaged rows of a damaged store into a new one, in which all that was paid still counts."""

import contextlib
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from alkd_jax.llm import schema
from alkd_jax.llm.store import Store

_LOST = "lost in a damaged store"
_VERSION_END = 64
"""SQLite's header holds the version of the tables in its bytes 60 to 63."""


def salvage(
    damaged: str | os.PathLike[str], path: str | os.PathLike[str], *, spent: int = 0, requests: int = 0
) -> Store:
    """Makes a new store of the rows of a damaged one that are as they were written, by their digests.

    An attempt whose answer is lost counts as possibly billed at its cost, and an answer whose attempt is lost as
    imported. Where more is known to have been spent than the rows add up to, the rest counts as possibly billed.

    Args:
        damaged: the file, of version 2; it is only read.
        path: the new file.
        spent: pico-dollars that are known to have been paid or possibly billed.
        requests: requests that are known to have been paid or possibly billed.

    Returns:
        The new store, open for writing.

    Raises:
        ValueError: `path` exists, or the damaged file cannot be read at all.
    """
    if pathlib.Path(path).exists():
        raise ValueError(f"{path} exists; expected a name for a new store")
    rows = {table: dict(_sound_rows(pathlib.Path(damaged), table)) for table in ("requests", "attempts", "answers")}
    if not rows["requests"]:
        reason = "no undamaged row can be read"
        with open(damaged, "rb") as file:
            version = int.from_bytes(file.read(_VERSION_END)[-4:], "big")
        if 0 < version < schema.DIGESTS_VERSION:
            reason = f"version is {version}, whose rows have no digests by which damage is found"
        raise ValueError(f"{damaged}: {reason}; expected a damaged store of version {schema.VERSION}, or a backup")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store.open(path))
        with store.transaction() as connection:
            _insert(connection, rows)
        store.ledger = store.read_ledger()
        store.mark_lost_attempts()
        missing = requests - store.ledger.requests
        _count_lost(store, max(0, spent - store.ledger.committed), missing)
        stack.pop_all()
    return store


def _sound_rows(path: pathlib.Path, table: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yields key and values of each row of a table that can be read and has its digest."""
    key, *_ = columns = schema.columns()[table]
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        keys: dict[Any, None] = {}
        # A damaged page ends a scan; from the other end, or by another tree, the rows behind it can be found.
        for scan in (
            f"SELECT row FROM digests WHERE name = '{table}'",
            f"SELECT row FROM digests WHERE name = '{table}' ORDER BY row DESC",
            f"SELECT {key} FROM {table}",
            f"SELECT {key} FROM {table} ORDER BY {key} DESC",
        ):
            with contextlib.suppress(sqlite3.Error, UnicodeError, MemoryError):
                for (found,) in connection.execute(scan):
                    keys[found] = None
        for found in keys:
            with contextlib.suppress(sqlite3.Error, UnicodeError, MemoryError):
                values = connection.execute(
                    f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?", (found,)
                ).fetchone()
                query = "SELECT digest FROM digests WHERE name = ? AND row = ?"
                digest = connection.execute(query, (table, found)).fetchone()
                if values and digest and digest[0] == schema.row_digest(table, *values):
                    yield found, values


def _insert(connection: sqlite3.Connection, rows: dict[str, dict[Any, tuple[Any, ...]]]) -> None:
    """Inserts rows, except for attempts and answers without their request."""
    requests, names = rows["requests"], schema.columns()["attempts"]
    attempts = {number: dict(zip(names, row, strict=True)) for number, row in rows["attempts"].items()}
    attempts = {number: attempt for number, attempt in attempts.items() if attempt["key"] in requests}
    answers = {number: row for number, row in rows["answers"].items() if row[1] in requests}
    for number in answers.keys() - attempts.keys():
        # What the answer has cost is lost, and counts with the rest that was spent.
        imported = {"state": "imported", "reserved": 0, "cost": 0, "tokens": 0, "basis": "imported"}
        attempts[number] = dict.fromkeys(names) | imported
        attempts[number] |= {"id": number, "key": answers[number][1], "sent_at": time.time()}
    for number, attempt in attempts.items():
        if attempt["state"] in ("settled", "imported") and number not in answers:
            attempt |= {"state": "possible", "error": _LOST}
        # The batches are not kept, so that no answer of theirs can be fetched any more.
        attempt["batch"] = None
    tables = {
        "requests": list(rows["requests"].values()),
        "attempts": [tuple(attempt.values()) for attempt in attempts.values()],
        "answers": list(answers.values()),
    }
    for table, values in tables.items():
        places = ", ".join("?" * len(schema.columns()[table]))
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", values)


def _count_lost(store: Store, cost: int, requests: int) -> None:
    """Adds attempts that stand for what was spent and is in no row that was kept."""
    if cost <= 0 and requests <= 0:
        return
    request = (_LOST, "rank", -1, "", "", "[]", 0, None)
    now = time.time()
    # An attempt can hold no more than the largest amount.
    num = max(requests, -(-cost // schema.MAX_AMOUNT), 1)
    with store.transaction() as connection:
        connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)", request)
        for _ in range(num):
            part = min(cost, schema.MAX_AMOUNT)
            cost -= part
            connection.execute(
                "INSERT INTO attempts (key, state, reserved, cost, tokens, basis, error, sent_at, done_at) "
                "VALUES (?, 'possible', ?, ?, 0, 'assumed worst', ?, ?, ?)",
                (_LOST, part, part, _LOST, now, now),
            )
    store.ledger = store.read_ledger()
