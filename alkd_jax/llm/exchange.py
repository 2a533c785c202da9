"""The exchange format of answers: one JSON object per line, for other stores and for replay.

A line holds `session_id` and `items`, so that `load_rankings` reads the file as well, and everything else that the
store holds of the answer.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.io import replacing
from alkd_jax.llm import schema
from alkd_jax.llm.parsing import STATUSES
from alkd_jax.llm.store import Store


def records(store: Store, keys: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the last answer to every request as plain values, sorted by key.

    Args:
        store: of the answers.
        keys: of the requests; None for all.
    """
    query = (
        "SELECT r.session_id, a.items, a.hints, r.key, r.kind, r.endpoint, r.model, r.candidates, r.size, a.content, "
        "a.finish_reason, a.refusal, a.status, a.repairs, a.parser, a.model, a.fingerprint, a.tier, a.usage, t.cost, "
        "t.basis, t.done_at FROM answers a JOIN requests r USING (key) JOIN attempts t ON t.id = a.attempt "
        "WHERE a.attempt = ?"
    )
    names = (
        "session_id items hints key kind endpoint model candidates size content finish_reason refusal status repairs "
        "parser_version model_returned system_fingerprint service_tier usage cost_pico cost_basis created_at"
    ).split()
    answers = store.answer_records()
    for key in sorted(answers if keys is None else set(keys) & answers.keys()):
        record = dict(zip(names, store.read(query, answers[key].attempt)[0], strict=True))
        for name in ("items", "hints", "candidates", "repairs", "usage"):
            record[name] = None if record[name] is None else json.loads(record[name])
        yield record


def export_jsonl(
    store: Store, path: str | os.PathLike[str], sessions: Mapping[str, Iterable[int]] | None = None, **fields: str
) -> int:
    """Writes the usable answers, one JSON object per line; the file is complete or absent.

    Args:
        store: of the answers.
        path: the file.
        sessions: key of a request → ids of the sessions it answers, each of which gets a line; None for the session for
            which each request was first sent.
        **fields: further members of every line.

    Returns:
        The number of lines.
    """
    lines = 0
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        for record in records(store, sessions):
            if not record["items"] and not record["hints"]:
                continue
            for session_id in [record["session_id"]] if sessions is None else sessions[record["key"]]:
                line = record | fields | {"session_id": session_id}
                file.write(json.dumps(line | {"check": checksum(line)}) + "\n")
                lines += 1
    return lines


def import_jsonl(store: Store, path: str | os.PathLike[str]) -> int:
    """Adds the answers of an exported file to a store at no cost; answers that the store has already stay.

    Args:
        store: to add to.
        path: a file that :func:`export_jsonl` wrote.

    Returns:
        The number of answers added.

    Raises:
        ValueError: a line is damaged or was edited; the error names file and line, and nothing is added.
    """
    imported = {record["key"]: record for record in read_jsonl(path)}
    new = imported.keys() - store.answer_records().keys()
    with store.transaction() as connection:
        for key, record in imported.items():
            if key in new:
                _insert(connection, record)
        if (problem := schema.broken_rule(connection)) is not None:
            raise ValueError(f"{path}: {problem}")
    store.ledger = store.read_ledger()
    return len(new)


def _insert(connection: sqlite3.Connection, record: Mapping[str, Any]) -> None:
    """Inserts an exported answer with its request and an attempt that cost nothing."""
    request = [record[name] for name in ("key", "kind", "session_id", "endpoint", "model")]
    connection.execute(
        "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        (*request, json.dumps(record["candidates"]), record["size"]),
    )
    inserted = connection.execute(
        "INSERT INTO attempts (key, state, reserved, cost, tokens, basis, sent_at, done_at) "
        "VALUES (?, 'imported', 0, 0, 0, 'imported', ?, ?) RETURNING id",
        (record["key"], time.time(), record["created_at"]),
    )
    connection.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?, ?, ?, ?)",
        (
            inserted.fetchone()[0],
            *(record[name] for name in ("key", "finish_reason", "refusal", "content")),
            None if record["usage"] is None else json.dumps(record["usage"]),
            *(record[name] for name in ("model_returned", "system_fingerprint", "service_tier", "status")),
            *(json.dumps(record[name]) for name in ("items", "hints", "repairs")),
            bool(record["items"] or record["hints"]),
            record["parser_version"],
        ),
    )


def checksum(record: Mapping[str, Any]) -> str:
    """Returns a digest of a line, by which a line that was edited after the export is recognized."""
    return hashlib.sha256(json.dumps(dict(record), sort_keys=True).encode()).hexdigest()[:16]


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yields the records of an exported file.

    Raises:
        ValueError: a line is damaged or was edited; the error names file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line.decode("utf-8"))
                check = record.pop("check")
            except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: {type(error).__name__}; expected an exported answer") from error
            if check != checksum(record) or record.get("status") not in STATUSES:
                raise ValueError(f"{path}:{number}: edited after the export; expected the line as it was exported")
            yield record
