"""Connections that fail, stall or break off: nothing waits forever, and whatever may have been billed is booked."""

import contextlib
import functools
import gzip
import socket

import pytest

from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import (
    completion,
    faultless,
)
from tests.helpers.llm_questions import client, questions, run
from tests.helpers.wire_faults import (
    assert_bills_agree,
    close,
    end_without_last_chunk,
    never_answer,
    reset,
    stall_in_head,
    trickle,
    truncate,
    worst_cost,
)


@pytest.mark.parametrize(
    ("behave", "limits", "message"),
    [
        (trickle, {"total_s": 0.5}, "no answer within 0.5 s"),
        (never_answer, {"total_s": 0.5}, "no answer within 0.5 s"),
        (stall_in_head, {"total_s": 0.5}, "no answer within 0.5 s"),
    ],
)
def test_no_request_outlives_its_deadline_and_the_reservation_stays(tmp_path, behave, limits, message):
    """None of these answers ever ends by itself."""
    report, ledger, server, _ = run(tmp_path, behave, 1, limits=limits)
    with Store.open(tmp_path / "store.sqlite") as store:
        assert [error for _, error, _ in store.failures()] == [message] * 3
    # A busy server may find a request only after its client has gone.
    assert len(server.calls) <= 3
    assert ledger.requests == 3
    assert ledger.possible == 3 * worst_cost(server)
    assert server.cost <= ledger.possible
    assert report.missing == [0]


def test_a_refused_port_reserves_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with Store.open(tmp_path / "s") as store:
            report = collect_sync(client(url, store), questions(2), pilot=0)
            assert "ConnectError" in report.failed[0]
            assert (store.ledger.requests, store.ledger.committed) == (0, 0)
            assert report.requests == 12


def test_a_name_that_does_not_resolve_reserves_nothing(tmp_path, monkeypatch):

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Store.open(tmp_path / "s") as store:
        report = collect_sync(client("http://localhost:9/v1", store, limits={"max_attempts": 2}), questions(1), pilot=0)
        assert "ConnectError" in report.failed[0]
        assert (store.ledger.requests, store.ledger.committed) == (0, 0)


def test_a_server_whose_queue_is_full_reserves_nothing(tmp_path):
    """Nobody accepts, and beyond its queue no connection comes about."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        limits = {"connect_s": 0.3, "max_attempts": 2}
        with Store.open(tmp_path / "s") as store:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
            report = collect_sync(client(url, store, limits=limits), questions(2), pilot=0)
            assert set(report.failed.values()) == {"connection: ConnectTimeout"}
            assert (store.ledger.requests, store.ledger.committed) == (0, 0)
            assert report.requests == 4


def test_waiting_for_a_connection_of_the_pool_is_no_failure(tmp_path, monkeypatch):
    """One connection for eight requests, and no bound on the time in its queue but the request's own."""
    import openai

    waits = []

    async def note(request):
        waits.append(request.extensions["timeout"])

    one = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=1, max_keepalive_connections=1)
    monkeypatch.setattr(openai, "DEFAULT_CONNECTION_LIMITS", one)
    noted = functools.partial(openai.DefaultAsyncHttpxClient, event_hooks={"request": [note]})
    monkeypatch.setattr(openai, "DefaultAsyncHttpxClient", noted)
    report, ledger, server, _ = run(tmp_path, lambda c: [0.05, *faultless(c)], 8, limits={"total_s": 100.0})
    assert [(wait["read"], wait["pool"]) for wait in waits] == [(None, None)] * 8
    assert server.most_at_once == 1
    assert report.statuses == {"ok": 8}
    assert len(server.calls) == report.requests == 8
    assert_bills_agree(ledger, server)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_fifty_megabytes_are_not_read_to_their_end(tmp_path, encoding):
    """The second are fifty kilobytes on the wire."""
    sent = []

    def flood(call):
        completion(call)
        whole = gzip.compress(b" " * 50_000_000) if encoding == "gzip" else b" " * 50_000_000
        head = f"HTTP/1.1 200 X\r\ncontent-length: {len(whole)}\r\ncontent-encoding: {encoding}\r\n\r\n"
        yield head.encode()
        for n in range(0, len(whole), 500_000):
            yield whole[n : n + 500_000]
            sent.append(n)

    report, ledger, server, _ = run(tmp_path, lambda c: flood(c) if c.number == 0 else faultless(c), 2)
    assert report.statuses == {"ok": 2}
    assert len(server.calls) == 3
    assert len(sent) < 40
    assert ledger.confirmed < server.cost <= ledger.confirmed + ledger.possible
    with Store.open(tmp_path / "store.sqlite") as store:
        assert [error for _, error, _ in store.failures()] == ["an answer of more than 2000000 bytes"]


@pytest.mark.parametrize("fault", [truncate, reset, close, end_without_last_chunk])
def test_an_answer_lost_on_the_wire_is_booked_as_possible(tmp_path, fault):
    """The server billed it, we cannot know, and the bill stays within what we booked."""
    seen = set()

    def behave(call):
        if call.digest in seen:
            return faultless(call)
        seen.add(call.digest)
        return fault(call)

    report, ledger, server, _ = run(tmp_path, behave, 10)
    assert report.statuses == {"ok": 10}
    assert len(server.calls) == 20
    assert ledger.confirmed < server.cost <= ledger.confirmed + ledger.possible
