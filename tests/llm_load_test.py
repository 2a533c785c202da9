"""Many questions: flat memory, an event loop that stays awake, a hundred thousand answers looked up quickly."""

import asyncio
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from fault_server import FaultServer, faultless
from llm_world import client, question

from alkd_jax.llm.collection import collect
from alkd_jax.llm.store import Store

HERE = pathlib.Path(__file__).resolve().parent
CLIENT = """
import asyncio, json, os, resource, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/.."]
from llm_world import client, question
from alkd_jax.llm.collection import collect
from alkd_jax.llm.store import Store

lags, busy, memory = [], [], []

async def main(asker, number):
    async def watch():
        while True:
            wall, work = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.01)
            lags.append(time.perf_counter() - wall - 0.01)
            busy.append(max(0.0, time.thread_time() - work - 0.01))
            memory.append(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())

    watching = asyncio.create_task(watch())
    account = await collect(asker, (question(n) for n in range(number)))
    watching.cancel()
    return account

number = int(sys.argv[4])
with Store.open(sys.argv[3]) as store:
    before = len(os.listdir("/proc/self/fd"))
    work = time.process_time()
    account = asyncio.run(main(client(sys.argv[2], store), number))
    work = time.process_time() - work
    store.verify()
    told = {"ok": account.statuses["ok"], "seconds": account.seconds, "cpu": work, "cost": store.ledger.confirmed}
    told |= {"descriptors": len(os.listdir("/proc/self/fd")) - before}
    told |= {"third": memory[len(memory) // 3] / 2**20, "end": memory[-1] / 2**20}
    for name, values in (("lag", sorted(lags)), ("busy", sorted(busy))):
        told[name] = [round(1e3 * values[int(q * (len(values) - 1))], 1) for q in (0.5, 0.99, 1)]
    print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's account of memory")
def test_five_thousand_questions_in_one_run(tmp_path, capsys):
    with FaultServer(lambda call: [0.05, *faultless(call)]) as server:
        line = [sys.executable, "-c", CLIENT, str(HERE), server.url, str(tmp_path / "s"), "5000"]
        out = subprocess.run(line, capture_output=True, text=True)
        assert out.stderr == ""
        told = json.loads(out.stdout)
        assert (told["ok"], len(server.calls), told["cost"]) == (5000, 5000, server.cost)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n5,000 questions in {told['seconds']:.1f} s, {5000 / told['seconds']:.0f} a second, "
            f"{told['cpu'] / 5:.2f} ms of processor each; event loop late by {told['lag']} ms, of which our own work "
            f"{told['busy']} ms (median, 99 %, most); memory {told['third']:.0f} to {told['end']:.0f} MiB; "
            f"{server.most_at_once} at once at most"
        )
    assert told["end"] - told["third"] < 30
    assert told["descriptors"] <= 2


@pytest.mark.slow
def test_a_hundred_thousand_stored_answers_are_looked_up_in_one_scan(tmp_path, capsys):
    first = question(0)
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        asyncio.run(collect(client(server, store), [first], pilot=0))
        with store.writing() as connection:
            for table in ("requests", "attempts", "answers"):
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                other = {"id": "n", "attempt": "n", "key": "printf('%064x', n)"}
                values = [other.get(name, name) for name in names]
                connection.execute(
                    f"WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) "
                    f"INSERT INTO {table} SELECT {', '.join(values)} FROM c, (SELECT * FROM {table} LIMIT 1)"
                )
    began, work = time.perf_counter(), time.process_time()
    with Store.open(tmp_path / "s") as store:
        assert len(store.answered()) == 100_000
        scanned, worked = time.perf_counter() - began, time.process_time() - work
        # The same question under other session numbers: every row is hashed and found, one is sent.
        with FaultServer() as server:
            rows = (dataclasses.replace(first, session_id=n) for n in range(100_000))
            account = asyncio.run(collect(client(server, store, usd="100000"), rows, pilot=0))
            assert len(server.calls) == 1
    with capsys.disabled():
        print(  # noqa: T201
            f"\n100,000 stored answers: opened and scanned in {scanned:.2f} s ({worked:.2f} s of processor), "
            f"100,000 rows gone through in {account.seconds:.1f} s more"
        )
    assert (account.asked, account.cached) == (100_000, 99_999)
    assert worked < 5
