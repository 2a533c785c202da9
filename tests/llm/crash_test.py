"""Killed at random moments: no settled request is sent twice, the table is that of a run in peace, the cap is kept."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from decimal import Decimal

import pytest

from alkd_jax.llm.collection import collect
from alkd_jax.llm.endpoint import canonical_json
from alkd_jax.llm.store import Store
from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, faultless
from tests.helpers.llm_questions import client, questions, run

ASKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers.llm_questions import client, questions
from alkd_jax.llm.collection import collect
from alkd_jax.llm.store import Store
url, path, usd, number, in_flight = sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
with Store.open(path) as store:
    llm_client = client(url, store, usd=usd, limits={"in_flight": (1, in_flight, in_flight)})
    report = asyncio.run(collect(llm_client, questions(number), pilot=0))
    print(report.stopped, sorted(report.statuses.items()), len(report.missing))
"""


HOOKS = """
import contextlib, os
from alkd_jax.llm import database, store
# The first question is asked alone, so that the seventh is one of several that are on their way.
point, left, recording = sys.argv[7], 7, []

def die_at(name):
    global left
    left -= point == name
    if point == name and left == 0:
        os.kill(os.getpid(), 9)

def around(before, work, after):
    def hooked(self, *values, **named):
        die_at(before)
        recording.append(before == "before record")
        made = work(self, *values, **named)
        recording.pop()
        die_at(after)
        return made
    return hooked

@contextlib.contextmanager
def writing(self, work=database.Database.transaction):
    with work(self) as connection:
        yield connection
        if recording and recording[-1]:
            die_at("before commit")

database.Database.transaction = writing
store.Store.begin_attempt = around("before reserve", store.Store.begin_attempt, "after reserve")
store.Store.record_answer = around("before record", store.Store.record_answer, "after commit")
"""


def start(server, path, *, usd="10", number=40, in_flight=8, point="", hooks=""):
    arguments = [str(paths.ROOT), server.url, str(path), usd, str(number), str(in_flight), point]
    code = ASKER.replace("with Store.open", (HOOKS if point else hooks) + "with Store.open")
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_and_resume(tmp_path, *, kills, number, in_flight, seed, usd="10"):
    draw = random.Random(seed)
    delayed = lambda call: [0.01 + 0.03 * ((call.number * 37) % 10) / 10, *faultless(call)]  # noqa: E731
    path = tmp_path / "s"
    with FaultServer(delayed) as server:
        done = 0
        for _ in range(kills):
            process = start(server, path, number=number, in_flight=in_flight, usd=usd)
            calls = len(server.calls)
            limit = time.monotonic() + 600
            while len(server.calls) <= calls and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            with Store.open(path) as store:
                stored = store.answer_records()
                store.verify()
                assert len(stored) >= done
                done = len(stored)
                assert server.cost <= store.ledger.confirmed + store.ledger.possible <= Decimal(usd) * 10**12
        with Store.open(path) as store:
            llm_client = client(server, store, usd=usd, limits={"in_flight": (1, in_flight, in_flight)})
            stored = set(store.answer_records())
            calls = len(server.calls)
            report = asyncio.run(collect(llm_client, questions(number), pilot=0))
            assert len(server.calls) - calls == number - len(stored)
            parsed = {q.session_id: reading for q, _, reading in llm_client.parsed_answers(questions(number))}
            ledger, lost = store.ledger, store.failures()
            store.verify()
        assert server.cost <= ledger.confirmed + ledger.possible <= Decimal(usd) * 10**12
        repeated = sum(times - 1 for times in Counter(call.digest for call in server.calls).values())
        assert repeated <= len(lost) <= in_flight * kills
    assert report.statuses == {"ok": number}
    return parsed


def test_killed_at_random_moments_the_table_is_that_of_a_run_in_peace(tmp_path):
    parsed = kill_and_resume(tmp_path, kills=2, number=80, in_flight=8, seed=1)
    (tmp_path / "peace").mkdir()
    _, _, _, peaceful = run(tmp_path / "peace", num=80)
    assert {session: reading.items for session, reading in parsed.items()} == {
        session: reading.items for session, reading in peaceful.items()
    }


@pytest.mark.parametrize(
    "point",
    ["before reserve", "after reserve", "after send", "after bill", "before record", "before commit", "after commit"],
)
def test_killed_at_a_named_point_only_what_was_on_its_way_is_sent_again(tmp_path, point):
    """Killed while exporting: below."""
    process = None

    def behave(call):
        if call.number == 5 and point == "after send":
            process.kill()
            return [3600]
        answer = faultless(call)
        if call.number == 5 and point == "after bill":
            process.kill()
            return [3600]
        return [0.01, *answer]

    path = tmp_path / "s"
    with FaultServer(behave) as server:
        process = start(server, path, number=20, in_flight=4, point=point)
        _, err = process.communicate(timeout=600)
        assert (process.returncode, err) == (-signal.SIGKILL, "")
        with Store.open(path) as store:
            stored, lost = set(store.answer_records()), {key for key, error, _ in store.failures()}
            assert len(stored) >= (5 if point == "after commit" else 1)
            assert lost or point == "before reserve"
            assert server.cost <= store.ledger.confirmed + store.ledger.possible
            llm_client = client(server, store)
            keys = [llm_client.endpoint.request(question)["key"] for question in questions(20)]
            report = asyncio.run(collect(llm_client, questions(20), pilot=0))
            times = Counter(call.digest for call in server.calls)
            assert report.statuses == {"ok": 20}
            assert report.requests == 20 - len(stored)
            # All that was sent twice had been marked as sent, and had no answer.
            key_of = {call.digest: _key(llm_client, call, keys) for call in server.calls}
            assert {key_of[digest] for digest, number in times.items() if number > 1} <= lost - stored
            assert server.cost <= store.ledger.confirmed + store.ledger.possible
            store.verify()
            parsed = {q.session_id: reading.items for q, _, reading in llm_client.parsed_answers(questions(20))}
    (tmp_path / "peace").mkdir()
    peaceful = run(tmp_path / "peace", num=20)[3]
    assert parsed == {session: reading.items for session, reading in peaceful.items()}


def _key(llm_client, call, keys):
    """Key of a request as it arrived."""
    text = f"1\n{llm_client.endpoint.normalized_url}\n{canonical_json(call.body)}"
    key = hashlib.sha256(text.encode()).hexdigest()
    assert key in keys
    return key


@pytest.mark.slow
def test_thirty_kills_over_two_thousand_questions(tmp_path):
    parsed = kill_and_resume(tmp_path, kills=30, number=2000, in_flight=16, seed=2)
    assert len(parsed) == 2000


REPORT_STOP = """
from alkd_jax.llm.attempts import Attempts

async def stop(self, why, original=Attempts.stop):
    is_first = not self.stopping.is_set()
    await original(self, why)
    if is_first:
        print("stopping", flush=True)

Attempts.stop = stop
"""


def test_one_signal_drains_and_a_second_gives_up(tmp_path):
    """The answers but the first, which is asked for alone, come after the first signal has taken effect, or never."""
    for signals, number in ((1, signal.SIGTERM), (2, signal.SIGINT)):
        path, released = tmp_path / f"s{signals}", threading.Event()

        def behave(call, released=released):
            while call.number and not released.is_set():
                yield 0.01
            yield from faultless(call)

        with FaultServer(behave) as server:
            process = start(server, path, number=60, in_flight=8, hooks=REPORT_STOP)
            while len(server.calls) < 9:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            assert process.stdout.readline() == "stopping\n"
            if signals == 1:
                released.set()
            else:
                process.send_signal(number)
            out, err = process.communicate(timeout=600)
            assert err == ""
            assert out.startswith("interrupted")
            assert len(server.calls) == 9
            with Store.open(path) as store:
                assert len(store.answer_records()) == (9 if signals == 1 else 1)
                assert store.ledger.requests == 9
                assert server.cost <= store.ledger.confirmed + store.ledger.possible
                store.verify()


def test_killed_while_exporting_the_file_is_whole_or_not_there(tmp_path):
    run(tmp_path, num=30)
    code = (
        "import os, sys; from alkd_jax.llm import exchange; from alkd_jax.llm.store import Store\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "exchange.export_jsonl(Store.open(sys.argv[1]), sys.argv[2])"
    )
    target = tmp_path / "answers.jsonl"
    target.write_text("what was there\n")
    path = str(tmp_path / "store.sqlite")
    killed = subprocess.run([sys.executable, "-c", code, path, str(target)], cwd=paths.ROOT, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert target.read_text() == "what was there\n"
