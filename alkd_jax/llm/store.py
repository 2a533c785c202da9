"""Every question sent and every answer received, on disk before anything is made of it, with what it cost.

What is still marked as sent when the next owner opens the file was lost on the way and counts as possible cost.
"""

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from alkd_jax.llm.database import Database
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.parsing import PARSER_VERSION, Reading
from alkd_jax.llm.pricing import Calibration, Usage

_TABLES = """
CREATE TABLE requests (key TEXT PRIMARY KEY, kind TEXT NOT NULL, session_id INTEGER NOT NULL, endpoint TEXT NOT NULL,
    model TEXT NOT NULL, candidates TEXT NOT NULL, size INTEGER NOT NULL, body BLOB);
CREATE TABLE attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, batch TEXT, state TEXT NOT NULL,
    reserved INTEGER NOT NULL, cost INTEGER NOT NULL, tokens INTEGER NOT NULL, basis TEXT, error TEXT,
    http_status INTEGER, sent_at REAL NOT NULL, done_at REAL);
CREATE INDEX attempts_by_state ON attempts (state, batch);
CREATE INDEX attempts_by_key ON attempts (key);
CREATE TABLE answers (attempt INTEGER PRIMARY KEY, key TEXT NOT NULL, finish_reason TEXT, refusal TEXT, content TEXT,
    usage TEXT, model TEXT, fingerprint TEXT, tier TEXT, provider_id TEXT, raw BLOB, status TEXT, items TEXT,
    hints TEXT, repairs TEXT, usable INTEGER, parser INTEGER);
CREATE INDEX answers_by_key ON answers (key, attempt, status, parser, usable, repairs);
CREATE TABLE batches (shard TEXT PRIMARY KEY, input_file TEXT, batch TEXT, status TEXT, output_file TEXT,
    error_file TEXT);
"""

_WORDINGS = "CREATE TABLE IF NOT EXISTS wordings (mark BLOB PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID"

_SUMS = "SELECT state, COUNT(*), SUM(cost), SUM(reserved), SUM(tokens) FROM attempts GROUP BY state"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back for one question.

    Attributes:
        content: of the message; `refusal` and `finish_reason` likewise.
        usage: tokens by the server's count; None where it gave none.
        model: that answered, by its own account; `fingerprint` and `tier` likewise.
        provider_id: the server's name for the answer.
        raw: the whole answer, without the API key.
    """

    content: str | None
    finish_reason: str | None
    refusal: str | None
    usage: Usage | None
    model: str | None
    fingerprint: str | None
    tier: str | None
    provider_id: str | None
    raw: bytes


class AnswerRecord(NamedTuple):
    """The answer that counts for a key.

    Attributes:
        attempt: that brought it.
        status: None where this parser has not read it yet.
        usable: whether there is something to learn from.
        repairs: JSON.
        answers: how many there are for the key.
    """

    attempt: int
    status: str | None
    usable: bool
    repairs: str
    answers: int


class Store:
    """Questions, attempts and answers of one run; `Store.open` opens it, `close` or `with` gives it back."""

    def __init__(self, database: Database):
        self.database, self.ledger = database, Ledger()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = False) -> "Store":
        """Opens a store, or makes one.

        Args:
            path: the file; beside it stands one for the lock.
            readonly: look only, while another process may be writing.

        Raises:
            FileNotFoundError: there is none to look at.
            ValueError: another process has it, or the file is damaged, foreign, from a newer version, or not to be
                written.
        """
        store = cls(Database(path, _TABLES, readonly=readonly))
        try:
            if not readonly:
                with store.database.writing() as connection:
                    connection.execute(_WORDINGS)
                store.hold_lost()
            store.ledger = store.read_ledger()
        except BaseException as error:
            store.close()
            if isinstance(error, sqlite3.Error):
                raise ValueError(f"{path}: {error}; the file is left as it was") from error
            raise
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the store back."""
        self.database.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction, or none of it, in the ledger neither."""
        try:
            with self.database.writing() as connection:
                yield connection
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.ledger = self.read_ledger()
            raise

    def read(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query."""
        return self.database.read(query, *values)

    # What is on its way -------------------------------------------------------------------------------------------

    def begin(self, request: Mapping[str, Any], *, reserved: int, tokens: int, batch: str | None = None) -> int:
        """Writes down that a question is about to be sent, and what it may cost.

        Args:
            request: key, mark, kind, session_id, endpoint, model, candidates, size and body.
            reserved: pico-dollars at most.
            tokens: at most.
            batch: the shard it is sent with, if any.

        Returns:
            The attempt's number. When this returns it is on disk.
        """
        return self.begin_all([(request, reserved, tokens)], batch=batch)[0]

    def begin_all(self, entries: Iterable[tuple[Mapping[str, Any], int, int]], *, batch: str | None) -> list[int]:
        """As `begin`, for many in one transaction."""
        numbers: list[int] = []
        pico, bound = 0, 0
        with self.writing() as connection:
            if batch is not None:
                connection.execute("INSERT OR IGNORE INTO batches (shard) VALUES (?)", (batch,))
            for request, reserved, tokens in entries:
                body = zlib.compress(json.dumps(request["body"], ensure_ascii=False).encode())
                named = ("key", "kind", "session_id", "endpoint", "model", "candidates", "size")
                values = (*(request[name] for name in named), body)
                connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
                connection.execute("INSERT OR REPLACE INTO wordings VALUES (?, ?)", (request["mark"], request["key"]))
                made = connection.execute(
                    "INSERT INTO attempts (key, batch, state, reserved, cost, tokens, sent_at) "
                    "VALUES (?, ?, 'sent', ?, 0, ?, ?) RETURNING id",
                    (request["key"], batch, reserved, tokens, time.time()),
                )
                numbers.append(made.fetchone()[0])
                pico, bound = pico + reserved, bound + tokens
        self.ledger.reserved += pico
        self.ledger.tokens += bound
        self.ledger.requests += len(numbers)
        self.ledger.open += len(numbers)
        return numbers

    def record_answer(self, attempt: int, answer: Answer, *, cost: int, tokens: int, basis: str) -> None:
        """Keeps an answer and books its cost; when this returns both are on disk."""
        with self.writing() as connection:
            key = self._finish(connection, attempt, "settled", cost, tokens, basis)
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL, NULL, NULL)",
                (
                    attempt,
                    key,
                    answer.finish_reason,
                    answer.refusal,
                    answer.content,
                    None if answer.usage is None else json.dumps(dataclasses.asdict(answer.usage)),
                    answer.model,
                    answer.fingerprint,
                    answer.tier,
                    answer.provider_id,
                    zlib.compress(answer.raw),
                ),
            )

    def mark_possibly_billed(self, attempt: int, *, error: str, http_status: int | None) -> None:
        """Books an attempt that may have been billed at the most it can have cost."""
        with self.writing() as connection:
            self._finish(connection, attempt, "possible", None, None, "assumed worst", error, http_status)

    def mark_unbilled(self, attempt: int, *, error: str, http_status: int | None) -> None:
        """Books an attempt that cost nothing."""
        with self.writing() as connection:
            self._finish(connection, attempt, "released", 0, 0, None, error, http_status)

    def hold_lost(self) -> int:
        """Books what was on its way when its owner died, batches apart; returns how many."""
        lost = self.read("SELECT id FROM attempts WHERE state = 'sent' AND batch IS NULL")
        for (attempt,) in lost:
            self.mark_possibly_billed(attempt, error="lost on the way", http_status=None)
        return len(lost)

    def _finish(
        self,
        connection: sqlite3.Connection,
        attempt: int,
        state: str,
        cost: int | None,
        tokens: int | None,
        basis: str | None,
        error: str | None = None,
        http_status: int | None = None,
    ) -> str:
        """Moves an attempt out of "sent", in the file and in the ledger; None for cost and tokens: all reserved."""
        query = "SELECT key, reserved, tokens FROM attempts WHERE id = ? AND state = 'sent'"
        key, reserved, bound = connection.execute(query, (attempt,)).fetchone()
        cost, tokens = reserved if cost is None else cost, bound if tokens is None else tokens
        connection.execute(
            "UPDATE attempts SET state = ?, cost = ?, tokens = ?, basis = ?, error = ?, http_status = ?, done_at = ? "
            "WHERE id = ?",
            (state, cost, tokens, basis, error, http_status, time.time(), attempt),
        )
        ledger = self.ledger
        ledger.reserved -= reserved
        ledger.open -= 1
        ledger.tokens += tokens - bound
        ledger.confirmed += cost if state == "settled" else 0
        ledger.possible += cost if state == "possible" else 0
        ledger.requests -= state == "released"
        return key

    def record_parse(self, attempt: int, reading: Reading) -> None:
        """Keeps how an answer was read."""
        values = (
            reading.status,
            json.dumps(reading.items),
            json.dumps(reading.hints),
            json.dumps(dict(reading.repairs), sort_keys=True),
            reading.usable,
            PARSER_VERSION,
            attempt,
        )
        with self.writing() as connection:
            connection.execute(
                "UPDATE answers SET status = ?, items = ?, hints = ?, repairs = ?, usable = ?, parser = ? "
                "WHERE attempt = ?",
                values,
            )

    # What is known ------------------------------------------------------------------------------------------------

    def answered(self) -> dict[str, AnswerRecord]:
        """Key → the answer that counts, which is the last."""
        query = "SELECT key, attempt, status, parser, usable, repairs FROM answers ORDER BY key, attempt"
        found: dict[str, AnswerRecord] = {}
        for key, attempt, status, parser, usable, repairs in self.read(query):
            before = found.get(key)
            is_read = parser == PARSER_VERSION
            found[key] = AnswerRecord(
                attempt,
                status if is_read else None,
                bool(usable),
                repairs if is_read else "{}",
                before.answers + 1 if before else 1,
            )
        return found

    def wordings(self) -> dict[bytes, str]:
        """Mark of a question → its key, for all that were worded before."""
        return dict(self.read("SELECT mark, key FROM wordings"))

    def keep_wordings(self, wordings: Mapping[bytes, str]) -> None:
        """Keeps the keys of questions, so that they need not be worded again to be found."""
        with self.writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO wordings VALUES (?, ?)", wordings.items())

    def waiting(self) -> set[str]:
        """Keys of what was handed to a batch and is not back."""
        return {key for (key,) in self.read("SELECT key FROM attempts WHERE state = 'sent' AND batch IS NOT NULL")}

    def content(self, attempt: int) -> tuple[str | None, str | None, str | None]:
        """Content, finish reason and refusal of an answer."""
        return self.read("SELECT content, finish_reason, refusal FROM answers WHERE attempt = ?", attempt)[0]

    def reading(self, attempt: int) -> Reading:
        """How an answer was read."""
        query = "SELECT status, items, hints, repairs FROM answers WHERE attempt = ?"
        status, items, hints, repairs = self.read(query, attempt)[0]
        return Reading(status, tuple(json.loads(items)), tuple(json.loads(hints)), json.loads(repairs))

    def read_ledger(self) -> Ledger:
        """Adds the ledger up from the file; it equals `ledger` at any time."""
        return _add_up(self.read(_SUMS))

    def calibration(self, endpoint: str, model: str, kind: str = "rank") -> Calibration:
        """What answers of a model have measured."""
        query = (
            "SELECT COUNT(*), SUM(r.size), SUM(json_extract(a.usage, '$.prompt')), "
            "SUM(json_extract(a.usage, '$.completion')) FROM answers a JOIN requests r USING (key) "
            "JOIN attempts t ON t.id = a.attempt "
            "WHERE t.basis = 'usage' AND r.endpoint = ? AND r.model = ? AND r.kind = ?"
        )
        count, size, prompt, completion = self.read(query, endpoint, model, kind)[0]
        return Calibration(prompt / size, completion / count, count) if count else Calibration(0.0, 0.0, 0)

    def failures(self, state: str = "possible") -> list[tuple[str, str | None, int]]:
        """Key, error and pico-dollars of attempts that are "possible" or "released"."""
        return self.read("SELECT key, error, cost FROM attempts WHERE state = ? ORDER BY id", state)

    def verify(self) -> None:
        """Raises ValueError unless file and ledger are sound."""
        self.database.verify()
        if self.read_ledger() != self.ledger:
            raise ValueError(f"{self.database.path}: the ledger {self.ledger} is not what the file adds up to")


def _add_up(rows: list[Any]) -> Ledger:
    ledger = Ledger()
    for state, count, cost, reserved, tokens in rows:
        ledger.confirmed += cost if state == "settled" else 0
        ledger.possible += cost if state == "possible" else 0
        ledger.reserved += reserved if state == "sent" else 0
        ledger.open += count if state == "sent" else 0
        ledger.tokens += tokens
        ledger.requests += 0 if state in ("released", "imported") else count
    return ledger
