"""Faults on the wire, through the real SDK on a real socket: the server's bill is the client's."""

import asyncio
import contextlib
import dataclasses
import email.utils
import functools
import gzip
import hashlib
import json
import logging
import pickle
import socket
import time
import zlib
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alkd_jax.llm import exchange, prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect, collect_sync
from alkd_jax.llm.endpoint import Connection, Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.rate_limits import Limits, Pacer
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import (
    COMPLETION,
    PROMPT,
    Close,
    FaultServer,
    Reset,
    completion,
    error,
    faultless,
    http,
    ranked,
)
from tests.helpers.llm_questions import PRICE, QUICK, client, question, questions, run


def once(*acts):
    """Behaves so at every question's first arrival, and faultlessly afterwards."""
    seen = Counter()

    def behave(call):
        seen[call.digest] += 1
        if seen[call.digest] > 1:
            return faultless(call)
        return [act(call) if callable(act) and not isinstance(act, type) else act for act in acts]

    return behave


def assert_accounts_agree(ledger, server):
    assert ledger.confirmed == server.cost
    assert (ledger.open, ledger.reserved, ledger.possible) == (0, 0, 0)


def test_every_question_is_answered_once_and_both_ledgers_agree(tmp_path):
    account, ledger, server, readings = run(tmp_path, num=40, pilot=16)
    assert account.statuses == {"ok": 40}
    assert len(server.calls) == account.requests == ledger.requests == 40
    assert_accounts_agree(ledger, server)
    for number, reading in readings.items():
        asked = question(number)
        labels = ranked({"messages": asked.messages})["ranking"]
        assert reading.items == tuple(asked.candidates[int(name[1:])] for name in labels)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1"}, 1.0),
        ({"retry-after-ms": "700"}, 0.7),
        ({"x-ratelimit-reset-tokens": "0m0.6s", "x-ratelimit-remaining-tokens": "0"}, 0.6),
    ],
)
def test_no_worker_sends_before_the_pause_ends(tmp_path, monkeypatch, headers, seconds):
    """Fault 1: on the client's own clock, by which the pause is counted."""
    sent, refused = [], []

    async def send(self, body, original=Connection.send):
        sent.append(time.monotonic())
        return await original(self, body)

    def book(self, sent_at, wait, original=Pacer.refused):
        refused.append((time.monotonic(), self.in_flight))
        return original(self, sent_at, wait)

    monkeypatch.setattr(Connection, "send", send)
    monkeypatch.setattr(Pacer, "refused", book)
    account, ledger, server, _ = run(
        tmp_path,
        lambda c: [error(429, "rate_limit_exceeded", headers)] if c.number == 5 else [0.02, *faultless(c)],
        40,
        limits={"in_flight": (1, 4, 4)},
    )
    (refused_at, in_flight), *_ = refused
    # Who had passed the pause when the refusal came may still send; everybody else keeps it.
    assert sum(refused_at < at < refused_at + seconds for at in sent) < in_flight <= 4
    assert sum(at >= refused_at + seconds for at in sent) > 40 - 5 - 2 * 4
    assert account.statuses == {"ok": 40}
    assert account.refusals == 1
    assert_accounts_agree(ledger, server)


def test_a_date_to_wait_for_is_kept(tmp_path):
    moments, arrived = [], []

    def behave(call):
        arrived.append(time.time())
        if call.number > 0:
            return faultless(call)
        moments.append(int(time.time()) + 2)
        return [error(429, "rate_limit_exceeded", {"retry-after": email.utils.formatdate(moments[0], usegmt=True)})]

    run(tmp_path, behave, 1)
    assert arrived[1] >= moments[0]


def test_half_of_all_requests_refused_without_a_word(tmp_path):
    """Fault 2."""
    account, ledger, server, _ = run(
        tmp_path, lambda c: [error(429, "rate_limit_exceeded")] if c.number % 2 else faultless(c), 60
    )
    assert account.statuses == {"ok": 60}
    assert account.refusals == len(server.calls) - 60
    assert_accounts_agree(ledger, server)


def test_a_long_wait_ends_the_run_and_says_until_when(tmp_path):
    """Fault 3."""
    refuse = error(429, "rate_limit_exceeded", {"retry-after": "3600"})
    limits = {"in_flight": (1, 20, 20)}
    account, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number >= 3 else faultless(c), 50, limits=limits)
    assert "wait until" in account.stopped
    assert len(server.calls) <= 3 + 20
    assert sorted(account.missing) == sorted(set(range(50)) - set(_done(server, account)))
    assert_accounts_agree(ledger, server)


def _done(server, account):
    return [n for n in range(50) if n not in account.missing]


@pytest.mark.parametrize("value", ["-1", "nan", "1e400", "soon", "0", ""])
def test_a_senseless_wait_is_a_backoff(tmp_path, value):
    refuse = error(429, "rate_limit_exceeded", {"retry-after": value})
    account, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number < 2 else faultless(c), 4)
    assert account.statuses == {"ok": 4}
    assert len(server.calls) == 6
    assert_accounts_agree(ledger, server)


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "insufficient_quota"), (401, "invalid_api_key"), (403, "forbidden"), (404, "model_not_found")],
)
def test_what_can_never_succeed_ends_the_run(tmp_path, status, code):
    """Fault 4."""
    account, ledger, server, _ = run(tmp_path, lambda c: [error(status, code)], 200)
    assert str(status) in account.stopped
    assert len(server.calls) <= 20
    assert ledger.confirmed == ledger.possible == ledger.requests == 0
    assert len(account.missing) == 200


def test_one_question_too_long_harms_no_other(tmp_path):
    """Fault 5."""
    account, ledger, server, _ = run(
        tmp_path, lambda c: [error(400, "context_length_exceeded")] if c.number == 3 else faultless(c), 20
    )
    assert account.statuses == {"ok": 19}
    assert len(account.failed) == len(account.missing) == 1
    assert len(server.calls) == 20
    assert_accounts_agree(ledger, server)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_server_errors_may_have_cost_and_are_tried_twice_more(tmp_path, status):
    """Fault 6: the count of hits is exact, so the SDK's own retries are off."""
    account, ledger, server, _ = run(tmp_path, lambda c: [error(status, "oops")], 1)
    assert len(server.calls) == 3
    assert ledger.possible == 3 * _worst(server)
    assert ledger.confirmed == 0
    assert account.missing == [0]


def _worst(server):
    request = Endpoint(server.url, "test-model").request(question(0))
    return PRICE.worst(request["size"], 256)


@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "false"}, {"x-should-retry": "true"}])
def test_an_overloaded_server_is_tried_six_times_free_of_charge(tmp_path, headers):
    account, ledger, server, _ = run(tmp_path, lambda c: [error(503, "overloaded", headers)], 1)
    assert len(server.calls) == 6
    assert ledger.requests == ledger.possible == 0
    assert account.failed


def _trickle(call):
    yield b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    completion(call)
    while True:
        yield b" "
        yield 0.05


def _silent(call):
    completion(call)
    return [3600]


def _slow_head(call):
    completion(call)
    return [b"HTTP/1.1 200 X\r\n", 3600]


@pytest.mark.parametrize(
    ("behave", "limits", "told"),
    [
        (_trickle, {"total_s": 0.5}, "no answer within 0.5 s"),
        (_silent, {"total_s": 0.5}, "no answer within 0.5 s"),
        (_slow_head, {"total_s": 0.5}, "no answer within 0.5 s"),
        (_silent, {"read_s": 0.4}, "connection: ReadTimeout"),
        (_slow_head, {"read_s": 0.4}, "connection: ReadTimeout"),
    ],
)
def test_no_request_outlives_its_deadline_and_the_reservation_stays(tmp_path, behave, limits, told):
    """Fault 7: none of these answers ever ends by itself."""
    account, ledger, server, _ = run(tmp_path, behave, 1, limits=limits)
    with Store.open(tmp_path / "store.sqlite") as store:
        assert [error for _, error, _ in store.failures()] == [told] * 3
    # A busy server may find a request only after its client has gone.
    assert len(server.calls) <= 3
    assert ledger.requests == 3
    assert ledger.possible == 3 * _worst(server)
    assert server.cost <= ledger.possible
    assert account.missing == [0]


def test_a_refused_port_reserves_nothing(tmp_path):
    """Fault 8."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with Store.open(tmp_path / "s") as store:
            account = collect_sync(client(url, store), questions(2), pilot=0)
            assert "ConnectError" in account.failed[0]
            assert (store.ledger.requests, store.ledger.committed) == (0, 0)
            assert account.requests == 12


def test_a_name_that_does_not_resolve_reserves_nothing(tmp_path, monkeypatch):
    """Fault 8."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Store.open(tmp_path / "s") as store:
        account = collect_sync(
            client("http://localhost:9/v1", store, limits={"max_attempts": 2}), questions(1), pilot=0
        )
        assert "ConnectError" in account.failed[0]
        assert (store.ledger.requests, store.ledger.committed) == (0, 0)


def test_a_server_whose_queue_is_full_reserves_nothing(tmp_path):
    """Fault 8: nobody accepts, and beyond its queue no connection comes about."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        limits = {"connect_s": 0.3, "max_attempts": 2}
        with Store.open(tmp_path / "s") as store:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
            account = collect_sync(client(url, store, limits=limits), questions(2), pilot=0)
            assert set(account.failed.values()) == {"connection: ConnectTimeout"}
            assert (store.ledger.requests, store.ledger.committed) == (0, 0)
            assert account.requests == 4


def test_waiting_for_a_connection_of_the_pool_is_no_failure(tmp_path, monkeypatch):
    """Fault 8: one connection for eight requests, and no bound on the time in its queue but the request's own."""
    import openai

    waits = []

    async def note(request):
        waits.append(request.extensions["timeout"])

    one = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=1, max_keepalive_connections=1)
    narrow = functools.partial(openai.DefaultAsyncHttpxClient, limits=one, event_hooks={"request": [note]})
    monkeypatch.setattr(openai, "DefaultAsyncHttpxClient", narrow)
    account, ledger, server, _ = run(tmp_path, lambda c: [0.05, *faultless(c)], 8, limits={"read_s": 100.0})
    assert [(wait["read"], wait["pool"]) for wait in waits] == [(100.0, None)] * 8
    assert server.most_at_once == 1
    assert account.statuses == {"ok": 8}
    assert len(server.calls) == account.requests == 8
    assert_accounts_agree(ledger, server)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_fifty_megabytes_are_not_read_to_their_end(tmp_path, encoding):
    """Fault 10; the second are fifty kilobytes on the wire."""
    sent = []

    def flood(call):
        completion(call)
        whole = gzip.compress(b" " * 50_000_000) if encoding == "gzip" else b" " * 50_000_000
        head = f"HTTP/1.1 200 X\r\ncontent-length: {len(whole)}\r\ncontent-encoding: {encoding}\r\n\r\n"
        yield head.encode()
        for n in range(0, len(whole), 500_000):
            yield whole[n : n + 500_000]
            sent.append(n)

    account, ledger, server, _ = run(tmp_path, lambda c: flood(c) if c.number == 0 else faultless(c), 2)
    assert account.statuses == {"ok": 2}
    assert len(server.calls) == 3
    assert len(sent) < 40
    assert ledger.confirmed < server.cost <= ledger.confirmed + ledger.possible
    with Store.open(tmp_path / "store.sqlite") as store:
        assert [error for _, error, _ in store.failures()] == ["an answer of more than 2000000 bytes"]


def test_a_mixture_of_fingerprints_is_noticed(tmp_path):
    """Fault 11."""
    account, _, _, _ = run(
        tmp_path, lambda c: [http(completion(c, system_fingerprint=f"fp_{c.number % 2}"))], 4, model="test-model"
    )
    assert any("more than one model answered" in text for text in account.warnings)


def _short(call):
    body = json.dumps(completion(call)).encode()
    return [http(body[:-40], length=len(body)), Close()]


def _reset(call):
    return [http(completion(call))[:-60], 0.02, Reset()]


def _closed(call):
    completion(call)
    return [Close()]


def _never_ended(call):
    completion(call)
    return [
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        Close(),
    ]


@pytest.mark.parametrize("fault", [_short, _reset, _closed, _never_ended])
def test_an_answer_lost_on_the_wire_is_booked_as_possible(tmp_path, fault):
    """Fault 9: the server billed it, we cannot know, and the bill stays within what we booked."""
    seen = set()

    def behave(call):
        if call.digest in seen:
            return faultless(call)
        seen.add(call.digest)
        return fault(call)

    account, ledger, server, _ = run(tmp_path, behave, 10)
    assert account.statuses == {"ok": 10}
    assert len(server.calls) == 20
    assert ledger.confirmed < server.cost <= ledger.confirmed + ledger.possible


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>busy</html>",
        b"",
        b'{"choices": [{"mess',
        b"{}",
        b"[]",
        b"null",
        b'{"error": {"message": "no"}}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": {"0": 1}}',
        b"[" * 200_000,
        b"\xff\xfe{}",
        b" " * 3_000_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_an_answer_that_is_none_has_a_name_and_is_tried_again(tmp_path, raw):
    """Fault 10."""
    account, ledger, server, _ = run(tmp_path, once(http(raw, headers={"content-type": "text/html"})), 2)
    assert account.statuses == {"ok": 2}
    assert ledger.possible > 0
    assert ledger.confirmed == server.cost
    assert len(server.calls) == 4


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": -5, "completion_tokens": 3},
        {"prompt_tokens": "7", "completion_tokens": 3},
        {"prompt_tokens": 10**400, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {},
    ],
    ids=["none", "negative", "text", "huge", "bool", "empty"],
)
def test_an_answer_without_a_usable_count_costs_the_worst(tmp_path, usage):
    def behave(call):
        bill = list(call.server.bill)
        whole = completion(call, usage=usage)
        call.server.bill[:] = bill
        return [http(whole)]

    _, ledger, server, readings = run(tmp_path, behave, 1)
    assert ledger.confirmed == _worst(server)
    assert readings[0].status == "ok"


def test_null_content_is_asked_once_more_and_then_invalid(tmp_path):
    account, ledger, server, _ = run(tmp_path, lambda c: [http(completion(c, message={"content": None}))], 3)
    assert account.statuses == {"invalid": 3}
    assert len(server.calls) == 6
    assert account.missing == [0, 1, 2] or sorted(account.missing) == [0, 1, 2]
    assert_accounts_agree(ledger, server)


def test_another_model_and_tier_are_noticed_and_priced_by_the_tier(tmp_path):
    """Fault 11."""
    price = dataclasses.replace(PRICE, tier_factors={"flex": Decimal("0.5")})
    account, ledger, server, _ = run(
        tmp_path, lambda c: [http(completion(c, model="other", service_tier="flex"))], 4, price=price
    )
    assert ledger.confirmed == server.cost / 2
    assert any("answered by other" in text for text in account.warnings)
    assert any("flex" in text for text in account.warnings)


@pytest.mark.parametrize(
    ("finish", "content", "message", "status", "hits"),
    [
        ("length", '{"ranking": ["C01", "C02"', {}, "unusable", 1),
        ("content_filter", "", {}, "refused", 1),
        ("stop", None, {"content": None, "refusal": "I cannot"}, "refused", 1),
        ("elsewhere", None, {}, "ok", 1),
        ("stop", "<think>endless", {}, "invalid", 2),
        ("stop", "I will not rank.", {}, "invalid", 2),
    ],
)
def test_bad_endings_are_billed_and_asked_again_once_at_most(tmp_path, finish, content, message, status, hits):
    """Fault 12."""
    account, ledger, server, _ = run(
        tmp_path, lambda c: [http(completion(c, content, finish=finish, message=message))], 1
    )
    assert account.statuses == {status: 1}
    assert len(server.calls) == hits
    assert_accounts_agree(ledger, server)


def test_an_invalid_answer_is_not_bought_again_by_the_next_run(tmp_path):
    bad = lambda c: [http(completion(c, "nothing"))]  # noqa: E731
    with FaultServer(bad) as server, Store.open(tmp_path / "s") as store:
        for _ in range(3):
            collect_sync(client(server, store), questions(2), pilot=0)
        assert len(server.calls) == 4


def test_the_target_changes_no_byte_and_no_key():
    """Fault 16: a prompt has no field for it."""
    assert {field.name for field in dataclasses.fields(prompts.RankingPrompt)} == {
        "session_id",
        "history",
        "candidates",
        "k",
    }


def test_equal_questions_are_asked_once(tmp_path):
    """Fault 27: also when they are asked at the same time."""
    twins = [dataclasses.replace(question(1), session_id=n) for n in range(8)]
    account, _, server, readings = run(tmp_path, lambda c: [0.05, *faultless(c)], twins)
    assert len(server.calls) == 1
    assert account.statuses == {"ok": 8}
    assert account.cached == 7
    assert len({reading.items for reading in readings.values()}) == 1


def test_what_enters_the_answer_enters_the_key():
    base = Endpoint("http://127.0.0.1:1/v1", "m")
    key = base.request(question(1))["key"]
    same = [
        Endpoint("http://127.0.0.1:1/v1/", "m"),
        Endpoint("http://127.0.0.1:1/v1", "m", temperature=0),
        Endpoint("http://127.0.0.1:1/v1", "m", api_key_env="OTHER"),
    ]
    for endpoint in same:
        assert endpoint.request(question(1))["key"] == key
        assert endpoint.mark(question(1)) == base.mark(question(1))
    others = [
        base.request(question(1, num_candidates=49)),
        base.request(question(1, template=prompts.MOVIES.with_hints(["Another hint."]))),
        base.request(question(1, titles=("", *(f"Name {n}" for n in range(1, 301))))),
        base.request(question(1, seed=1)),
        Endpoint("http://127.0.0.1:2/v1", "m").request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "n").request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "m", temperature=0.5).request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "m", seed=1).request(question(1)),
    ]
    assert key not in {request["key"] for request in others}
    # What is found without wording must never be taken for another's answer.
    assert len({request["mark"] for request in others} | {base.mark(question(1))}) == len(others) + 1


def _never(*_, **__):
    raise AssertionError("worded again")


def test_what_was_worded_once_is_found_without_its_words(tmp_path, monkeypatch):
    """Also where the wordings were lost, as in a store filled by an import: then once more."""
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        asker = client(server, store)
        collect_sync(asker, questions(5), pilot=0)
        with store.writing() as connection:
            connection.execute("DELETE FROM wordings WHERE key IN (SELECT key FROM answers WHERE attempt <= 3)")
        assert collect_sync(asker, questions(5), pilot=0).cached == 5
        monkeypatch.setattr(prompts, "_word_ranking", _never)
        assert collect_sync(asker, questions(5), pilot=0).cached == 5
        assert asker.estimate(questions(5)).answered == 5
        assert sum(reading.usable for _, _, reading in asker.readings(questions(5))) == 5
        assert len(server.calls) == 5


def test_a_change_of_the_words_asks_for_another_wording_version():
    """This digest of a question stands for version 1; words changed without a new version would find old answers."""
    told = json.dumps([question(1).messages, question(1).schema, question(1).candidates])
    assert prompts.WORDING_VERSION == 1
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "d39d3bf5de0f6e2f"


def test_the_cap_is_kept_with_many_in_flight(tmp_path):
    """Fault 24."""
    account, ledger, server, _ = run(tmp_path, lambda c: [0.02, *faultless(c)], 200, usd="0.05")
    assert "budget exhausted" in account.stopped
    assert server.cost == ledger.confirmed <= Decimal("0.05") * 10**12
    assert 30 < len(server.calls) < 200
    assert len(account.missing) == 200 - len(server.calls)


@pytest.mark.parametrize(("usd", "sent"), [("0", 0), ("0.000001", 0)])
def test_a_cap_below_one_question_sends_none(tmp_path, usd, sent):
    account, _, server, _ = run(tmp_path, num=3, usd=usd)
    assert len(server.calls) == sent
    assert account.missing == [0, 1, 2]


def test_caps_on_requests_and_tokens_hold_without_a_price(tmp_path):
    account, ledger, server, _ = run(tmp_path, num=30, price=None, budget=Budget(requests=7))
    assert len(server.calls) == 7
    assert account.cost is None
    (tmp_path / "two").mkdir()
    _, ledger, server, _ = run(tmp_path / "two", num=30, price=None, budget=Budget(tokens=40_000))
    assert 0 < len(server.calls) < 30
    assert sum(prompt + done for _, prompt, done in server.bill) == ledger.tokens <= 40_000


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cap=st.integers(0, 40), seed=st.integers(0, 10**6), in_flight=st.sampled_from([1, 5, 64]))
def test_no_mixture_of_faults_and_delays_passes_the_cap(tmp_path_factory, cap, seed, in_flight):
    """Fault 24, over costs and latencies: whatever the server billed, answered or not."""

    def behave(call):
        kind = (call.number * 7919 + seed) % 10
        if kind == 0:
            return _closed(call)
        if kind == 1:
            return [error(429, "rate_limit_exceeded", {"retry-after-ms": "10"})]
        if kind == 2:
            return [http(completion(call, "rubbish"))]
        if kind == 3:
            return [error(500, "oops")]
        return [0.001 * (seed % 9), *faultless(call)]

    usd = f"0.0{cap:02d}"
    _, ledger, server, _ = run(
        tmp_path_factory.mktemp("cap"), behave, 16, usd=usd, limits={"in_flight": (1, in_flight, in_flight)}
    )
    assert server.cost <= ledger.confirmed + ledger.possible <= Decimal(usd) * 10**12


def test_money_needs_a_price(tmp_path):
    """Fault 25."""
    with Store.open(tmp_path / "s") as store:
        endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
        with pytest.raises(ValueError, match="price is unknown"):
            Client(endpoint, store, price=None, budget=Budget(usd=Decimal(1)))
        with pytest.raises(ValueError, match="nothing is capped"):
            Client(endpoint, store, price=Price.free(), budget=Budget())


@pytest.mark.parametrize("num", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_estimate_brackets_the_bill_and_the_pilot_sharpens_it(tmp_path, num):
    """Fault 26."""
    asked = questions(num)
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        asker = client(server, store)
        before = asker.estimate(asked)
        asyncio.run(collect(asker, asked[:16], pilot=0))
        after = asker.estimate(asked)
        paid = store.ledger.confirmed
        asyncio.run(collect(asker, asked, pilot=0))
        bill = server.cost
    assert before.low <= bill <= before.worst
    assert after.answered == 16
    assert abs(paid + after.expected - bill) < 0.05 * bill


def test_a_server_that_ignores_the_bound_is_booked_and_left(tmp_path):
    """Fault 28."""
    usage = {"prompt_tokens": 5, "completion_tokens": 20_000}
    account, ledger, server, _ = run(tmp_path, lambda c: [0.01, http(completion(c, usage=usage))], 100)
    assert "no cap can be promised" in account.stopped
    assert ledger.confirmed == server.cost
    assert len(server.calls) <= 20


SENTINEL = "sk-sentinel-5f2d8e1c9b7a4630"


def _echo(call):
    return [http(completion(call, json.dumps(ranked(call.body)) + call.headers["authorization"]))]


@pytest.mark.parametrize(
    "behave",
    [
        _echo,
        lambda c: [error(400, "bad", message=f"key {c.headers['authorization']}")],
        lambda c: [error(401, "bad", message=f"Incorrect API key provided: {SENTINEL}")],
        lambda c: [error(500, "bad", message=SENTINEL)],
        lambda c: [http(SENTINEL.encode())],
        lambda c: [Close()],
        _short,
        lambda c: [error(429, SENTINEL, {"retry-after": "3600"}, message=SENTINEL)],
    ],
)
def test_the_key_appears_nowhere(tmp_path, behave, monkeypatch, caplog, capfd):
    """Fault 30."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    caplog.set_level(logging.DEBUG)
    account, _, server, readings = run(tmp_path, behave, 3)
    assert server.calls[0].headers["authorization"] == f"Bearer {SENTINEL}"
    told = caplog.text + "".join(capfd.readouterr()) + repr(account) + repr(readings)
    told += pickle.dumps((account, readings)).decode("latin-1") + json.dumps(account.as_json())
    with Store.open(tmp_path / "store.sqlite") as store:
        exchange.export_jsonl(store, tmp_path / "answers.jsonl")
        for (table,) in store.read("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for row in store.read(f"SELECT * FROM {table}"):
                told += repr(row) + "".join(_unpacked(value) for value in row)
        # Also while it is open: what SQLite keeps beside the file.
        told += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    told += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    assert {file.name for file in tmp_path.iterdir()} >= {"answers.jsonl", "store.sqlite"}
    assert SENTINEL not in told
    assert SENTINEL[3:] not in told


def _unpacked(value):
    """Text of what the store keeps compressed."""
    try:
        return zlib.decompress(value).decode("latin-1") if isinstance(value, bytes) else ""
    except zlib.error:
        return ""


def test_a_redirect_does_not_take_the_key_along(tmp_path, monkeypatch):
    """Fault 32."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    with FaultServer() as other:
        move = {"location": f"{other.url}/chat/completions"}
        account, _, _, _ = run(tmp_path, lambda c: [http(b"", 307, move)], 5)
        assert other.calls == []
    assert "redirected" in account.stopped


def test_a_proxy_of_the_environment_is_not_used_on_this_machine(tmp_path, monkeypatch):
    with FaultServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        account, _, _, _ = run(tmp_path, num=2)
        assert proxy.calls == []
    assert account.statuses == {"ok": 2}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.org/v1", "unencrypted"),
        ("https://user:secret@example.org/v1", "user or password"),
        ("ftp://example.org", "expected http"),
        ("example.org/v1", "expected http"),
    ],
)
def test_an_address_that_gives_the_key_away_is_refused(url, told):
    with pytest.raises(ValueError, match=told) as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)
    Endpoint("http://example.org/v1", "m", allow_http=True)


def test_another_machine_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        Endpoint("https://example.org/v1", "m").api_key()
    assert Endpoint("http://localhost:1/v1", "m").api_key()


def test_a_pilot_of_bad_answers_ends_the_run(tmp_path):
    account, _, server, _ = run(tmp_path, lambda c: [http(completion(c, finish="content_filter"))], 100, pilot=16)
    assert account.stopped.startswith("pilot: only 0%")
    assert len(server.calls) == 16
    assert len(account.missing) == 100


def test_a_run_of_failures_ends(tmp_path):
    account, _, server, _ = run(
        tmp_path, lambda c: [error(500, "oops")], 100, limits={"max_maybe_billed": 0, "in_flight": (1, 4, 4)}
    )
    assert "more than half" in account.stopped
    assert len(server.calls) < 60


def test_collecting_works_inside_a_running_loop(tmp_path):
    """Fault 19, the notebook."""

    async def cell(asker):
        return collect_sync(asker, questions(3), pilot=0)

    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        assert asyncio.run(cell(client(server, store))).statuses == {"ok": 3}


def test_a_cancelled_run_books_what_was_on_its_way(tmp_path):
    """Fault 19."""

    async def cancelled(asker):
        task = asyncio.create_task(collect(asker, questions(10), pilot=0))
        while len(server.calls) < 10 and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FaultServer(_silent) as server, Store.open(tmp_path / "s") as store:
        asyncio.run(cancelled(client(server, store)))
        assert (store.ledger.open, store.ledger.requests) == (0, 10)
        assert 0 < server.cost <= store.ledger.possible
        store.verify()


def test_our_own_limit_of_requests_a_minute_holds(tmp_path):
    began = time.monotonic()
    _, _, server, _ = run(tmp_path, num=40, limits={"rpm": 1200.0})
    # Twenty a second after a burst of twenty; a busy machine only makes it later.
    assert server.calls[-1].at - began >= (40 - 20 - 1) / 20 - 0.05


def test_no_more_are_in_flight_than_allowed(tmp_path):
    _, _, server, _ = run(tmp_path, lambda c: [0.05, *faultless(c)], 60, limits={"in_flight": (1, 3, 6)})
    assert server.most_at_once <= 6


def test_quick_limits_are_limits():
    assert Limits(**QUICK).total_s == QUICK["total_s"]
    assert PRICE.input * 10**6 == PROMPT
    assert PRICE.output * 10**6 == COMPLETION
