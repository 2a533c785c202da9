"""Serving one session at a time: the exported student in NumPy, the compiled model in JAX, and HTTP.

    python -m benchmarks.serve --json FILE

A sample answers a hundred sessions one after the other. The line also holds quantiles of the latency of single answers
in milliseconds. `OMP_NUM_THREADS=1` restricts NumPy to one core.
"""

import contextlib
import functools
import http.client
import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax.models import Encoder, Params
from alkd_jax.serving import export
from alkd_jax.serving.recommender import Recommender

from . import synthetic_sessions
from .command_line import run_command
from .harness import Bench, compare

SESSIONS_PER_SAMPLE, QUANTILES, K = 100, (0.5, 0.9, 0.99), 10
ABSENT = None if importlib.util.find_spec("uvicorn") and importlib.util.find_spec("starlette") else "not installed"


def exported(model: Encoder, params: Params, length: int) -> Recommender:
    """The student as `Recommender.load` would return it, without writing a folder."""
    backbone, options = export.backbone_options(model)
    arrays = {name: np.asarray(array) for name, array in params["params"].items()}
    names = ("", *(f"item-{item}" for item in range(1, model.num_items + 1)))
    return Recommender(backbone, options, arrays, names, names, length)


@contextlib.contextmanager
def served(recommender: Recommender) -> Iterator[Callable[[list[str]], bytes]]:
    """Serves the student on a local socket; yields a function that requests recommendations over one connection."""
    import uvicorn

    from alkd_jax.serving import http as serving_http

    config = uvicorn.Config(serving_http.application(recommender), port=0, access_log=False, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1], timeout=30)

    def request(session: list[str]) -> bytes:
        connection.request("POST", "/recommend", json.dumps({"session": session, "k": K}))
        return connection.getresponse().read()

    try:
        yield request
    finally:
        connection.close()
        server.should_exit = True
        thread.join()


def answer_all(answer: Callable[[Any], Any], sessions: list[Any]) -> None:
    """Answers all sessions: one sample."""
    for session in sessions:
        answer(session)


def quantiles(answer: Callable[[Any], Any], sessions: list[Any]) -> dict[str, float]:
    """Quantiles of the latency of single answers, in milliseconds."""
    answer(sessions[0])
    latencies = []
    for session in sessions:
        start = time.perf_counter()
        answer(session)
        latencies.append(1e3 * (time.perf_counter() - start))
    values = np.quantile(latencies, QUANTILES)
    return {f"p{100 * q:g}": round(float(value), 4) for q, value in zip(QUANTILES, values, strict=True)}


def measure(backbone: str, num_items: int, bench: Bench) -> None:
    """Measures one cell: a student of width 10."""
    model = alkd.models.create(backbone, num_items=num_items, dim=10)
    params = alkd.models.init_params(jax.random.key(0), model)
    test = synthetic_sessions.random_sessions(200 if bench.smoke else 2_000, num_items)
    recommender = exported(model, params, test.items.shape[1])
    sessions = [[recommender.item_ids[item] for item in row if item] for row in np.asarray(test.items).tolist()]
    rows = list(np.asarray(test.items)[:, None])
    compiled = jax.jit(export.student_program(model, K))

    def in_jax(row: np.ndarray) -> Any:
        return jax.block_until_ready(compiled(params["params"], row, row))

    with contextlib.ExitStack() as stack:
        ways: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {"numpy": (recommender.recommend, sessions)}
        ways["jax"] = (in_jax, rows)
        if ABSENT is None:
            ways["http"] = (stack.enter_context(served(recommender)), sessions)
        latency = {label: quantiles(answer, inputs) for label, (answer, inputs) in ways.items()}
        candidates = {
            label: functools.partial(answer_all, answer, inputs[:SESSIONS_PER_SAMPLE])
            for label, (answer, inputs) in ways.items()
        }
        about: dict[str, Any] = {"backbone": backbone, "items": num_items, "dim": 10, "k": K, "latency_ms": latency}
        compare(
            "serve",
            candidates,
            bench,
            sessions_per_call=SESSIONS_PER_SAMPLE,
            peers={"uvicorn": ABSENT or "here"},
            **about,
        )


def main(bench: Bench) -> None:
    """Measures every backbone with the size of the released catalogue and with a larger one."""
    sizes, backbones = ((300,), ("fpmc",)) if bench.smoke else ((8_475, 100_000), tuple(alkd.models.BACKBONES))
    for num_items in sizes:
        for backbone in backbones:
            measure(backbone, num_items, bench)


if __name__ == "__main__":
    run_command(main, Bench, "serve", __doc__)
