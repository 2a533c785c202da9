"""A disk that is full at any moment: what was paid is kept, nothing more is sent, and the same call continues later."""

import contextlib
import os
import sqlite3

import pytest

from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.database import Database, StoreError
from alkd_jax.llm.reserve import Reserve
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import FaultServer
from tests.helpers.llm_questions import client, questions


def failing(first, is_lasting, original=Database.transaction):
    """Transactions of which one fails before its commit, once, or with all after it."""
    left = [first]

    @contextlib.contextmanager
    def transaction(self):
        with original(self) as connection:
            yield connection
            left[0] -= 1
            if left[0] == 0 or (left[0] < 0 and is_lasting):
                raise sqlite3.OperationalError("database or disk is full")

    return transaction


@pytest.mark.parametrize("is_lasting", [True, False])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_wherever_a_write_fails_no_answer_is_paid_twice(tmp_path, monkeypatch, step, is_lasting):
    """Eight questions take 25 transactions."""
    with FaultServer() as server:
        for first in range(1, 26, step):
            server.calls.clear(), server.bill.clear()
            path = tmp_path / f"s{first}"
            with Store.open(path) as store, monkeypatch.context() as patched:
                patched.setattr(Database, "transaction", failing(first, is_lasting))
                report = collect_sync(client(server, store, limits={"in_flight": (1, 4, 4)}), questions(8), pilot=0)
            if report.store_failed:
                assert "cannot be written (database or disk is full" in report.stopped
            with Store.open(path) as store:
                assert len(store.answer_records()) == len(server.calls)
                report = collect_sync(client(server, store), questions(8), pilot=0)
                assert (report.statuses, len(server.calls)) == ({"ok": 8}, 8)
                assert (store.ledger.confirmed, store.ledger.possible) == (server.cost, 0)
                store.verify()
            assert not (tmp_path / f"s{first}-reserve").exists()


def test_without_space_for_the_answers_nothing_is_sent(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        with pytest.raises(OSError, match=r"No space left on device: .*s-reserve"):
            collect_sync(client(server, store), questions(3), pilot=0)
        assert (server.calls, sorted(file.name for file in tmp_path.glob("s*"))) == ([], ["s", "s-shm", "s-wal"])


def test_a_line_of_the_reserve_that_was_cut_off_is_no_answer(tmp_path):
    reserve = Reserve(tmp_path / "r")
    reserve.allocate(1000)
    assert list(reserve.read()) == []
    reserve.write({"n": 1, "text": "é\n"})
    reserve.write({"n": 2})
    assert list(reserve.read()) == [{"n": 1, "text": "é\n"}, {"n": 2}]
    (tmp_path / "r").write_bytes((tmp_path / "r").read_bytes().replace(b'"n": 2', b'"n": 3'))
    assert list(reserve.read()) == [{"n": 1, "text": "é\n"}]
    reserve.clear()
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("spoil", ["remove", "replace"])
def test_a_store_that_was_removed_or_replaced_is_not_written_any_more(tmp_path, spoil):
    path = tmp_path / "s"
    with FaultServer() as server, Store.open(path) as store:
        collect_sync(client(server, store), questions(2), pilot=0)
        os.rename(path, tmp_path / "away")
        if spoil == "replace":
            path.write_bytes((tmp_path / "away").read_bytes())
        with pytest.raises(StoreError, match="it was removed or replaced"):
            store.begin_attempt(client(server, store).endpoint.request(questions(3)[2]), cost=1, tokens=1)
        report = collect_sync(client(server, store), questions(2), pilot=0)
        assert (report.cached, len(server.calls)) == (2, 2)
