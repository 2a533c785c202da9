"""A shipped student behind HTTP: a small service that loads neither JAX nor a compiler.

    python -m experiments.serve --model DIR --port 8000
    curl localhost:8000/recommend -d '{"session": ["2571", "1196"], "k": 10}'

POST /recommend answers {"items": [{"id", "title", "score"}, …], "unknown": how many ids the catalogue does not have}.
GET /health says which student this is. GET /metrics gives counts, and latency quantiles of the last 10,000 answers in
milliseconds: JSON, or Prometheus' text where the Accept header asks for text. Every error is {"error": one line}.

One process answers one request at a time, which takes a fraction of a millisecond; run one a core behind a balancer.
"""

import asyncio
import collections
import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
import tyro
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from alkd_jax.serving.recommender import Recommender

MOST_BYTES, MOST_ITEMS, MOST_RECOMMENDED = 2**16, 1000, 1000
"""Largest body, longest session and longest list."""

QUANTILES = (0.5, 0.9, 0.99)
_BODY_SECONDS = 10.0
_REMEMBERED = 10_000


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served, and where.

    Attributes:
        model: folder of a shipped student.
        port: to listen on; 0 for any free one.
        host: address to listen on; 0.0.0.0 for all of this machine's.
    """

    model: pathlib.Path
    port: int = 8000
    host: str = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What has happened since the start.

    Attributes:
        started: by the monotonic clock.
        statuses: answers to /recommend by HTTP status.
        counts: "items" and "unknown" ids received in answered sessions.
        seconds: of the latest answers, body read to answer ready.
    """

    started: float = dataclasses.field(default_factory=time.monotonic)
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=_REMEMBERED))

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        latency: dict[str, float | None] = {f"p{100 * q:g}": None for q in QUANTILES}
        if self.seconds:
            found = 1e3 * np.quantile(np.asarray(self.seconds), QUANTILES)
            latency = {name: round(float(value), 4) for name, value in zip(latency, found, strict=True)}
        return {
            "uptime_s": round(time.monotonic() - self.started, 1),
            "requests": sum(self.statuses.values()),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "items": self.counts["items"],
            "unknown_items": self.counts["unknown"],
            "latency_ms": latency,
        }

    def exposed(self) -> str:
        """As Prometheus' text."""
        told = self.told()
        lines = ["# TYPE alkd_requests_total counter"]
        lines += [f'alkd_requests_total{{status="{status}"}} {n}' for status, n in told["statuses"].items()]
        for name in ("items", "unknown_items"):
            lines += [f"# TYPE alkd_{name}_total counter", f"alkd_{name}_total {told[name]}"]
        lines.append("# TYPE alkd_latency_seconds summary")
        for quantile, value in zip(QUANTILES, told["latency_ms"].values(), strict=True):
            shown = "NaN" if value is None else f"{value / 1e3:.7f}"
            lines.append(f'alkd_latency_seconds{{quantile="{quantile:g}"}} {shown}')
        return "\n".join(lines) + "\n"


def application(recommender: Recommender) -> Starlette:
    """The service as an ASGI application."""
    metrics = Metrics()

    async def recommend(request: Request) -> Response:
        try:
            body = await read_body(request)
            began = time.perf_counter()
            answer, known, unknown = answered(recommender, body)
        except HTTPException as error:
            metrics.statuses[error.status_code] += 1
            raise
        except ClientDisconnect:
            return Response()
        except Exception:
            metrics.statuses[500] += 1
            raise
        metrics.seconds.append(time.perf_counter() - began)
        metrics.statuses[200] += 1
        metrics.counts.update(items=known + unknown, unknown=unknown)
        return answer

    async def health(request: Request) -> Response:
        told = {"status": "ok", "backbone": recommender.backbone, "items": recommender.num_items}
        return JSONResponse(told | {"version": recommender.version, "uptime_s": metrics.told()["uptime_s"]})

    async def show_metrics(request: Request) -> Response:
        wanted = request.headers.get("accept", "")
        return PlainTextResponse(metrics.exposed()) if "text" in wanted else JSONResponse(metrics.told())

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        told = error.detail if isinstance(error, HTTPException) else "internal error"
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return JSONResponse({"error": told}, status, headers)

    routes = [
        Route("/recommend", recommend, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/metrics", show_metrics, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: refused, Exception: refused})


async def read_body(request: Request) -> bytes:
    """The body of a request, up to the limit in size and time.

    Raises:
        HTTPException: it is larger, or slower.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    # What is still under way is not read: the connection ends here.
                    closing = {"Connection": "close"}
                    raise HTTPException(413, f"the body is larger than {MOST_BYTES} bytes", closing)
    except TimeoutError as error:
        raise HTTPException(408, f"the body took longer than {_BODY_SECONDS:g} s", {"Connection": "close"}) from error
    return bytes(body)


def answered(recommender: Recommender, body: bytes) -> tuple[Response, int, int]:
    """The answer to a request's body, and how many of the session's ids are known and unknown.

    Raises:
        HTTPException: 400 for what is not a request, 422 for one without a known item.
    """
    session, k = parsed(body)
    found = recommender.lookup(session)
    if not found.items:
        told = f"none of the {len(session)} ids in the session is known; expected at least one item of the catalogue"
        raise HTTPException(422, told)
    best = recommender.rank(found.items, k)
    items = [{"id": each.item_id, "title": each.title, "score": each.score} for each in best]
    return JSONResponse({"items": items, "unknown": found.unknown}), len(found.items), found.unknown


def parsed(body: bytes) -> tuple[list[str], int]:
    """Session and list length out of a request's body.

    Raises:
        HTTPException: 400, and what was expected.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, 'the body is not JSON; expected {"session": ["raw id", …], "k": 10}') from error
    if not isinstance(asked, dict) or not {"session"} <= asked.keys() <= {"session", "k"}:
        raise HTTPException(400, 'expected {"session": ["raw id", …], "k": 10}, where k may be left out')
    session, k = asked["session"], asked.get("k", 10)
    if not isinstance(session, list) or not all(isinstance(each, str) for each in session):
        raise HTTPException(400, "session: expected a list of item ids as strings")
    if len(session) > MOST_ITEMS:
        raise HTTPException(400, f"session has {len(session)} ids; expected at most {MOST_ITEMS}")
    if type(k) is not int or not 1 <= k <= MOST_RECOMMENDED:
        raise HTTPException(400, f"k: expected a whole number in 1..{MOST_RECOMMENDED}")
    return session, k


def main() -> None:
    """Entry point."""
    asked = tyro.cli(Serving, description=__doc__)
    try:
        if not 0 <= asked.port <= 65535:
            raise ValueError(f"--port is {asked.port}; expected 0..65535")
        recommender = Recommender.load(asked.model)
        # The first answer lays out tables that all later ones use.
        recommender.rank([1], 1)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{recommender.backbone} with {recommender.num_items} items, {recommender.version[:12]}", flush=True)
    uvicorn.run(application(recommender), host=asked.host, port=asked.port, access_log=False, timeout_keep_alive=30)


if __name__ == "__main__":
    main()
