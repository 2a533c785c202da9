"""Vectors of texts from a server's embedding model, paid for and stored as answers are.

Each request for some texts is reserved in the store's ledger at its largest cost before it is sent, and its vectors are
on disk before anything depends on them. A text whose vector is in the store is not sent again, whatever the other texts
of its request were.
"""

import asyncio
import base64
import binascii
import dataclasses
import functools
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from alkd_jax.checks import check_count
from alkd_jax.errors import shown
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.attempts import Attempts
from alkd_jax.llm.client import Client
from alkd_jax.llm.completions import read_body
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.endpoint import Endpoint, canonical_json
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.store import Store
from alkd_jax.llm.token_usage import read_usage
from alkd_jax.llm.usage import UsageReport

KIND: Final = "embed"
_BYTES_OF_ANSWER: Final = 2**20
"""Space that is reserved on the disk for every answer in flight: 64 vectors of 3,072 numbers."""


class EmbeddingConnection(Connection):
    """A connection that asks for vectors of texts."""

    most_bytes = 2**25

    def _method(self) -> Callable[..., Any]:
        return functools.partial(self.sdk.embeddings.with_streaming_response.create, input=[])

    def _read(self, raw: bytes, headers: Mapping[str, str], body: Mapping[str, Any]) -> Answer | str:
        return parse_embeddings(raw, len(body["input"]))


def embedding_request(endpoint: Endpoint, texts: Sequence[str], *, dimensions: int | None = None) -> dict[str, Any]:
    """Makes the request for the vectors of some texts.

    Args:
        endpoint: server and model.
        texts: none of them empty.
        dimensions: D, of models that give vectors of several lengths; None for the model's own.

    Returns:
        The values that :meth:`alkd_jax.llm.store.Store.begin_attempt` records.
    """
    body = _options(endpoint, dimensions) | {"input": list(texts)}
    text = canonical_json(body)
    key = hashlib.sha256(f"{KIND}\n{endpoint.normalized_url}\n{text}".encode())
    return {
        "key": key.hexdigest(),
        "prompt_hash": key.digest()[:16],
        "unbounded_hash": b"u" + key.digest()[:16],
        "kind": KIND,
        "session_id": 0,
        "endpoint": endpoint.normalized_url,
        "model": endpoint.model,
        "candidates": "[]",
        "size": len(text.encode()) + 64,
        "max_output_tokens": 0,
        "body": body,
    }


def parse_embeddings(raw: bytes, count: int) -> Answer | str:
    """Parses the vectors in the body of an HTTP answer.

    Args:
        raw: the body.
        count: number of texts that were sent.

    Returns:
        The answer, whose content is the base64 code of the vectors in little-endian float32; or a text that says why
        there is none.
    """
    value = read_body(raw)
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(data, list):
        return f"an answer of {len(raw)} bytes without vectors"
    if len(data) != count:
        return f"an answer with {len(data)} vectors; expected {count}"
    rows: list[np.ndarray | None] = [None] * count
    for place, entry in enumerate(data):
        index = entry.get("index", place) if isinstance(entry, dict) else None
        row = _vector(entry.get("embedding")) if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < count or rows[index] is not None:
            return f"an answer with the index {shown(index)}; expected 0 to {count - 1}, each once"
        if row is None:
            return f"an answer whose vector {index} is no list of finite numbers"
        rows[index] = row
    vectors = [row for row in rows if row is not None]
    if len({len(row) for row in vectors}) != 1:
        return "an answer with vectors of several lengths"
    usage = value.get("usage")
    model = value.get("model")
    return Answer(
        content=base64.b64encode(np.stack(vectors).astype("<f4").tobytes()).decode(),
        finish_reason=None,
        refusal=None,
        usage=read_usage(usage | {"completion_tokens": 0} if isinstance(usage, dict) else None, has_text=False),
        model=model if isinstance(model, str) else None,
        fingerprint=None,
        tier=None,
        provider_id=None,
        raw=None,
    )


def stored_vectors(store: Store, endpoint: Endpoint, *, dimensions: int | None = None) -> dict[str, np.ndarray]:
    """Returns text → vector for all texts that a store has a vector of, from this model with these options.

    Raises:
        StoreError: vectors in the store are not those of their request.
    """
    query = (
        "SELECT r.key, r.body, a.content FROM answers a JOIN requests r USING (key) "
        "WHERE r.kind = ? AND r.endpoint = ? AND r.model = ? AND r.body IS NOT NULL ORDER BY a.attempt"
    )
    found: dict[str, np.ndarray] = {}
    for key, compressed, content in store.read(query, KIND, endpoint.normalized_url, endpoint.model):
        body = json.loads(zlib.decompress(compressed))
        texts = body.pop("input")
        if body != _options(endpoint, dimensions):
            continue
        row = np.frombuffer(base64.b64decode(content), "<f4")
        if not len(row) or len(row) % len(texts):
            raise StoreError(f"{store.database.path}: answer to {key} has {len(row)} numbers for {len(texts)} texts")
        found |= zip(texts, row.reshape(len(texts), -1), strict=True)
    return found


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What :func:`embed` returns.

    Attributes:
        vectors: ``[N, D]`` float32, one for each text in the given order; None where some are missing.
        missing: number of distinct texts without a vector.
        usage: what was asked for; its questions are requests.
    """

    vectors: Float[np.ndarray, "N D"] | None
    missing: int
    usage: UsageReport


async def embed(
    client: Client,
    texts: Sequence[str],
    *,
    dimensions: int | None = None,
    texts_per_request: int = 32,
    on_progress: Callable[[UsageReport, Ledger], None] | None = None,
) -> Embedded:
    """Asks for the vectors of texts that are not in the client's store, within its budget.

    Where the budget or the server ends the run, or Ctrl-C does, what was answered is in the store, and the same call
    goes on with the rest.

    Args:
        client: endpoint, store, price, budget and limits.
        texts: the texts, which may repeat; none of them empty.
        dimensions: D, of models that give vectors of several lengths; None for the model's own.
        texts_per_request: the largest number of texts in a request.
        on_progress: called with the usage and the store's ledger after each request.

    Raises:
        ValueError: a text is empty, a number is out of range, or the server gave vectors of several lengths.
        StoreError: the store cannot be read or written.
    """
    check_count(1, texts_per_request=texts_per_request)
    if dimensions is not None:
        check_count(1, dimensions=dimensions)
    if (empty := next((row for row, text in enumerate(texts) if not text.strip()), None)) is not None:
        raise ValueError(f"text {empty} is empty; expected texts with at least one character")
    found = stored_vectors(client.store, client.endpoint, dimensions=dimensions)
    requests = _requests_without(found, client.endpoint, texts, dimensions, texts_per_request)
    usage = await _send_all(client, requests, on_progress)
    if requests:
        found = stored_vectors(client.store, client.endpoint, dimensions=dimensions)
    missing = len(set(texts) - found.keys())
    usage.cached = len(set(texts)) - missing
    if missing or not texts:
        return Embedded(None, missing, usage)
    lengths = sorted({len(found[text]) for text in texts})
    if len(lengths) > 1:
        raise ValueError(
            f"{client.endpoint.model} gave vectors of {lengths} numbers; expected one length, as in a new store"
        )
    return Embedded(np.stack([found[text] for text in texts]).astype(np.float32), 0, usage)


def open_requests(
    client: Client, texts: Sequence[str], *, dimensions: int | None = None, texts_per_request: int = 32
) -> list[dict[str, Any]]:
    """Returns the requests for the distinct texts that the store has no vector of."""
    known = stored_vectors(client.store, client.endpoint, dimensions=dimensions)
    return _requests_without(known, client.endpoint, texts, dimensions, texts_per_request)


def _requests_without(
    known: Mapping[str, np.ndarray],
    endpoint: Endpoint,
    texts: Sequence[str],
    dimensions: int | None,
    texts_per_request: int,
) -> list[dict[str, Any]]:
    """Returns the requests for the distinct texts of which no vector is known."""
    new = [text for text in dict.fromkeys(texts) if text not in known]
    return [
        embedding_request(endpoint, new[start : start + texts_per_request], dimensions=dimensions)
        for start in range(0, len(new), texts_per_request)
    ]


async def _send_all(
    client: Client,
    requests: Sequence[Mapping[str, Any]],
    on_progress: Callable[[UsageReport, Ledger], None] | None,
) -> UsageReport:
    """Sends requests, the first one alone, so that what is wrong with all of them is met only once."""
    usage, started, before = (
        UsageReport(asked=len(requests)),
        time.monotonic(),
        dataclasses.replace(client.store.ledger),
    )
    if not requests:
        return usage
    attempts = Attempts(client, usage, bytes_of_answer=_BYTES_OF_ANSWER)
    remaining = iter(requests)
    try:
        await attempts.open()
        async with await asyncio.to_thread(EmbeddingConnection, client.endpoint, client.limits) as connection:

            async def worker(some: Iterable[Mapping[str, Any]]) -> None:
                for request in some:
                    if attempts.stopping.is_set() or not await _send(attempts, connection, request):
                        return
                    if on_progress is not None:
                        on_progress(usage, client.store.ledger)

            await worker(_first(remaining))
            async with asyncio.TaskGroup() as group:
                for _ in range(client.limits.in_flight[2]):
                    group.create_task(worker(remaining))
    finally:
        attempts.close()
        ledger = client.store.ledger
        usage.seconds, usage.refusals = time.monotonic() - started, attempts.pacer.refusals
        usage.cost = None if client.price is None else ledger.confirmed - before.confirmed
        usage.possible = None if client.price is None else ledger.possible - before.possible
    return usage


def _first(requests: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield next(requests)


async def _send(attempts: Attempts, connection: Connection, request: Mapping[str, Any]) -> bool:
    """Repeats a request until it is answered; returns False, and ends the run, where it will not be."""
    limits = attempts.client.limits
    unbilled = possibly_billed = 0
    while True:
        reply, _ = await attempts.send(connection, request)
        if reply is None:
            return False
        if reply.outcome == "answer":
            return True
        unbilled += reply.outcome == "unbilled"
        possibly_billed += reply.outcome == "possibly_billed"
        failed = unbilled >= limits.max_attempts or possibly_billed > limits.max_possibly_billed
        if reply.outcome in ("bad_request", "fatal", "refused_field") or failed:
            await attempts.stop(reply.error)
            return False
        if reply.outcome != "rate_limited":
            await attempts.sleep(attempts.pacer.backoff(unbilled + possibly_billed))


def _options(endpoint: Endpoint, dimensions: int | None) -> dict[str, Any]:
    """Returns the body of a request without its texts."""
    body: dict[str, Any] = {"model": endpoint.model, "encoding_format": "float"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return body | endpoint.extra_fields


def _vector(value: Any) -> np.ndarray | None:
    """Reads a vector from a list of numbers, or from the base64 code of float32; None where it is neither."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        row = np.frombuffer(raw, "<f4") if len(raw) % 4 == 0 else np.zeros(0, np.float32)
    elif isinstance(value, list) and all(type(number) in (int, float) for number in value):
        try:
            with np.errstate(over="ignore"):
                row = np.asarray(value, np.float64).astype(np.float32)
        except OverflowError:
            # JSON allows integers beyond float64, which are not finite here either.
            return None
    else:
        return None
    return row if len(row) and np.isfinite(row).all() else None
