"""The service under load, beside a plain service of the same student and beside one that answers a constant.

    python -m benchmarks.serve_load --json FILE

Each service is a process of its own. In every round each of them answers the same number of requests, over the same
number of connections. The line also holds for each service: requests per second, CPU milliseconds a request, quantiles
of the latency in milliseconds, and resident memory in MiB; all are medians over rounds.
"""

import asyncio
import contextlib
import functools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd

from . import peers_service, synthetic_sessions
from .command_line import run_command
from .harness import Bench, compare

K, QUANTILES = 10, (0.5, 0.9, 0.99)


def write_student(folder: pathlib.Path, num_items: int) -> list[bytes]:
    """Ships a student of width 10; returns the requests for sessions of its dataset."""
    ds = alkd.data.synthetic(num_items=num_items, num_sessions=max(300, num_items // 10), seed=0)
    model = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
    alkd.export.save(folder, model, alkd.models.init_params(jax.random.key(0), model), ds)
    test = synthetic_sessions.random_sessions(1_000, ds.num_items)
    sessions = [[ds.item_ids[item] for item in row if item] for row in np.asarray(test.items).tolist()]
    bodies = [json.dumps({"session": session, "k": K}).encode() for session in sessions]
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % len(body) + body for body in bodies]


@contextlib.contextmanager
def service(*command: str) -> Iterator[tuple[int, int]]:
    """Runs a service; yields its process and its port."""
    process = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        found = (re.search(r"running on http://.*:(\d+)", line) for line in process.stderr)
        port = next(int(match[1]) for match in found if match)
        try:
            yield process.pid, port
        finally:
            process.terminate()
            process.stderr.read()


async def _ask(port: int, requests: list[bytes]) -> list[float]:
    """Sends requests over one connection, one after the other; returns their latencies in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies = []
    for request in requests:
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = re.search(rb"content-length: (\d+)", head)
        assert size is not None
        await reader.readexactly(int(size[1]))
        latencies.append(1e3 * (time.perf_counter() - start))
    writer.close()
    return latencies


async def _ask_all(port: int, requests: list[bytes], connections: int) -> list[float]:
    parts = [requests[first::connections] for first in range(connections)]
    answers = await asyncio.gather(*(_ask(port, part) for part in parts))
    return [latency for part in answers for latency in part]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def load(pid: int, port: int, requests: list[bytes], connections: int, rounds: list[dict[str, float]]) -> None:
    """Has a service answer all requests; appends what it cost to ``rounds``."""
    cpu, start = cpu_seconds(pid), time.perf_counter()
    latencies = asyncio.run(_ask_all(port, requests, connections))
    numbers = {"requests_per_s": len(requests) / (time.perf_counter() - start)}
    numbers |= {"cpu_ms": 1e3 * (cpu_seconds(pid) - cpu) / len(requests), "resident_mib": resident_mib(pid)}
    numbers |= {f"p{100 * q:g}_ms": float(np.quantile(latencies, q)) for q in QUANTILES}
    rounds.append(numbers)


def measure(connections: int, services: dict[str, tuple[int, int]], requests: list[bytes], bench: Bench) -> None:
    """Measures all services at one number of connections."""
    rounds: dict[str, list[dict[str, float]]] = {label: [] for label in services}
    medians: dict[str, dict[str, float]] = {}

    def sample(label: str) -> None:
        load(*services[label], requests, connections, rounds[label])
        medians[label] = {name: statistics.median(row[name] for row in rounds[label]) for name in rounds[label][0]}

    candidates = {label: functools.partial(sample, label) for label in services}
    about: dict[str, Any] = {"connections": connections, "requests": len(requests), "plain": peers_service.FRAMEWORK}
    compare("serve_load", candidates, bench, sessions_per_call=len(requests), services=medians, **about)


def main(bench: Bench) -> None:
    """Measures all services at several numbers of connections."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name) / "student"
        requests = write_student(folder, 200 if bench.smoke else 8_475)
        commands = {
            "plain": (f"{__package__}.peers_service", "onnx", str(folder)),
            "ours": ("experiments.serve", "--model", str(folder), "--port", "0"),
            "constant": (f"{__package__}.peers_service", "constant", str(folder)),
        }
        if peers_service.ABSENT:
            del commands["plain"]
        services = {label: stack.enter_context(service(*command)) for label, command in commands.items()}
        for connections in (2,) if bench.smoke else (1, 8, 64, 512):
            measure(connections, services, requests[:20] if bench.smoke else 4 * requests, bench)


if __name__ == "__main__":
    run_command(main, Bench, "serve_load", __doc__)
