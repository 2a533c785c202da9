"""The exchange format of answers: one JSON object a line, for other stores and for replay.

A line holds `session_id` and `items`, so that `load_rankings` reads the file as well, and all that is known of the
answer.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm.parsing import STATUSES
from alkd_jax.llm.store import Store


def records(store: Store, keys: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the answers that count as plain values, sorted by key."""
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
    found = store.answered()
    for key in sorted(found if keys is None else set(keys) & found.keys()):
        record = dict(zip(names, store.read(query, found[key][0])[0], strict=True))
        for name in ("items", "hints", "candidates", "repairs", "usage"):
            record[name] = None if record[name] is None else json.loads(record[name])
        yield record


def export_jsonl(
    store: Store, path: str | os.PathLike[str], sessions: Mapping[str, Iterable[int]] | None = None, **about: str
) -> int:
    """Writes the usable answers, one JSON object a line, whole or not at all; also what replay reads.

    Args:
        path: the file.
        sessions: key → the sessions it answers, each of which gets a line; by default every key's first.
        about: further fields of every line.

    Returns:
        The number of lines.
    """
    path, lines = pathlib.Path(path), 0
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            for record in records(store, sessions):
                if not record["items"] and not record["hints"]:
                    continue
                for session in [record["session_id"]] if sessions is None else sessions[record["key"]]:
                    whole = record | about | {"session_id": session}
                    file.write(json.dumps(whole | {"check": checksum(whole)}) + "\n")
                    lines += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return lines


def import_jsonl(store: Store, path: str | os.PathLike[str]) -> int:
    """Takes in answers from an exported file, at no cost; those already here stay.

    Returns:
        The number taken in.

    Raises:
        ValueError: a line is damaged or was changed; names file and line. Nothing is taken in then.
    """
    records = {record["key"]: record for record in read_jsonl(path)}
    known = store.answered()
    taken = 0
    with store.writing() as connection:
        for key, record in records.items():
            if key in known:
                continue
            values = (key, record["kind"], record["session_id"], record["endpoint"], record["model"])
            connection.execute(
                "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (*values, json.dumps(record["candidates"]), record["size"]),
            )
            made = connection.execute(
                "INSERT INTO attempts (key, state, reserved, cost, tokens, basis, sent_at, done_at) "
                "VALUES (?, 'imported', 0, 0, 0, 'imported', ?, ?) RETURNING id",
                (key, time.time(), record["created_at"]),
            )
            attempt = made.fetchone()[0]
            named = ("finish_reason", "refusal", "content")
            usage = None if record["usage"] is None else json.dumps(record["usage"])
            told = ("model_returned", "system_fingerprint", "service_tier")
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?, ?, ?, ?)",
                (
                    attempt,
                    key,
                    *(record[name] for name in named),
                    usage,
                    *(record[name] for name in told),
                    record["status"],
                    *(json.dumps(record[name]) for name in ("items", "hints", "repairs")),
                    bool(record["items"] or record["hints"]),
                    record["parser_version"],
                ),
            )
            taken += 1
    store.ledger = store.read_ledger()
    return taken


def checksum(record: Mapping[str, Any]) -> str:
    """Of a line, so that one changed by hand is told from one that was exported."""
    return hashlib.sha256(json.dumps(dict(record), sort_keys=True).encode()).hexdigest()[:16]


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yields the records of an exported file.

    Raises:
        ValueError: a line is damaged or was changed; names file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line.decode("utf-8"))
                told = record.pop("check")
            except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: no exported answer ({type(error).__name__})") from error
            if told != checksum(record) or record.get("status") not in STATUSES:
                raise ValueError(f"{path}:{number}: changed since it was exported")
            yield record
