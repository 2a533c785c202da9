"""A refused request: how long the client waits, what it tries again, what ends the collection, and what is booked."""

import email.utils
import time

import pytest

from alkd_jax.llm.connection import Connection
from alkd_jax.llm.rate_limits import Pacer
from tests.helpers.fault_server import (
    error,
    faultless,
)
from tests.helpers.llm_questions import run
from tests.helpers.wire_faults import assert_bills_agree, worst_cost


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1"}, 1.0),
        ({"retry-after-ms": "700"}, 0.7),
        ({"x-ratelimit-reset-tokens": "0m0.6s", "x-ratelimit-remaining-tokens": "0"}, 0.6),
    ],
)
def test_no_worker_sends_before_the_pause_ends(tmp_path, monkeypatch, headers, seconds):
    """On the client's own clock, by which the pause is counted."""
    sent, refused = [], []

    async def send(self, body, original=Connection.send):
        sent.append(time.monotonic())
        return await original(self, body)

    def book(self, sent_at, wait, original=Pacer.record_refusal):
        refused.append((time.monotonic(), self.in_flight))
        return original(self, sent_at, wait)

    monkeypatch.setattr(Connection, "send", send)
    monkeypatch.setattr(Pacer, "record_refusal", book)
    report, ledger, server, _ = run(
        tmp_path,
        lambda c: [error(429, "rate_limit_exceeded", headers)] if c.number == 5 else [0.02, *faultless(c)],
        40,
        limits={"in_flight": (1, 4, 4)},
    )
    (refused_at, in_flight), *_ = refused
    # Who had passed the pause when the refusal came may still send; everybody else keeps it.
    assert sum(refused_at < at < refused_at + seconds for at in sent) < in_flight <= 4
    assert sum(at >= refused_at + seconds for at in sent) > 40 - 5 - 2 * 4
    assert report.statuses == {"ok": 40}
    assert report.refusals == 1
    assert_bills_agree(ledger, server)


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
    report, ledger, server, _ = run(
        tmp_path, lambda c: [error(429, "rate_limit_exceeded")] if c.number % 2 else faultless(c), 60
    )
    assert report.statuses == {"ok": 60}
    assert report.refusals == len(server.calls) - 60
    assert_bills_agree(ledger, server)


def test_a_long_wait_ends_the_run_and_says_until_when(tmp_path):
    refuse = error(429, "rate_limit_exceeded", {"retry-after": "3600"})
    limits = {"in_flight": (1, 20, 20)}
    report, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number >= 3 else faultless(c), 50, limits=limits)
    assert "wait until" in report.stopped
    assert len(server.calls) <= 3 + 20
    assert sorted(report.missing) == sorted(set(range(50)) - set(_done(server, report)))
    assert_bills_agree(ledger, server)


def _done(server, report):
    return [n for n in range(50) if n not in report.missing]


@pytest.mark.parametrize("value", ["-1", "nan", "1e400", "soon", "0", ""])
def test_a_senseless_wait_is_a_backoff(tmp_path, value):
    refuse = error(429, "rate_limit_exceeded", {"retry-after": value})
    report, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number < 2 else faultless(c), 4)
    assert report.statuses == {"ok": 4}
    assert len(server.calls) == 6
    assert_bills_agree(ledger, server)


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "insufficient_quota"), (401, "invalid_api_key"), (403, "forbidden"), (404, "model_not_found")],
)
def test_what_can_never_succeed_ends_the_run(tmp_path, status, code):
    report, ledger, server, _ = run(tmp_path, lambda c: [error(status, code)], 200)
    assert str(status) in report.stopped
    assert len(server.calls) <= 20
    assert ledger.confirmed == ledger.possible == ledger.requests == 0
    assert len(report.missing) == 200


def test_one_question_too_long_harms_no_other(tmp_path):
    report, ledger, server, _ = run(
        tmp_path, lambda c: [error(400, "context_length_exceeded")] if c.number == 3 else faultless(c), 20
    )
    assert report.statuses == {"ok": 19}
    assert len(report.failed) == len(report.missing) == 1
    assert len(server.calls) == 20
    assert_bills_agree(ledger, server)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_server_errors_may_have_cost_and_are_tried_twice_more(tmp_path, status):
    """The count of hits is exact, so the SDK's own retries are off."""
    report, ledger, server, _ = run(tmp_path, lambda c: [error(status, "oops")], 1)
    assert len(server.calls) == 3
    assert ledger.possible == 3 * worst_cost(server)
    assert ledger.confirmed == 0
    assert report.missing == [0]


@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "false"}, {"x-should-retry": "true"}])
def test_an_overloaded_server_is_tried_six_times_free_of_charge(tmp_path, headers):
    report, ledger, server, _ = run(tmp_path, lambda c: [error(503, "overloaded", headers)], 1)
    assert len(server.calls) == 6
    assert ledger.requests == ledger.possible == 0
    assert report.failed
