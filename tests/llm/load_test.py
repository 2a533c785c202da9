"""Many questions: memory stays constant, the event loop is not blocked, and stored answers are found by prompt hash.

Speed and memory are printed and not checked, because they depend on the machine.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, faultless

CLIENT = """
import asyncio, json, os, resource, sys, time, weakref
sys.path.insert(0, sys.argv[1])
from tests.helpers.llm_questions import client, question
from alkd_jax.llm.collection import collect
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.store import Store

lags, busy, memory = [], [], []
held = most_held = sent = most_sent = 0

def released():
    global held
    held -= 1

def held_questions(number):
    global held, most_held
    for n in range(number):
        one = question(n)
        held += 1
        most_held = max(most_held, held)
        weakref.finalize(one, released)
        yield one

def next_round():
    global sent
    sent = 0

async def send(self, body, original=Connection.send):
    global sent, most_sent
    if not sent:
        asyncio.get_running_loop().call_soon(next_round)
    sent += 1
    most_sent = max(most_sent, sent)
    return await original(self, body)

Connection.send = send

async def main(llm_client, number):
    async def watch():
        while True:
            wall, work = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.01)
            lags.append(time.perf_counter() - wall - 0.01)
            busy.append(time.thread_time() - work)
            memory.append(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())

    watching = asyncio.create_task(watch())
    report = await collect(llm_client, held_questions(number))
    watching.cancel()
    return report

number = int(sys.argv[4])
with Store.open(sys.argv[3]) as store:
    before = len(os.listdir("/proc/self/fd"))
    work = time.process_time()
    report = asyncio.run(main(client(sys.argv[2], store), number))
    work = time.process_time() - work
    store.verify()
    stats = {"ok": report.statuses["ok"], "seconds": report.seconds, "cpu": work, "cost": store.ledger.confirmed}
    stats |= {"descriptors": len(os.listdir("/proc/self/fd")) - before}
    stats |= {"held": most_held, "at_once": most_sent}
    stats |= {"third": memory[len(memory) // 3] / 2**20, "end": memory[-1] / 2**20}
    for name, values in (("lag", sorted(lags)), ("busy", sorted(busy))):
        stats[name] = [round(1e3 * values[int(q * (len(values) - 1))], 1) for q in (0.5, 0.99, 1)]
    print(json.dumps(stats))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's proc file system")
def test_five_thousand_questions_in_one_run(tmp_path, capsys):
    with FaultServer(lambda call: [0.05, *faultless(call)]) as server:
        line = [sys.executable, "-c", CLIENT, str(paths.ROOT), server.url, str(tmp_path / "s"), "5000"]
        out = subprocess.run(line, capture_output=True, text=True)
        assert out.stderr == ""
        stats = json.loads(out.stdout)
        assert (stats["ok"], len(server.calls), stats["cost"]) == (5000, 5000, server.cost)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n5,000 questions in {stats['seconds']:.1f} s, {5000 / stats['seconds']:.0f} a second, "
            f"{stats['cpu'] / 5:.2f} ms of processor each; event loop late by {stats['lag']} ms, of which our own work "
            f"{stats['busy']} ms (median, 99 %, most); memory {stats['third']:.0f} to {stats['end']:.0f} MiB; "
            f"{server.most_at_once} at once at most"
        )
    # Each of at most 64 workers holds the question it asks, and a frame or two may hold the one before.
    assert stats["held"] <= 3 * 64
    # Were many begun in one round of the loop, everything else would wait for all of them.
    assert stats["at_once"] <= 2
    assert stats["descriptors"] <= 2


SCAN = """
import asyncio, json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from tests.helpers.llm_questions import TITLES, client, question
from alkd_jax.llm import prompts
from alkd_jax.llm.collection import collect
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import build_questions
from alkd_jax.types import Sessions

url, path, number = sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = np.random.default_rng(0)
items = rng.integers(1, 301, (number, 10))
candidates = np.argsort(rng.random((number, 300)), axis=1)[:, :50] + 1
sessions = Sessions(items, np.ones(items.shape, bool), items[:, 0], np.arange(number))
make_queries = lambda: build_questions(sessions, candidates, TITLES, prompts.MOVIES)
with Store.open(path) as store:
    llm_client = client(url, store)
    asyncio.run(collect(llm_client, [question(0)], pilot=0))
    with store.transaction() as connection:
        for table in ("requests", "attempts", "answers"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            other = {"id": "n", "attempt": "n", "key": "printf('%064x', n)"}
            values = [other.get(name, name) for name in names]
            connection.execute(
                f"WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < {number + 1}) "
                f"INSERT INTO {table} SELECT {', '.join(values)} FROM c, (SELECT * FROM {table} LIMIT 1)"
            )
    keys = {llm_client.endpoint.prompt_hash(one): f"{n:064x}" for n, one in enumerate(make_queries(), start=2)}
    store.save_request_keys(keys)
num_rendered = 0

def count_rendered(*values, original=prompts._render_ranking, **named):
    global num_rendered
    num_rendered += 1
    return original(*values, **named)

prompts._render_ranking = count_rendered
began, work = time.perf_counter(), time.process_time()
with Store.open(path) as store:
    report = asyncio.run(collect(client(url, store, usd="100000"), make_queries(), pilot=0))
seconds, work = time.perf_counter() - began, time.process_time() - work
stats = {"cached": report.cached, "ok": report.statuses["ok"], "seconds": seconds, "cpu": work}
print(json.dumps(stats | {"num_rendered": num_rendered}))
"""


@pytest.mark.slow
def test_a_hundred_thousand_stored_answers_are_found_without_rendering_their_questions(tmp_path, capsys):
    with FaultServer() as server:
        line = [sys.executable, "-c", SCAN, str(paths.ROOT), server.url, str(tmp_path / "s"), "100000"]
        out = subprocess.run(line, capture_output=True, text=True)
        assert out.stderr == ""
        stats = json.loads(out.stdout)
        assert len(server.calls) == 1
    with capsys.disabled():
        print(f"\n100,000 stored answers found in {stats['seconds']:.2f} s, {stats['cpu']:.2f} s of processor")  # noqa: T201
    assert (stats["cached"], stats["ok"], stats["num_rendered"]) == (100_000, 100_000, 0)
