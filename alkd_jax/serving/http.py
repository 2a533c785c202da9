"""The HTTP application of a shipped student: routes, limits and metrics. Loads without JAX.

POST /recommend answers {"items": [{"id", "title", "score"}, …], "unknown": number of ids not in the catalogue}.
GET /health returns the status and the version of the student. GET /metrics returns counts, and latency quantiles of the
last 10,000 answers in milliseconds: as JSON, or in Prometheus' text format if the Accept header asks for text. Every
error is {"error": one line}. On every route the body is read first, within the limits of size and time.
"""

import asyncio
import collections
import dataclasses
import json
import time
from typing import Any

import numpy as np

from alkd_jax.errors import requiring_extra
from alkd_jax.serving.recommender import Recommender

with requiring_extra("starlette"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES, MAX_SESSION_IDS, MAX_LIST_LENGTH = 2**16, 1000, 1000
"""Limits of a request: bytes of the body, ids of the session, items of the list."""

QUANTILES = (0.5, 0.9, 0.99)
_BODY_SECONDS, _MAX_DISCARDED_BYTES = 10.0, 2**20
_MAX_LATENCIES = 10_000


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Counts and latencies since the start.

    Attributes:
        start: when the application started, by the monotonic clock.
        statuses: number of answers to /recommend by HTTP status.
        counts: "items" and "unknown", numbers of ids in the sessions of answered requests.
        seconds: latencies of the most recent answers, from the end of the request's body to the answer.
    """

    start: float = dataclasses.field(default_factory=time.monotonic)
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: collections.deque[float] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_MAX_LATENCIES)
    )

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self.start, 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics as JSON values."""
        latency: dict[str, float | None] = {f"p{100 * q:g}": None for q in QUANTILES}
        if self.seconds:
            milliseconds = 1e3 * np.quantile(np.asarray(self.seconds), QUANTILES)
            latency = {name: round(float(value), 4) for name, value in zip(latency, milliseconds, strict=True)}
        return {
            "uptime_s": self.uptime,
            "requests": sum(self.statuses.values()),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "items": self.counts["items"],
            "unknown_items": self.counts["unknown"],
            "latency_ms": latency,
        }

    def to_prometheus(self) -> str:
        """Returns the metrics in Prometheus' text format."""
        values = self.to_json()
        lines = ["# TYPE alkd_requests_total counter"]
        lines += [f'alkd_requests_total{{status="{status}"}} {n}' for status, n in values["statuses"].items()]
        for name in ("items", "unknown_items"):
            lines += [f"# TYPE alkd_{name}_total counter", f"alkd_{name}_total {values[name]}"]
        lines.append("# TYPE alkd_latency_seconds summary")
        for quantile, value in zip(QUANTILES, values["latency_ms"].values(), strict=True):
            seconds = "NaN" if value is None else f"{value / 1e3:.7f}"
            lines.append(f'alkd_latency_seconds{{quantile="{quantile:g}"}} {seconds}')
        return "\n".join(lines) + "\n"


def application(recommender: Recommender) -> Starlette:
    """Returns the service as an ASGI application.

    Args:
        recommender: the student that answers.
    """
    metrics = Metrics()

    async def recommend(request: Request) -> Response:
        try:
            body = await request.body()
            start = time.perf_counter()
            answer, num_known, num_unknown = answer_request(recommender, body)
        except HTTPException as error:
            metrics.statuses[error.status_code] += 1
            raise
        except Exception:
            metrics.statuses[500] += 1
            raise
        metrics.seconds.append(time.perf_counter() - start)
        metrics.statuses[200] += 1
        metrics.counts.update(items=num_known + num_unknown, unknown=num_unknown)
        return answer

    async def health(request: Request) -> Response:
        student = {"status": "ok", "backbone": recommender.backbone, "items": recommender.num_items}
        return JSONResponse(student | {"version": recommender.version, "uptime_s": metrics.uptime})

    async def show_metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        return PlainTextResponse(metrics.to_prometheus()) if "text" in accept else JSONResponse(metrics.to_json())

    async def show_error(request: Request, error: Exception) -> Response:
        return error_response(error if isinstance(error, HTTPException) else HTTPException(500, "internal error"))

    routes = [
        Route("/recommend", recommend, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/metrics", show_metrics, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(WholeBodies, statuses=metrics.statuses)],
        exception_handlers={HTTPException: show_error, Exception: show_error},
    )


def error_response(error: HTTPException) -> Response:
    """Returns an error as JSON."""
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


class WholeBodies:
    """Middleware that reads the body of a request, up to the limits, before the application sees the request.

    Args:
        app: the application.
        statuses: counts answers to /recommend by HTTP status; those of this middleware are added.
    """

    def __init__(self, app: ASGIApp, statuses: collections.Counter[int]) -> None:
        self.app, self.statuses = app, statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            body = await read_body(receive)
        except ClientDisconnect:
            return
        except HTTPException as error:
            self.statuses[error.status_code] += scope["path"] == "/recommend"
            await error_response(error)(scope, receive, send)
            return

        async def receive_body() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_body, send)


async def read_body(receive: Receive) -> bytes:
    """Reads the body of a request, up to the limits of size and time.

    Raises:
        HTTPException: 413 for a body that is too large, 408 for one that takes too long.
        ClientDisconnect: the client has gone.
    """
    body, size = bytearray(), 0
    message: Message = {"more_body": True}
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while message.get("more_body", False) and size <= _MAX_DISCARDED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                size += len(message.get("body", b""))
                if size <= MAX_BODY_BYTES:
                    body += message.get("body", b"")
    except TimeoutError as error:
        raise HTTPException(408, f"the body took longer than {_BODY_SECONDS:g} s", {"Connection": "close"}) from error
    if size > MAX_BODY_BYTES:
        # Where a rest of the body is not read, the connection cannot be used again.
        headers = {"Connection": "close"} if message.get("more_body", False) else None
        raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes", headers)
    return bytes(body)


def answer_request(recommender: Recommender, body: bytes) -> tuple[Response, int, int]:
    """Answers the body of a request.

    Returns:
        The response, and the numbers of known and unknown ids in the session.

    Raises:
        HTTPException: 400 for a malformed request, 422 for a session without a known item.
    """
    session, k = parse_request(body)
    lookup = recommender.lookup(session)
    if not lookup.items:
        message = (
            f"number of known ids in the session is 0 of {len(session)}; expected at least 1 item of the catalogue"
        )
        raise HTTPException(422, message)
    recommendations = recommender.rank(lookup.items, k)
    items = [{"id": each.item_id, "title": each.title, "score": each.score} for each in recommendations]
    return JSONResponse({"items": items, "unknown": lookup.unknown}), len(lookup.items), lookup.unknown


def parse_request(body: bytes) -> tuple[list[str], int]:
    """Parses the session and the list length from the body of a request.

    Raises:
        HTTPException: 400 for a malformed request; the message names what is expected.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, 'the body is not JSON; expected {"session": ["raw id", …], "k": 10}') from error
    if not isinstance(request, dict) or not {"session"} <= request.keys() <= {"session", "k"}:
        raise HTTPException(400, 'the body has other keys; expected {"session": ["raw id", …], "k": 10}, k optional')
    session, k = request["session"], request.get("k", 10)
    if not isinstance(session, list) or not all(isinstance(each, str) for each in session):
        raise HTTPException(400, "session is of another type; expected a list of item ids as strings")
    if len(session) > MAX_SESSION_IDS:
        raise HTTPException(400, f"length of session is {len(session)}; expected at most {MAX_SESSION_IDS} ids")
    if type(k) is not int or not 1 <= k <= MAX_LIST_LENGTH:
        raise HTTPException(400, f"k is {str(k)[:20]}; expected an integer in 1..{MAX_LIST_LENGTH}")
    return session, k
