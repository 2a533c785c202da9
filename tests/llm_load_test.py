"""Many questions: flat memory, an event loop that stays awake, a hundred thousand answers looked up quickly."""

import asyncio
import dataclasses
import os
import resource
import time

import pytest
from fault_server import FaultServer, faultless
from llm_world import client, question

from alkd_jax.llm.collection import collect
from alkd_jax.llm.store import Store


def memory():
    """Bytes this process has in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's account of memory")
def test_five_thousand_questions_in_one_run(tmp_path, capsys):
    lags, memories = [], []

    async def watched(asker):
        async def watch():
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.01)
                lags.append(time.perf_counter() - began - 0.01)
                memories.append(memory())

        watching = asyncio.create_task(watch())
        account = await collect(asker, (question(n, seed=n // 600) for n in range(5000)))
        watching.cancel()
        return account

    def behave(call):
        acts = [0.05, *faultless(call)]
        # The server is in this process, and what it remembers is not the client's memory.
        call.raw, call.body = b"", {}
        return acts

    with FaultServer(behave) as server, Store.open(tmp_path / "s") as store:
        descriptors = len(os.listdir("/proc/self/fd"))
        account = asyncio.run(watched(client(server, store)))
        assert account.statuses == {"ok": 5000}
        assert (len(server.calls), server.cost) == (5000, store.ledger.confirmed)
        store.verify()
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    lags.sort()
    third = len(memories) // 3
    growth = memories[-1] - memories[third]
    with capsys.disabled():
        print(  # noqa: T201
            f"\n5,000 questions in {account.seconds:.1f} s, {5000 / account.seconds:.0f} a second; event loop late by "
            f"{lags[len(lags) // 2] * 1e3:.1f} ms (median), {lags[int(len(lags) * 0.99)] * 1e3:.1f} ms (99 %), "
            f"{lags[-1] * 1e3:.1f} ms (most); memory {memories[third] / 2**20:.0f} to {memories[-1] / 2**20:.0f} MiB, "
            f"at most {server.most_at_once} at once"
        )
    assert growth < 30 * 2**20


@pytest.mark.slow
def test_a_hundred_thousand_stored_answers_are_looked_up_in_one_scan(tmp_path, capsys):
    first = question(0)
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        asyncio.run(collect(client(server, store), [first], pilot=0))
        with store.writing() as connection:
            for table in ("requests", "attempts", "answers"):
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                values = [
                    "n" if name in ("id", "attempt") else "printf('%064x', n)" if name == "key" else name
                    for name in names
                ]
                connection.execute(
                    f"WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) "
                    f"INSERT INTO {table} SELECT {', '.join(values)} FROM c, (SELECT * FROM {table} LIMIT 1)"
                )
    began = time.perf_counter()
    with Store.open(tmp_path / "s") as store:
        assert len(store.answered()) == 100_000
        scanned = time.perf_counter() - began
        # The same question under other session numbers: every row is worded, hashed and found.
        with FaultServer() as server:
            rows = (dataclasses.replace(first, session_id=n) for n in range(100_000))
            account = asyncio.run(collect(client(server, store), rows, pilot=0))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n100,000 stored answers: opened and scanned in {scanned:.2f} s, "
            f"gone through in {account.seconds:.1f} s more"
        )
    assert account.asked == 100_000
    assert scanned < 30
