"""The Batch API: the same questions at half the price, answered within a day.

`submit`, `poll` and `ingest` can each be called any number of times, in this process or a later one. A shard of
questions is recorded before it is uploaded, and its batch is searched for by the shard's digest before it is created
again, so that no shard is paid for twice.
"""

import asyncio
import collections
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from alkd_jax.llm.client import Client
from alkd_jax.llm.endpoint import Connection, parse_completion
from alkd_jax.llm.prompts import Question

_PATH: Final = "/v1/chat/completions"
_FINISHED = ("completed", "expired", "cancelled", "failed")
_COLUMNS = ("shard", "input_file", "batch", "status", "output_file", "error_file")
_INGESTED = "ingested"


class Batches:
    """The batches of one client's store.

    Attributes:
        client: endpoint, store, price, budget and limits; a request has the same key online and in a batch.
        shard_requests: number of questions in a shard at most.
        shard_bytes: size of a shard's file in bytes at most.
    """

    def __init__(self, client: Client, *, shard_requests: int = 45_000, shard_bytes: int = 180_000_000):
        self.client, self.store = client, client.store
        self.shard_requests, self.shard_bytes = shard_requests, shard_bytes

    async def submit(self, questions: Iterable[Question]) -> int:
        """Submits the questions that are neither answered nor in a batch yet.

        Args:
            questions: to ask.

        Returns:
            The number of questions submitted now.

        Raises:
            ValueError: a shard could pass a cap at its highest cost; the shards before it stay submitted.
            ConnectionError: the server failed; call again.
        """
        async with self._connection() as connection:
            for shard in self.shards():
                if shard["status"] is None:
                    await self._create_batch(connection, shard, is_resumed=True)
            submitted = 0
            for requests in self._split(questions):
                max_costs = [self.client.max_cost(request, batch=True) for request in requests]
                ledger = self.store.ledger
                cost = ledger.committed + sum(request_cost for request_cost, _ in max_costs)
                tokens = ledger.tokens + sum(request_tokens for _, request_tokens in max_costs)
                if not self.client.budget.allows(cost, tokens, ledger.requests + len(requests)):
                    raise ValueError(f"budget exhausted: a shard of {len(requests)} questions could pass the cap")
                content = json.dumps([len(self.shards()), [request["key"] for request in requests]])
                digest = hashlib.sha256(content.encode()).hexdigest()
                entries = [(request, *max_cost) for request, max_cost in zip(requests, max_costs, strict=True)]
                self.store.begin_attempts(entries, shard=digest)
                await self._create_batch(connection, {"shard": digest, "input_file": None}, is_resumed=False)
                submitted += len(requests)
        return submitted

    async def poll(self) -> dict[str, int]:
        """Asks the server for the status of the batches.

        Returns:
            Status → number of batches.

        Raises:
            ConnectionError: the server failed; call again.
        """
        async with self._connection() as connection:
            for shard in self.shards():
                if shard["batch"] and shard["status"] not in (*_FINISHED, _INGESTED):
                    batch = await self._call(connection, connection.sdk.batches.retrieve(shard["batch"]))
                    self._update_shard(
                        shard["shard"],
                        status=batch.status,
                        output_file=batch.output_file_id,
                        error_file=batch.error_file_id,
                    )
        return dict(collections.Counter(shard["status"] or "not created" for shard in self.shards()))

    async def ingest(self) -> dict[str, int]:
        """Records what finished batches have brought, from both their files, whose lines are in any order.

        Returns:
            Counts: "answers", "errors", "not done" (the next submit asks these again), "foreign" and "repeated" lines,
            and "files gone".

        Raises:
            ConnectionError: the server failed; call again.
        """
        counts: collections.Counter[str] = collections.Counter()
        async with self._connection() as connection:
            for shard in self.shards():
                if shard["status"] not in _FINISHED:
                    continue
                is_gone = False
                for file_id in (shard["output_file"], shard["error_file"]):
                    raw = await self._download(connection, file_id) if file_id else b""
                    is_gone = is_gone or raw is None
                    self._ingest_lines(connection, shard["shard"], raw or b"", counts)
                for attempt in self._open_attempts(shard["shard"]).values():
                    if is_gone:
                        self.store.mark_possibly_billed(attempt, error="the batch's file is gone", http_status=404)
                    else:
                        self.store.mark_unbilled(attempt, error=f"batch {shard['status']}", http_status=None)
                    counts["files gone" if is_gone else "not done"] += 1
                self._update_shard(shard["shard"], status=_INGESTED)
        return dict(counts)

    def shards(self) -> list[dict[str, Any]]:
        """Returns all shards in the order of submission, with the server's ids of their files and batches."""
        rows = self.store.read(f"SELECT {', '.join(_COLUMNS)} FROM batches ORDER BY rowid")
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def _split(self, questions: Iterable[Question]) -> Iterator[list[dict[str, Any]]]:
        """Yields the requests of each new shard, without those that are answered or in a batch."""
        records, keys_in_batches = self.store.answer_records(), self.store.keys_in_batches()
        shard: list[dict[str, Any]] = []
        size = 0
        for question in questions:
            request = self.client.endpoint.request(question)
            record = records.get(request["key"])
            if request["key"] in keys_in_batches or (record is not None and record.is_final):
                continue
            keys_in_batches.add(request["key"])
            if shard and (len(shard) >= self.shard_requests or size + request["size"] + 200 > self.shard_bytes):
                yield shard
                shard, size = [], 0
            shard.append(request)
            size += request["size"] + 200
        if shard:
            yield shard

    async def _create_batch(self, connection: Connection, row: Mapping[str, Any], *, is_resumed: bool) -> None:
        """Uploads a shard and creates its batch, except for steps that an earlier process has done."""
        sdk, shard = connection.sdk, row["shard"]
        batch = await self._find_batch(connection, shard) if is_resumed else None
        if batch is None:
            input_file = row["input_file"]
            if input_file is None:
                lines = "".join(self._input_lines(shard)).encode()
                upload = sdk.files.create(file=(f"{shard[:16]}.jsonl", lines), purpose="batch")
                input_file = (await self._call(connection, upload)).id
                self._update_shard(shard, input_file=input_file)
            batch = await self._call(
                connection,
                sdk.batches.create(
                    completion_window="24h", endpoint=_PATH, input_file_id=input_file, metadata={"shard": shard}
                ),
            )
        self._update_shard(shard, batch=batch.id, status=batch.status)

    async def _find_batch(self, connection: Connection, shard: str) -> Any:
        """Returns the batch of a shard that was created but not recorded, or None."""

        async def search() -> Any:
            async for batch in connection.sdk.batches.list(limit=100):
                if (batch.metadata or {}).get("shard") == shard:
                    return batch
            return None

        return await self._call(connection, search())

    def _input_lines(self, shard: str) -> Iterator[str]:
        """Yields the lines of a shard's file."""
        query = (
            "SELECT r.key, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.state = 'sent' AND a.batch = ? ORDER BY a.id"
        )
        for key, body in self.store.read(query, shard):
            line = {"custom_id": key, "method": "POST", "url": _PATH, "body": json.loads(zlib.decompress(body))}
            yield json.dumps(line, ensure_ascii=False) + "\n"

    def _open_attempts(self, shard: str) -> dict[str, int]:
        """Returns key of a request → id of the attempt, for the requests of a shard without an outcome."""
        return dict(self.store.read("SELECT key, id FROM attempts WHERE state = 'sent' AND batch = ?", shard))

    def _update_shard(self, shard: str, **values: str | None) -> None:
        """Records new values of a shard's columns."""
        with self.store.transaction() as connection:
            for name in values.keys() & set(_COLUMNS):
                connection.execute(f"UPDATE batches SET {name} = ? WHERE shard = ?", (values[name], shard))

    def _ingest_lines(self, connection: Connection, shard: str, raw: bytes, counts: collections.Counter[str]) -> None:
        """Records the outcomes in one file of a finished batch."""
        open_attempts = self._open_attempts(shard)
        keys = {key for (key,) in self.store.read("SELECT key FROM attempts WHERE batch = ?", shard)}
        for line in raw.splitlines():
            key, http_status, body = _parse_line(line)
            if key not in open_attempts:
                counts["repeated" if key in keys else "foreign"] += 1
                continue
            attempt = open_attempts.pop(key)
            answer = parse_completion(connection.remove_key(json.dumps(body).encode()))
            if http_status != 200:
                error = connection.redact(f"in a batch: {body}")
                self.store.mark_unbilled(attempt, error=error, http_status=http_status)
                counts["errors"] += 1
            elif isinstance(answer, str):
                self.store.mark_possibly_billed(attempt, error=answer, http_status=http_status)
                counts["errors"] += 1
            else:
                query = "SELECT size, tokens - size FROM requests JOIN attempts USING (key) WHERE id = ?"
                request = dict(zip(("size", "max_output_tokens"), self.store.read(query, attempt)[0], strict=True))
                cost, tokens, basis = self.client.cost(answer, request, batch=True)
                self.store.record_answer(attempt, answer, cost=cost, tokens=tokens, basis=basis)
                counts["answers"] += 1

    async def _download(self, connection: Connection, file_id: str) -> bytes | None:
        """Returns the content of a file, or None where the server has it no more."""
        import openai

        async def fetch() -> bytes | None:
            try:
                return (await connection.sdk.files.content(file_id)).content
            except openai.NotFoundError:
                return None

        return await self._call(connection, fetch())

    def _connection(self) -> Connection:
        return Connection(self.client.endpoint, self.client.limits)

    async def _call(self, connection: Connection, call: Any) -> Any:
        """Awaits a call of the SDK and replaces its exceptions, which hold the API key.

        Raises:
            ConnectionError: the call failed.
        """
        import openai

        try:
            async with asyncio.timeout(self.client.limits.total_s):
                return await call
        except openai.OpenAIError as error:
            message = connection.redact(f"{type(error).__name__}: {error}")
        except TimeoutError:
            message = f"no answer within {self.client.limits.total_s:g} s"
        raise ConnectionError(f"batch: {message}; run again to continue")


def _parse_line(line: bytes) -> tuple[str | None, int | None, Any]:
    """Returns custom_id, HTTP status and body of a line of a batch's file, each None where it is missing."""
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
