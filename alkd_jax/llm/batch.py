"""The Batch API: the same questions at half the price, answered within a day.

`submit`, `poll`, `wait`, `ingest` and `cancel` can each be called any number of times, in this process or a later one.
A shard of questions is recorded before it is uploaded, and its batch is searched for by the shard's digest before it is
created again, so that no shard is paid for twice.
"""

import asyncio
import collections
import contextlib
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm import batch_results, refusals
from alkd_jax.llm.batch_calls import PATH, BatchCalls, RefusedError
from alkd_jax.llm.client import Client
from alkd_jax.llm.completions import parse_completion
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.prompts import Question

_FINISHED = ("completed", "expired", "cancelled", "failed", batch_results.GONE)
_REFUSED = "refused"
_COLUMNS = ("shard", "input_file", "batch", "status", "output_file", "error_file")
_INGESTED = "ingested"


class Batches:
    """The batches of one client's store.

    Attributes:
        client: endpoint, store, price, budget and limits; a request has the same key online and in a batch.
        errors: what batches and their questions failed of → number of questions.
        shard_requests: number of questions in a shard at most.
        shard_bytes: size of a shard's file in bytes at most.
    """

    def __init__(self, client: Client, *, shard_requests: int = 45_000, shard_bytes: int = 180_000_000):
        self.client, self.store = client, client.store
        self.shard_requests, self.shard_bytes = shard_requests, shard_bytes
        self.errors: collections.Counter[str] = collections.Counter()

    async def submit(self, questions: Iterable[Question], *, again: bool = False) -> int:
        """Submits the questions that are neither answered nor in a batch yet.

        Args:
            questions: to ask.
            again: submit also questions whose last batch the server has called faulty.

        Returns:
            The number of questions submitted now.

        Raises:
            ValueError: a shard could pass a cap at its highest cost, the shards before it stay submitted; or all
                questions were in a faulty batch.
            ConnectionError: the server failed; call again. A shard that it refused is released.
        """
        async with self._calls() as calls:
            for shard in self.shards():
                if shard["status"] is None:
                    await self._create_batch(calls, shard, is_resumed=True)
            submitted = 0
            failed = {} if again else batch_results.failed_keys(self.store)
            found: collections.Counter[str] = collections.Counter()
            for requests in self._split(questions, failed, found):
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
                await self._create_batch(calls, {"shard": digest, "input_file": None}, is_resumed=False)
                submitted += len(requests)
        if found and not submitted:
            reason = found.most_common(1)[0][0]
            raise ValueError(
                f"{found.total()} questions were in a batch that failed: {reason}; expected the cause to be mended, "
                "then --again, or the questions to be asked without --batch"
            )
        self.errors.update(found)
        return submitted

    async def poll(self) -> dict[str, int]:
        """Asks the server for the status of the batches.

        Returns:
            Status → number of batches.

        Raises:
            ConnectionError: the server failed; call again.
        """
        async with self._calls() as calls:
            for shard in self.shards():
                if shard["batch"] and shard["status"] not in (*_FINISHED, _INGESTED):
                    await self._update_from_server(calls, shard)
        return self.statuses()

    async def wait(self, *, first_s: float = 1.0, longest_s: float = 60.0) -> None:
        """Polls until every batch has ended.

        Args:
            first_s: seconds before the second poll; they double with every poll.
            longest_s: seconds between two polls at most.

        Raises:
            ConnectionError: the server has failed five times in a row.
        """
        seconds, failures = first_s, 0
        while True:
            try:
                statuses, failures = await self.poll(), 0
            except ConnectionError as error:
                failures += 1
                if failures >= 5 or isinstance(error, RefusedError):
                    raise
                statuses = {"not known": 1}
            if not statuses.keys() - {*_FINISHED, _INGESTED, _REFUSED, "not created"}:
                return
            await asyncio.sleep(seconds)
            seconds = min(longest_s, 2 * seconds)

    async def cancel(self) -> int:
        """Cancels the batches that have not ended; what they have answered is billed, and `ingest` records it.

        Returns:
            The number of batches cancelled.

        Raises:
            ConnectionError: the server failed; call again.
        """
        cancelled = 0
        async with self._calls() as calls:
            for shard in self.shards():
                if shard["status"] in (*_FINISHED, _INGESTED, _REFUSED, "cancelling"):
                    continue
                batch_id = shard["batch"]
                if batch_id is None:
                    found = await calls.find(shard["shard"])
                    batch_id = None if found is None else found.id
                if batch_id is None:
                    self._release(shard["shard"], "batch cancelled before it was created")
                    self._update_shard(shard["shard"], status=_INGESTED)
                else:
                    try:
                        batch = await calls.cancel(batch_id)
                        self._update_shard(shard["shard"], batch=batch_id, status=batch.status)
                    except RefusedError:
                        # It has ended meanwhile.
                        await self._update_from_server(calls, shard | {"batch": batch_id})
                cancelled += 1
        return cancelled

    async def ingest(self) -> dict[str, int]:
        """Records what finished batches have brought, from both their files, whose lines are in any order.

        Returns:
            Counts: "answers", "errors", "not done" (the next submit asks these again), "lost" (done, but not in the
            files), "foreign" and "repeated" lines, and "files gone".

        Raises:
            ConnectionError: the server failed; call again.
        """
        counts: collections.Counter[str] = collections.Counter()
        async with self._calls() as calls:
            for shard in self.shards():
                if shard["status"] in _FINISHED:
                    await self._ingest_shard(calls, shard, counts)
        return dict(counts)

    async def _ingest_shard(
        self, calls: BatchCalls, shard: Mapping[str, Any], counts: collections.Counter[str]
    ) -> None:
        """Records the outcomes of one batch that has ended."""
        batch = None if shard["status"] == batch_results.GONE else await calls.retrieve(shard["batch"])
        is_gone = batch is None
        for file_id in filter(None, (shard["output_file"], shard["error_file"])):
            raw = await calls.download(file_id)
            is_gone = is_gone or raw is None
            self._ingest_lines(calls, shard["shard"], raw or b"", counts)
        left = self._open_attempts(shard["shard"])
        num_lost = batch_results.num_lost(batch, self._num_attempts(shard["shard"]) - len(left), len(left))
        if num_lost and shard["output_file"] and not is_gone:
            # The file may have been cut on its way.
            raw = await calls.download(shard["output_file"])
            self._ingest_lines(calls, shard["shard"], raw or b"", collections.Counter())
            found = len(left) - len(self._open_attempts(shard["shard"]))
            if found:
                counts["answers"] += found
            left, num_lost = self._open_attempts(shard["shard"]), max(0, num_lost - found)
        reason = calls.connection.redact(batch_results.reason(batch, shard["status"]))
        not_found = "answered, but not in the batch's file"
        for number, attempt in enumerate(left.values()):
            if is_gone:
                self.store.mark_possibly_billed(attempt, error="the batch or its file is gone", http_status=404)
            elif number < num_lost:
                self.store.mark_possibly_billed(attempt, error=not_found, http_status=None)
            else:
                self.store.mark_unbilled(attempt, error=reason, http_status=None)
                if shard["status"] == "failed":
                    self.errors[reason] += 1
            counts["files gone" if is_gone else "lost" if number < num_lost else "not done"] += 1
        self._update_shard(shard["shard"], status=_INGESTED)

    def statuses(self) -> dict[str, int]:
        """Returns status → number of batches, as of the last poll."""
        return dict(collections.Counter(shard["status"] or "not created" for shard in self.shards()))

    def shards(self) -> list[dict[str, Any]]:
        """Returns all shards in the order of submission, with the server's ids of their files and batches."""
        rows = self.store.read(f"SELECT {', '.join(_COLUMNS)} FROM batches ORDER BY rowid")
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def _split(
        self, questions: Iterable[Question], failed: Mapping[str, str], found_failed: collections.Counter[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields the requests of each new shard, without those that are answered, in a batch, or failed in one."""
        index = self.client.index()
        shard: list[dict[str, Any]] = []
        size = 0
        for question in questions:
            found = index.find(question)
            if found.is_in_batch or (found.record is not None and found.record.is_final):
                continue
            request = found.request or self.client.endpoint.request(question)
            if (reason := failed.get(request["key"])) is not None:
                found_failed[reason] += 1
                continue
            index.keys_in_batches.add(request["key"])
            if shard and (len(shard) >= self.shard_requests or size + request["size"] + 200 > self.shard_bytes):
                yield shard
                shard, size = [], 0
            shard.append(request)
            size += request["size"] + 200
        if shard:
            yield shard

    async def _create_batch(self, calls: BatchCalls, row: Mapping[str, Any], *, is_resumed: bool) -> None:
        """Uploads a shard and creates its batch, except for steps that an earlier process has done.

        Raises:
            RefusedError: the server will not do it; the questions are released.
            ConnectionError: the server failed, and may have done it.
        """
        try:
            await self._upload_and_create(calls, row, is_resumed=is_resumed)
        except RefusedError as error:
            self._release(row["shard"], str(error))
            self._update_shard(row["shard"], status=_REFUSED)
            raise

    def _release(self, shard: str, error: str) -> None:
        """Releases a shard that no batch was made of."""
        for attempt in self._open_attempts(shard).values():
            self.store.mark_unbilled(attempt, error=error, http_status=None)

    async def _upload_and_create(self, calls: BatchCalls, row: Mapping[str, Any], *, is_resumed: bool) -> None:
        """Does the same; what is reserved stays so."""
        shard = row["shard"]
        batch = await calls.find(shard) if is_resumed else None
        if batch is None:
            input_file = row["input_file"]
            if input_file is None:
                lines = "".join(self._input_lines(shard)).encode()
                input_file = await calls.upload(shard, lines)
                self._update_shard(shard, input_file=input_file)
            batch = await calls.create(shard, input_file)
        self._update_shard(shard, batch=batch.id, status=batch.status)

    async def _update_from_server(self, calls: BatchCalls, shard: Mapping[str, Any]) -> None:
        """Records the status and the files of a batch."""
        batch = await calls.retrieve(shard["batch"])
        if batch is None:
            self._update_shard(shard["shard"], batch=shard["batch"], status=batch_results.GONE)
            return
        files = {"output_file": batch.output_file_id, "error_file": batch.error_file_id}
        self._update_shard(shard["shard"], batch=shard["batch"], status=batch.status, **files)

    def _input_lines(self, shard: str) -> Iterator[str]:
        """Yields the lines of a shard's file."""
        query = (
            "SELECT r.key, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.state = 'sent' AND a.batch = ? ORDER BY a.id"
        )
        for key, body in self.store.read(query, shard):
            line = {"custom_id": key, "method": "POST", "url": PATH, "body": json.loads(zlib.decompress(body))}
            yield json.dumps(line, ensure_ascii=False) + "\n"

    def _open_attempts(self, shard: str) -> dict[str, int]:
        """Returns key of a request → id of the attempt, for the requests of a shard without an outcome."""
        return dict(self.store.read("SELECT key, id FROM attempts WHERE state = 'sent' AND batch = ?", shard))

    def _num_attempts(self, shard: str) -> int:
        """Returns the number of requests in a shard."""
        return int(self.store.read("SELECT COUNT(*) FROM attempts WHERE batch = ?", shard)[0][0])

    def _update_shard(self, shard: str, **values: str | None) -> None:
        """Records new values of a shard's columns."""
        with self.store.transaction() as connection:
            for name in values.keys() & set(_COLUMNS):
                connection.execute(f"UPDATE batches SET {name} = ? WHERE shard = ?", (values[name], shard))

    def _ingest_lines(self, calls: BatchCalls, shard: str, raw: bytes, counts: collections.Counter[str]) -> None:
        """Records the outcomes in one file of a finished batch."""
        open_attempts = self._open_attempts(shard)
        keys = {key for (key,) in self.store.read("SELECT key FROM attempts WHERE batch = ?", shard)}
        for line in raw.splitlines():
            key, http_status, body = batch_results.parse_line(line)
            if key not in open_attempts:
                counts["repeated" if key in keys else "foreign"] += 1
                continue
            attempt = open_attempts.pop(key)
            text = calls.connection.remove_key(json.dumps(body).encode())
            answer = parse_completion(text)
            if http_status is None or http_status != 200:
                self._record_failure(calls, attempt, http_status, text)
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

    def _record_failure(self, calls: BatchCalls, attempt: int, http_status: int | None, text: bytes) -> None:
        """Records the error of one question of a batch, and leaves out a field that the server refuses."""
        query = "SELECT r.body FROM requests r JOIN attempts a USING (key) WHERE a.id = ?"
        body = json.loads(zlib.decompress(self.store.read(query, attempt)[0][0]))
        reply = refusals.classify(http_status or 400, calls.connection.redact_bytes(text), {}, body=body, now=0.0)
        error = f"in a batch: {reply.error}"
        if reply.outcome == "refused_field" and (instead := self.client.adapt(str(reply.field), body)):
            error += f"; {instead} the next time"
        mark = self.store.mark_possibly_billed if reply.is_charged else self.store.mark_unbilled
        mark(attempt, error=error, http_status=http_status)
        self.errors[error] += 1

    @contextlib.asynccontextmanager
    async def _calls(self) -> AsyncIterator[BatchCalls]:
        """Opens a connection."""
        async with Connection(self.client.endpoint, self.client.limits) as connection:
            yield BatchCalls(connection, self.client.limits.total_s)
