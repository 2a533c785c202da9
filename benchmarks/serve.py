"""Serving: one session at a time by the shipped student in NumPy, by the compiled model in JAX, and over HTTP.

python -m benchmarks.serve --json FILE

A sample answers a hundred sessions one after the other. Beside the medians stand the quantiles of single answers in
milliseconds. `OMP_NUM_THREADS=1` holds NumPy to one core.
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
import tyro

import alkd_jax as alkd
from alkd_jax.models import Encoder, Params
from alkd_jax.serving import export
from alkd_jax.serving.recommender import Recommender
from benchmarks import worlds
from benchmarks.harness import Bench, compare

A_SAMPLE, QUANTILES, K = 100, (0.5, 0.9, 0.99), 10
ABSENT = None if importlib.util.find_spec("uvicorn") and importlib.util.find_spec("starlette") else "not installed"


def as_shipped(model: Encoder, params: Params, length: int) -> Recommender:
    """The student as it is read from a folder, without the folder."""
    backbone, options = export.described(model)
    arrays = {name: np.asarray(array) for name, array in params["params"].items()}
    names = ("", *(f"item-{item}" for item in range(1, model.num_items + 1)))
    return Recommender(backbone, options, arrays, names, names, length)


@contextlib.contextmanager
def served(recommender: Recommender) -> Iterator[Callable[[list[str]], bytes]]:
    """The student behind a socket of this machine; gives what asks it over one connection."""
    import uvicorn

    from experiments import serve

    config = uvicorn.Config(serve.application(recommender), port=0, access_log=False, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1], timeout=30)

    def ask(session: list[str]) -> bytes:
        connection.request("POST", "/recommend", json.dumps({"session": session, "k": K}))
        return connection.getresponse().read()

    try:
        yield ask
    finally:
        connection.close()
        server.should_exit = True
        thread.join()


def answer_all(answer: Callable[[Any], Any], sessions: list[Any]) -> None:
    """One sample."""
    for session in sessions:
        answer(session)


def quantiles(answer: Callable[[Any], Any], sessions: list[Any]) -> dict[str, float]:
    """Milliseconds of single answers."""
    answer(sessions[0])
    taken = []
    for session in sessions:
        began = time.perf_counter()
        answer(session)
        taken.append(1e3 * (time.perf_counter() - began))
    found = np.quantile(taken, QUANTILES)
    return {f"p{100 * q:g}": round(float(value), 4) for q, value in zip(QUANTILES, found, strict=True)}


def measure(backbone: str, num_items: int, bench: Bench) -> None:
    """One cell: a student of width 10."""
    model = alkd.models.create(backbone, num_items=num_items, dim=10)
    params = alkd.models.init_params(jax.random.key(0), model)
    test = worlds.random_sessions(200 if bench.smoke else 2_000, num_items)
    recommender = as_shipped(model, params, test.items.shape[1])
    asked = [[recommender.item_ids[item] for item in row if item] for row in np.asarray(test.items).tolist()]
    rows = list(np.asarray(test.items)[:, None])
    compiled = jax.jit(export.lists_program(model, K))

    def in_jax(row: np.ndarray) -> Any:
        return jax.block_until_ready(compiled(params["params"], row, row))

    with contextlib.ExitStack() as stack:
        ways: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {"numpy": (recommender.recommend, asked)}
        ways["jax"] = (in_jax, rows)
        if ABSENT is None:
            ways["http"] = (stack.enter_context(served(recommender)), asked)
        latency = {label: quantiles(answer, sessions) for label, (answer, sessions) in ways.items()}
        candidates = {
            label: functools.partial(answer_all, answer, sessions[:A_SAMPLE])
            for label, (answer, sessions) in ways.items()
        }
        about: dict[str, Any] = {"backbone": backbone, "items": num_items, "dim": 10, "k": K, "latency_ms": latency}
        compare("serve", candidates, bench, sessions_a_call=A_SAMPLE, peers={"uvicorn": ABSENT or "here"}, **about)


def main(bench: Bench) -> None:
    """Measures the released catalogue's size with every backbone, and a larger one."""
    sizes, backbones = ((300,), ("fpmc",)) if bench.smoke else ((8_475, 100_000), tuple(alkd.models.BACKBONES))
    for num_items in sizes:
        for backbone in backbones:
            measure(backbone, num_items, bench)


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
