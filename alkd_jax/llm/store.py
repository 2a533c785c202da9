"""A store of requests, attempts and answers with their cost, in which each is on disk before anything depends on it.

An attempt that is still in the state "sent" when another process opens the file was lost, and counts as possibly
billed.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm import schema
from alkd_jax.llm.answers import Answer, AnswerRecord
from alkd_jax.llm.database import Database, StoreError
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.parsing import PARSER_VERSION, ParsedAnswer
from alkd_jax.llm.reserve import Reserve
from alkd_jax.llm.token_usage import Usage


class Store:
    """Requests, attempts and answers of one run; `Store.open` opens it, `close` or the end of `with` closes it.

    Attributes:
        database: the file.
        ledger: totals, equal to what the file adds up to.
        reserve: space for answers that the file cannot record any more.
    """

    def __init__(self, database: Database):
        self.database, self.ledger = database, Ledger()
        self.reserve = Reserve(pathlib.Path(f"{database.path}-reserve"))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = False) -> "Store":
        """Opens a store, or creates one.

        Args:
            path: the file, which is locked unless it is only read.
            readonly: only read, while another process may be writing.

        Raises:
            FileNotFoundError: the store is to be read only and does not exist.
            StoreError: another process owns the file, or it is damaged, was edited, is of another application or
                version, or not writable.
        """
        application, version = schema.APPLICATION, schema.VERSION
        database = Database(path, schema.TABLES, application=application, version=version, readonly=readonly)
        store = cls(database)
        try:
            database.use(schema.add_functions)
            schema.check(database)
            if not readonly:
                if database.version < schema.VERSION:
                    with database.transaction() as connection:
                        schema.upgrade(connection, database.version)
                    database.version = schema.VERSION
                database.use(schema.keep_digests)
                store.mark_lost_attempts()
            store.ledger = store.read_ledger()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the store."""
        self.database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs the block as one durable transaction; where it raises, file and ledger are as before."""
        try:
            with self.database.transaction() as connection:
                yield connection
        except BaseException:
            with contextlib.suppress(StoreError):
                self.ledger = self.read_ledger()
            raise

    def read(self, query: str, *values: Any) -> list[Any]:
        """Returns the rows of a query."""
        return self.database.read(query, *values)

    # Attempts -----------------------------------------------------------------------------------------------------

    def begin_attempt(self, request: Mapping[str, Any], *, cost: int, tokens: int) -> int:
        """Records that a request is about to be sent, and reserves what it may cost.

        Args:
            request: as made by `Endpoint.request`.
            cost: pico-dollars that it can cost at most.
            tokens: tokens that it can take at most.

        Returns:
            The id of the attempt, which is on disk when this returns.
        """
        return self.begin_attempts([(request, cost, tokens)])[0]

    def begin_attempts(
        self, entries: Iterable[tuple[Mapping[str, Any], int, int]], *, shard: str | None = None
    ) -> list[int]:
        """Does the same as `begin_attempt` for many requests in one transaction.

        Args:
            entries: of each request, the request, its cost at most, and its tokens at most.
            shard: the shard of a batch in which the requests are sent; None for requests that are sent one by one.

        Returns:
            The ids of the attempts.
        """
        entries = list(entries)
        for _, cost, tokens in entries:
            if not (0 <= cost <= schema.MAX_AMOUNT and 0 <= tokens <= schema.MAX_AMOUNT):
                raise StoreError(
                    f"a request can cost {cost} pico-dollars and {tokens} tokens; expected at most {schema.MAX_AMOUNT}"
                )
        attempts: list[int] = []
        reserved, reserved_tokens = 0, 0
        with self.transaction() as connection:
            if shard is not None:
                connection.execute("INSERT OR IGNORE INTO batches (shard) VALUES (?)", (shard,))
            for request, cost, tokens in entries:
                body = zlib.compress(json.dumps(request["body"], ensure_ascii=False).encode())
                columns = ("key", "kind", "session_id", "endpoint", "model", "candidates", "size")
                values = (*(request[name] for name in columns), body)
                connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
                hashes = [(request[name], request["key"]) for name in ("prompt_hash", "unbounded_hash")]
                connection.executemany("INSERT OR REPLACE INTO wordings VALUES (?, ?)", hashes)
                inserted = connection.execute(
                    "INSERT INTO attempts (key, batch, state, reserved, cost, tokens, sent_at) "
                    "VALUES (?, ?, 'sent', ?, 0, ?, ?) RETURNING id",
                    (request["key"], shard, cost, tokens, time.time()),
                )
                attempts.append(inserted.fetchone()[0])
                reserved, reserved_tokens = reserved + cost, reserved_tokens + tokens
        self.ledger.reserved += reserved
        self.ledger.tokens += reserved_tokens
        self.ledger.requests += len(attempts)
        self.ledger.open += len(attempts)
        return attempts

    def record_answer(self, attempt: int, answer: Answer, *, cost: int, tokens: int, basis: str) -> None:
        """Records an answer, its pico-dollars and tokens, and their basis; all is on disk when this returns.

        An amount above :data:`schema.MAX_AMOUNT`, which no server charges, is recorded as that.

        Raises:
            StoreError: the file cannot be written. The answer is then in the reserve, unless that is full too, and the
                attempt stays open until :meth:`mark_lost_attempts`.
        """
        cost, tokens = min(cost, schema.MAX_AMOUNT), min(tokens, schema.MAX_AMOUNT)
        try:
            self._insert_answer(attempt, answer, cost, tokens, basis)
        except StoreError:
            values = {"attempt": attempt, "answer": dataclasses.asdict(answer) | {"raw": None}}
            with contextlib.suppress(OSError):
                self.reserve.write(values | {"cost": cost, "tokens": tokens, "basis": basis})
            raise

    def _insert_answer(self, attempt: int, answer: Answer, cost: int, tokens: int, basis: str) -> None:
        """Records an answer in the file."""
        sent = (answer.finish_reason, answer.refusal, answer.content)
        usage = None if answer.usage is None else json.dumps(dataclasses.asdict(answer.usage))
        server = (answer.model, answer.fingerprint, answer.tier, answer.provider_id)
        raw = None if answer.raw is None else zlib.compress(answer.raw)
        with self.transaction() as connection:
            key = self._finish(connection, attempt, "settled", cost, tokens, basis)
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL, NULL, NULL)",
                (attempt, key, *sent, usage, *server, raw),
            )

    def mark_possibly_billed(self, attempt: int, *, error: str, http_status: int | None) -> None:
        """Records an attempt without an answer that may have been billed; it counts with the most it can have cost."""
        with self.transaction() as connection:
            self._finish(connection, attempt, "possible", None, None, "assumed worst", error, http_status)

    def mark_unbilled(self, attempt: int, *, error: str, http_status: int | None) -> None:
        """Records an attempt that cost nothing."""
        with self.transaction() as connection:
            self._finish(connection, attempt, "released", 0, 0, None, error, http_status)

    def mark_lost_attempts(self) -> None:
        """Records the answers in the reserve, and marks other attempts without an answer as possibly billed.

        Attempts in batches stay open. Nothing may be in flight.
        """
        is_open = "SELECT 1 FROM attempts WHERE state = 'sent' AND id = ?"
        for kept in self.reserve.read():
            if self.read(is_open, kept["attempt"]):
                usage = kept["answer"]["usage"]
                answer = Answer(**kept["answer"] | {"usage": None if usage is None else Usage(**usage)})
                self._insert_answer(kept["attempt"], answer, kept["cost"], kept["tokens"], kept["basis"])
        for (attempt,) in self.read("SELECT id FROM attempts WHERE state = 'sent' AND batch IS NULL"):
            self.mark_possibly_billed(attempt, error="lost on the way", http_status=None)
        self.reserve.clear()

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
        """Moves an attempt out of the state "sent", in the file and in the ledger.

        Args:
            connection: of the transaction.
            attempt: id of the attempt.
            state: the new state: "settled", "possible" or "released".
            cost: pico-dollars; None for all that was reserved.
            tokens: tokens; None for all that were reserved.
            basis: what cost and tokens rest on.
            error: one line.
            http_status: of the server's answer.

        Returns:
            The key of the request.
        """
        query = "SELECT key, reserved, tokens FROM attempts WHERE id = ? AND state = 'sent'"
        key, reserved, reserved_tokens = connection.execute(query, (attempt,)).fetchone()
        cost = reserved if cost is None else cost
        tokens = reserved_tokens if tokens is None else tokens
        connection.execute(
            "UPDATE attempts SET state = ?, cost = ?, tokens = ?, basis = ?, error = ?, http_status = ?, done_at = ? "
            "WHERE id = ?",
            (state, cost, tokens, basis, error, http_status, time.time(), attempt),
        )
        ledger = self.ledger
        ledger.reserved -= reserved
        ledger.open -= 1
        ledger.tokens += tokens - reserved_tokens
        ledger.confirmed += cost if state == "settled" else 0
        ledger.possible += cost if state == "possible" else 0
        ledger.requests -= state == "released"
        return key

    def record_parse(self, attempt: int, parsed: ParsedAnswer) -> None:
        """Records what an attempt's answer was parsed as."""
        values = (
            parsed.status,
            json.dumps(parsed.items),
            json.dumps(parsed.hints),
            json.dumps(dict(parsed.repairs), sort_keys=True),
            parsed.usable,
            PARSER_VERSION,
            attempt,
        )
        with self.transaction() as connection:
            connection.execute(
                "UPDATE answers SET status = ?, items = ?, hints = ?, repairs = ?, usable = ?, parser = ? "
                "WHERE attempt = ?",
                values,
            )

    # Answers ------------------------------------------------------------------------------------------------------

    def answer_records(self) -> dict[str, AnswerRecord]:
        """Returns key of a request → its last answer."""
        query = "SELECT key, attempt, status, parser, usable, repairs FROM answers ORDER BY key, attempt"
        records: dict[str, AnswerRecord] = {}
        for key, attempt, status, parser, usable, repairs in self.read(query):
            is_parsed = parser == PARSER_VERSION
            records[key] = AnswerRecord(
                attempt,
                status if is_parsed else None,
                bool(usable),
                repairs if is_parsed else "{}",
                records[key].answers + 1 if key in records else 1,
            )
        return records

    def request_keys(self) -> dict[bytes, str]:
        """Returns prompt hash of a question → key of its request, for all questions that were rendered before."""
        return dict(self.read("SELECT mark, key FROM wordings"))

    def adaptations(self, endpoint: str, model: str) -> dict[str, str | None]:
        """Returns the attributes of an endpoint that its server is known to refuse → what is sent instead.

        Args:
            endpoint: normalized base URL.
            model: as the server calls it.
        """
        if self.database.version < schema.VERSION:
            return {}
        return dict(self.read("SELECT field, value FROM adaptations WHERE endpoint = ? AND model = ?", endpoint, model))

    def record_adaptation(self, endpoint: str, model: str, field: str, value: str | None) -> None:
        """Records an attribute of an endpoint that its server refuses, and what is sent instead."""
        values = (json.dumps([endpoint, model, field]), endpoint, model, field, value)
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO adaptations VALUES (?, ?, ?, ?, ?)", values)

    def save_request_keys(self, request_keys: Mapping[bytes, str]) -> None:
        """Records keys of requests by prompt hash, so that these questions are found without rendering them again."""
        with self.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO wordings VALUES (?, ?)", request_keys.items())

    def keys_in_batches(self) -> set[str]:
        """Returns the keys of requests that were sent in a batch whose answers are not here yet."""
        return {key for (key,) in self.read("SELECT key FROM attempts WHERE state = 'sent' AND batch IS NOT NULL")}

    def content(self, attempt: int) -> tuple[str | None, str | None, str | None]:
        """Returns content, finish reason and refusal of an attempt's answer."""
        return self.read("SELECT content, finish_reason, refusal FROM answers WHERE attempt = ?", attempt)[0]

    def parsed_answer(self, attempt: int) -> ParsedAnswer:
        """Returns what an attempt's answer was parsed as."""
        query = "SELECT status, items, hints, repairs FROM answers WHERE attempt = ?"
        status, items, hints, repairs = self.read(query, attempt)[0]
        return ParsedAnswer(status, tuple(json.loads(items)), tuple(json.loads(hints)), json.loads(repairs))

    def read_ledger(self) -> Ledger:
        """Adds up the ledger from the file; it equals `ledger` at any time."""
        totals = "SELECT state, COUNT(*), SUM(cost), SUM(reserved), SUM(tokens) FROM attempts GROUP BY state"
        return Ledger.add_up(self.read(totals))

    def failures(self, state: str = "possible") -> list[tuple[str, str | None, int]]:
        """Lists attempts without an answer: the key of the request, the error, and the pico-dollars of each.

        Args:
            state: "possible" for those that may have been billed, "released" for those that cost nothing.
        """
        return self.read("SELECT key, error, cost FROM attempts WHERE state = ? ORDER BY id", state)

    def verify(self) -> None:
        """Raises ValueError where the file is damaged, was edited, or does not add up to the ledger."""
        schema.check(self.database)
        if (ledger := self.read_ledger()) != self.ledger:
            raise ValueError(f"{self.database.path}: ledger is {self.ledger}; expected {ledger}, the file's totals")
