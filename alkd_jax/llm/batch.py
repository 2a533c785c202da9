"""The Batch API: the same questions at half the price, answered within a day.

`submit`, `poll` and `ingest` can each be called any number of times, in this process or the next: a shard is written
down before it is uploaded, and looked for by its name before it is created again, so that none is paid for twice.
"""

import asyncio
import collections
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from alkd_jax.llm.client import Client, is_final
from alkd_jax.llm.endpoint import Connection, Reply, read_completion
from alkd_jax.llm.prompts import Question

_PATH: Final = "/v1/chat/completions"
_AT_AN_END = ("completed", "expired", "cancelled", "failed")
_NAMES = ("shard", "input_file", "batch", "status", "output_file", "error_file")
_INGESTED = "ingested"


class Batches:
    """The batches of one client's store.

    Attributes:
        client: whom to ask, and on what terms; online and in a batch a question has the same key.
        shard_requests: questions in a shard at most.
        shard_bytes: size of a shard's file at most.
    """

    def __init__(self, client: Client, *, shard_requests: int = 45_000, shard_bytes: int = 180_000_000):
        self.client, self.store = client, client.store
        self.shard_requests, self.shard_bytes = shard_requests, shard_bytes

    async def submit(self, questions: Iterable[Question]) -> int:
        """Hands over what is neither answered nor handed over yet.

        Returns:
            The number of questions handed over now.

        Raises:
            ValueError: the worst case does not fit under a cap; the shards before it stay handed over.
            ConnectionError: the server failed; call again.
        """
        async with self._connection() as connection:
            for row in self.rows():
                if row["status"] is None:
                    await self._create(connection, row, is_resumed=True)
            handed_over = 0
            for requests in self._shards(questions):
                worst = [self.client.worst(request, batch=True) for request in requests]
                ledger = self.store.ledger
                pico, tokens = ledger.committed + sum(p for p, _ in worst), ledger.tokens + sum(t for _, t in worst)
                if not self.client.budget.allows(pico, tokens, ledger.requests + len(requests)):
                    raise ValueError(f"budget exhausted: a shard of {len(requests)} questions could pass the cap")
                told = json.dumps([len(self.rows()), [request["key"] for request in requests]])
                shard = hashlib.sha256(told.encode()).hexdigest()
                entries = [(request, *cost) for request, cost in zip(requests, worst, strict=True)]
                self.store.begin_all(entries, batch=shard)
                await self._create(connection, {"shard": shard, "input_file": None}, is_resumed=False)
                handed_over += len(requests)
        return handed_over

    async def poll(self) -> dict[str, int]:
        """Asks how the batches stand.

        Returns:
            Status → batches.

        Raises:
            ConnectionError: the server failed; call again.
        """
        async with self._connection() as connection:
            for row in self.rows():
                if row["batch"] and row["status"] not in (*_AT_AN_END, _INGESTED):
                    batch = await self._call(connection, connection.sdk.batches.retrieve(row["batch"]))
                    self._note(
                        row["shard"],
                        status=batch.status,
                        output_file=batch.output_file_id,
                        error_file=batch.error_file_id,
                    )
        return dict(collections.Counter(row["status"] or "not created" for row in self.rows()))

    async def ingest(self) -> dict[str, int]:
        """Takes in what batches at an end have brought, from both their files, in any order.

        Returns:
            Counts: "answers", "errors", "not done" (asked again by the next submit), "foreign" and "repeated" lines,
            "files gone".

        Raises:
            ConnectionError: the server failed; call again.
        """
        counts: collections.Counter[str] = collections.Counter()
        async with self._connection() as connection:
            for row in self.rows():
                if row["status"] not in _AT_AN_END:
                    continue
                gone = False
                for file in (row["output_file"], row["error_file"]):
                    raw = await self._file(connection, file) if file else b""
                    gone = gone or raw is None
                    self._take_in(connection, row["shard"], raw or b"", counts)
                for attempt in self._open(row["shard"]).values():
                    if gone:
                        self.store.mark_possibly_billed(attempt, error="the batch's file is gone", http_status=404)
                    else:
                        self.store.mark_unbilled(attempt, error=f"batch {row['status']}", http_status=None)
                    counts["files gone" if gone else "not done"] += 1
                self._note(row["shard"], status=_INGESTED)
        return dict(counts)

    async def run(self, questions: Iterable[Question], *, every_s: int | float = 60.0) -> dict[str, int]:
        """Submits, waits until every batch is at an end, and ingests."""
        await self.submit(questions)
        while set(await self.poll()) - {*_AT_AN_END, _INGESTED}:
            await asyncio.sleep(every_s)
        return await self.ingest()

    def rows(self) -> list[dict[str, Any]]:
        """All shards, with what the provider calls their files and batches."""
        rows = self.store.read(f"SELECT {', '.join(_NAMES)} FROM batches ORDER BY rowid")
        return [dict(zip(_NAMES, row, strict=True)) for row in rows]

    def _shards(self, questions: Iterable[Question]) -> Iterator[list[dict[str, Any]]]:
        known, waiting = self.store.answered(), self.store.waiting()
        shard: list[dict[str, Any]] = []
        size = 0
        for question in questions:
            request = self.client.endpoint.request(question)
            if is_final(known.get(request["key"])) or request["key"] in waiting:
                continue
            waiting.add(request["key"])
            if shard and (len(shard) >= self.shard_requests or size + request["size"] + 200 > self.shard_bytes):
                yield shard
                shard, size = [], 0
            shard.append(request)
            size += request["size"] + 200
        if shard:
            yield shard

    async def _create(self, connection: Connection, row: Mapping[str, Any], *, is_resumed: bool) -> None:
        """Uploads a shard and creates its batch, unless an earlier process came so far."""
        sdk, shard = connection.sdk, row["shard"]
        batch = await self._find(connection, shard) if is_resumed else None
        if batch is None:
            input_file = row["input_file"]
            if input_file is None:
                lines = "".join(self._lines(shard)).encode()
                made = sdk.files.create(file=(f"{shard[:16]}.jsonl", lines), purpose="batch")
                input_file = (await self._call(connection, made)).id
                self._note(shard, input_file=input_file)
            batch = await self._call(
                connection,
                sdk.batches.create(
                    completion_window="24h", endpoint=_PATH, input_file_id=input_file, metadata={"shard": shard}
                ),
            )
        self._note(shard, batch=batch.id, status=batch.status)

    async def _find(self, connection: Connection, shard: str) -> Any:
        """The batch of a shard that was created but not written down, or None."""

        async def search() -> Any:
            async for batch in connection.sdk.batches.list(limit=100):
                if (batch.metadata or {}).get("shard") == shard:
                    return batch
            return None

        return await self._call(connection, search())

    def _lines(self, shard: str) -> Iterator[str]:
        query = (
            "SELECT r.key, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.state = 'sent' AND a.batch = ? ORDER BY a.id"
        )
        for key, body in self.store.read(query, shard):
            line = {"custom_id": key, "method": "POST", "url": _PATH, "body": json.loads(zlib.decompress(body))}
            yield json.dumps(line, ensure_ascii=False) + "\n"

    def _open(self, shard: str) -> dict[str, int]:
        """Key → attempt, of what a shard has not brought back."""
        return dict(self.store.read("SELECT key, id FROM attempts WHERE state = 'sent' AND batch = ?", shard))

    def _note(self, shard: str, **values: str | None) -> None:
        """Keeps what became known of a shard."""
        with self.store.writing() as connection:
            for name in values.keys() & set(_NAMES):
                connection.execute(f"UPDATE batches SET {name} = ? WHERE shard = ?", (values[name], shard))

    def _take_in(self, connection: Connection, shard: str, raw: bytes, counts: collections.Counter[str]) -> None:
        waiting = self._open(shard)
        asked = {key for (key,) in self.store.read("SELECT key FROM attempts WHERE batch = ?", shard)}
        for line in raw.splitlines():
            key, http_status, body = _read_line(line)
            if key not in waiting:
                counts["repeated" if key in asked else "foreign"] += 1
                continue
            attempt = waiting.pop(key)
            answer = read_completion(connection.without_key(json.dumps(body).encode()))
            if http_status == 200 and not isinstance(answer, str):
                query = "SELECT size, tokens - size FROM requests JOIN attempts USING (key) WHERE id = ?"
                request = dict(zip(("size", "output"), self.store.read(query, attempt)[0], strict=True))
                cost, tokens, basis = self.client.cost(Reply("answer", answer), request, batch=True)
                self.store.record_answer(attempt, answer, cost=cost, tokens=tokens, basis=basis)
                counts["answers"] += 1
            elif http_status == 200:
                self.store.mark_possibly_billed(
                    attempt, error=answer if isinstance(answer, str) else "", http_status=http_status
                )
                counts["errors"] += 1
            else:
                told = connection.scrub(f"in a batch: {body}")
                self.store.mark_unbilled(attempt, error=told, http_status=http_status)
                counts["errors"] += 1

    async def _file(self, connection: Connection, name: str) -> bytes | None:
        """A file's content; None where it is gone."""
        import openai

        async def fetch() -> bytes | None:
            try:
                return (await connection.sdk.files.content(name)).content
            except openai.NotFoundError:
                return None

        return await self._call(connection, fetch())

    def _connection(self) -> Connection:
        return Connection(self.client.endpoint, self.client.limits)

    async def _call(self, connection: Connection, call: Any) -> Any:
        """Awaits the SDK; its exceptions, which hold the API key, end here."""
        import openai

        told = ""
        try:
            async with asyncio.timeout(self.client.limits.total_s):
                return await call
        except openai.OpenAIError as error:
            told = connection.scrub(f"{type(error).__name__}: {error}")
        except TimeoutError:
            told = f"no answer within {self.client.limits.total_s:g} s"
        raise ConnectionError(f"batch: {told}; run again to go on")


def _read_line(line: bytes) -> tuple[str | None, int | None, Any]:
    """custom_id, HTTP status and body of a line of a batch's file; None for what is not there."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None, None, None
    if not isinstance(value, dict):
        return None, None, None
    response, key = value.get("response"), value.get("custom_id")
    key = key if isinstance(key, str) else None
    if not isinstance(response, dict):
        return key, None, value.get("error")
    return key, response.get("status_code") if type(response.get("status_code")) is int else None, response.get("body")
