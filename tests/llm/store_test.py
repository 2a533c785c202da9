"""The store: what is written stays, one owner at a time, foreign files untouched, exports proof against edits."""

import json
import multiprocessing
import os
import pathlib
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time

import pytest

from alkd_jax.llm import exchange
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.parsing import ParsedAnswer
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import ReplayTeacher
from alkd_jax.llm.teachers.replay import load_rankings
from alkd_jax.llm.token_usage import Usage
from tests.helpers.fault_server import FaultServer
from tests.helpers.llm_questions import client, question, questions, run

ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m")


def answer(content="x"):
    return Answer(content, "stop", None, Usage(10, 0, 5), "m", None, None, "id", b"{}")


def test_the_ledger_in_memory_is_the_ledger_on_disk(tmp_path):
    with Store.open(tmp_path / "s") as store:
        numbers = [store.begin_attempt(ENDPOINT.request(question(n)), cost=100 + n, tokens=50) for n in range(4)]
        assert store.ledger == Ledger(reserved=406, tokens=200, requests=4, open=4)
        store.record_answer(numbers[0], answer(), cost=7, tokens=15, basis="usage")
        store.mark_possibly_billed(numbers[1], error="e", http_status=500)
        store.mark_unbilled(numbers[2], error="e", http_status=429)
        assert store.ledger == Ledger(confirmed=7, possible=101, reserved=103, tokens=115, requests=3, open=1)
        store.verify()
        with pytest.raises(TypeError):
            store.mark_possibly_billed(numbers[1], error="twice", http_status=None)
    with Store.open(tmp_path / "s") as store:
        assert store.ledger == Ledger(confirmed=7, possible=204, tokens=115, requests=3)
        assert [error for _, error, _ in store.failures()] == ["e", "lost on the way"]


def test_only_its_owner_can_read_it(tmp_path):
    with Store.open(tmp_path / "s") as store:
        store.begin_attempt(ENDPOINT.request(question(0)), cost=1, tokens=1)
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_second_process_is_refused_and_may_look(tmp_path):
    code = "import sys; from alkd_jax.llm.store import Store; Store.open(sys.argv[1], readonly=len(sys.argv) > 2)"
    with Store.open(tmp_path / "s"):
        with pytest.raises(ValueError, match="in use by another process"):
            Store.open(tmp_path / "s")
        path = str(tmp_path / "s")
        refused = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert "in use by another process" in refused.stderr
        assert subprocess.run([sys.executable, "-c", code, path, "look"], capture_output=True).returncode == 0


def test_a_lock_file_left_behind_locks_nobody_out(tmp_path):
    (tmp_path / "s.lock").write_text("4711")
    Store.open(tmp_path / "s").close()
    assert (tmp_path / "s").exists()


def _open_and_hold(path, start, results):
    start.wait()
    try:
        with Store.open(path):
            results.put("open")
            time.sleep(0.5)
    except ValueError as error:
        results.put(str(error))


def test_cold_starts_in_the_same_instant_leave_one_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    others = [context.Process(target=_open_and_hold, args=(tmp_path / "s", start, results)) for _ in range(2)]
    for process in others:
        process.start()
    start.set()
    outcomes = [results.get(timeout=600) for _ in others]
    for process in others:
        process.join()
    assert outcomes.count("open") >= 1
    assert all(text == "open" or "in use" in text for text in outcomes)
    Store.open(tmp_path / "s").close()


def test_a_forked_child_does_not_write_into_its_parents_store(tmp_path):
    with Store.open(tmp_path / "s") as store:
        store.database._owner = os.getpid() + 1
        with pytest.raises(ValueError, match="fork"):
            store.begin_attempt(ENDPOINT.request(question(0)), cost=1, tokens=1)
        store.database._owner = os.getpid()


def _foreign(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()


def _newer(path):
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _cut(path):
    Store.open(path).close()
    path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize(
    "make", [lambda p: p.write_text("no database at all " * 100), _foreign, _newer, _cut, lambda p: p.write_bytes(b"x")]
)
def test_damaged_foreign_and_newer_files_are_refused_and_left_alone(tmp_path, make):
    path = tmp_path / "s"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=str(path)):
        Store.open(path)
    assert path.read_bytes() == before


def test_there_must_be_one_to_look_at(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such store"):
        Store.open(tmp_path / "s", readonly=True)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_before_the_next_request_and_keeps_what_is_there(tmp_path):
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        pages = store.read("PRAGMA page_count")[0][0]
        store.database._connection.execute(f"PRAGMA max_page_count = {pages + 30}")
        report = collect_sync(client(server, store, limits={"in_flight": (1, 2, 2)}), questions(60), pilot=0)
        assert "cannot be written" in report.stopped
        sent, kept = len(server.calls), report.statuses["ok"]
        assert 0 < kept <= sent <= kept + 2
        store.database._connection.execute("PRAGMA max_page_count = 1000000")
        store.verify()
        report = collect_sync(client(server, store), questions(60), pilot=0)
        assert report.statuses == {"ok": 60}
        assert report.cached >= kept
        assert server.cost <= store.ledger.confirmed + store.ledger.possible
        store.verify()


def test_a_store_that_cannot_be_written_asks_nothing(tmp_path):
    """Read-only from the first write on."""
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        collect_sync(client(server, store), questions(3), pilot=0)
        store.read("PRAGMA query_only = ON")
        report = collect_sync(client(server, store), questions(6), pilot=0)
        assert "cannot be written" in report.stopped
        assert (len(server.calls), report.cached, len(report.missing)) == (3, 3, 3)
        store.read("PRAGMA query_only = OFF")
        assert collect_sync(client(server, store), questions(6), pilot=0).statuses == {"ok": 6}
        store.verify()


READ_ONLY = """
import os, sys
from alkd_jax.llm.store import Store
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Store.open(sys.argv[1])
except ValueError as error:
    print(error)
print(len(Store.open(sys.argv[1], readonly=True).answer_records()))
"""


def test_a_read_only_file_is_refused_in_one_line_and_may_be_looked_at():
    """As another user where root, whom no mode stops, runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(folder, num=2)
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        path = folder / "store.sqlite"
        result = subprocess.run([sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True)
        folder.chmod(0o755)
    assert result.stderr == ""
    refused, number = result.stdout.splitlines()
    assert refused.startswith(f"{path}: ")
    assert "Permission denied" in refused
    assert number == "2"


QUOTA = """
import os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers.llm_questions import client, questions
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.store import Store
with Store.open(sys.argv[3]) as store:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))
    report = collect_sync(client(sys.argv[2], store, limits={"in_flight": (1, 2, 2)}), questions(60), pilot=0)
    print(report.statuses["ok"], report.stopped)
"""


def test_a_quota_stops_before_the_next_request_and_keeps_what_is_there(tmp_path):
    """No file of the process may grow beyond a bound."""
    here = str(pathlib.Path(__file__).resolve().parent)
    with FaultServer() as server:
        line = [sys.executable, "-c", QUOTA, here, server.url, str(tmp_path / "s")]
        result = subprocess.run(line, capture_output=True, text=True)
        assert result.stderr == ""
        kept, why = result.stdout.split(" ", 1)
        sent = len(server.calls)
        assert "cannot be written" in why
        assert 0 < int(kept) <= sent <= int(kept) + 2 < 60
        with Store.open(tmp_path / "s") as store:
            store.verify()
            # Of the last ones the answer may be there and its reading not.
            stored = len(store.answer_records())
            assert int(kept) <= stored <= sent
            assert collect_sync(client(server, store), questions(60), pilot=0).statuses == {"ok": 60}
            assert len(server.calls) == 60 + sent - stored
            assert server.cost <= store.ledger.confirmed + store.ledger.possible
            store.verify()


def test_exported_answers_replay_and_fill_another_store(tmp_path):
    _, _, server, parsed = run(tmp_path, num=6)
    with Store.open(tmp_path / "store.sqlite") as store:
        assert exchange.export_jsonl(store, tmp_path / "answers.jsonl", catalogue="abc") == 6
    first = (tmp_path / "answers.jsonl").read_bytes()
    lists = load_rankings(tmp_path / "answers.jsonl", num_items=300)
    assert {s: tuple(row[row > 0].tolist()) for s, row in zip(lists.session_id.tolist(), lists.items, strict=True)} == {
        session: reading.items for session, reading in parsed.items()
    }
    with Store.open(tmp_path / "other") as other, FaultServer() as idle:
        assert exchange.import_jsonl(other, tmp_path / "answers.jsonl") == 6
        assert exchange.import_jsonl(other, tmp_path / "answers.jsonl") == 0
        assert other.ledger == Ledger()
        llm_client = client(server.url, other)
        again = collect_sync(llm_client, questions(6), pilot=0)
        assert (again.cached, again.requests, idle.calls) == (6, 0, [])
        exchange.export_jsonl(other, tmp_path / "again.jsonl", catalogue="abc")
    assert len(first.splitlines()) == len((tmp_path / "again.jsonl").read_bytes().splitlines())
    ReplayTeacher.from_file(tmp_path / "answers.jsonl", num_items=300, catalogue="abc")


def _hand_edited(lines):
    record = json.loads(lines[2])
    record["items"][0], record["items"][1] = record["items"][1], record["items"][0]
    lines[2] = json.dumps(record)


def _cut_off(lines):
    lines[2] = lines[2][:-30]


def _twice(lines):
    lines[2] = lines[0]


def _of_another_catalogue(lines):
    record = json.loads(lines[2]) | {"catalogue": "xyz"}
    record.pop("check")
    lines[2] = json.dumps(record | {"check": exchange.checksum(record)})


@pytest.mark.parametrize("spoil", [_hand_edited, _cut_off, _twice, _of_another_catalogue])
def test_replay_names_the_line_that_is_wrong(tmp_path, spoil):
    run(tmp_path, num=4)
    path = tmp_path / "answers.jsonl"
    with Store.open(tmp_path / "store.sqlite") as store:
        exchange.export_jsonl(store, path, catalogue="abc")
    lines = path.read_text().splitlines()
    spoil(lines)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"{path}:3: "):
        ReplayTeacher.from_file(path, num_items=300, catalogue="abc")
    if spoil in (_hand_edited, _cut_off):
        with Store.open(tmp_path / "other") as other:
            with pytest.raises(ValueError, match=f"{path}:3: "):
                exchange.import_jsonl(other, path)
            assert other.answer_records() == {}


def test_windows_line_ends_replay_alike(tmp_path):
    run(tmp_path, num=3)
    path = tmp_path / "answers.jsonl"
    with Store.open(tmp_path / "store.sqlite") as store:
        exchange.export_jsonl(store, path)
    unix = ReplayTeacher.from_file(path, num_items=300)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert (ReplayTeacher.from_file(path, num_items=300).recorded.items == unix.recorded.items).all()


def test_a_better_parser_reads_old_answers_for_nothing(tmp_path, monkeypatch):
    from alkd_jax.llm import store as store_module

    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        collect_sync(client(server, store), questions(5), pilot=0)
        with store.transaction() as connection:
            connection.execute("UPDATE answers SET status = 'invalid', items = '[]', parser = 0")
        report = collect_sync(client(server, store), questions(5), pilot=0)
        assert report.statuses == {"ok": 5}
        assert (report.cached, len(server.calls)) == (5, 5)
    assert store_module.PARSER_VERSION > 0


def test_a_reading_comes_back_as_it_was_kept(tmp_path):
    with Store.open(tmp_path / "s") as store:
        attempt = store.begin_attempt(ENDPOINT.request(question(0)), cost=1, tokens=1)
        store.record_answer(attempt, answer(), cost=1, tokens=15, basis="usage")
        assert next(iter(store.answer_records().values())).status is None
        reading = ParsedAnswer("repaired", (3, 1), ("a",), {"duplicate": 2})
        store.record_parse(attempt, reading)
        assert store.parsed_answer(attempt) == reading
        assert next(iter(store.answer_records().values())).usable
