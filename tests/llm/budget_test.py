"""The budget: no mixture of faults lets the server's bill pass the cap, and the estimate brackets the bill."""

import asyncio
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import (
    FaultServer,
    completion,
    error,
    faultless,
    http,
)
from tests.helpers.llm_questions import client, questions, run
from tests.helpers.wire_faults import (
    close,
)


def test_the_cap_is_kept_with_many_in_flight(tmp_path):
    report, ledger, server, _ = run(tmp_path, lambda c: [0.02, *faultless(c)], 200, usd="0.05")
    assert "budget exhausted" in report.stopped
    assert server.cost == ledger.confirmed <= Decimal("0.05") * 10**12
    assert 30 < len(server.calls) < 200
    assert len(report.missing) == 200 - len(server.calls)


@pytest.mark.parametrize(("usd", "sent"), [("0", 0), ("0.000001", 0)])
def test_a_cap_below_one_question_sends_none(tmp_path, usd, sent):
    report, _, server, _ = run(tmp_path, num=3, usd=usd)
    assert len(server.calls) == sent
    assert report.missing == [0, 1, 2]


def test_caps_on_requests_and_tokens_hold_without_a_price(tmp_path):
    report, ledger, server, _ = run(tmp_path, num=30, price=None, budget=Budget(requests=7))
    assert len(server.calls) == 7
    assert report.cost is None
    (tmp_path / "two").mkdir()
    _, ledger, server, _ = run(tmp_path / "two", num=30, price=None, budget=Budget(tokens=40_000))
    assert 0 < len(server.calls) < 30
    assert sum(prompt + done for _, prompt, done in server.bill) == ledger.tokens <= 40_000


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cap=st.integers(0, 40), seed=st.integers(0, 10**6), in_flight=st.sampled_from([1, 5, 64]))
def test_no_mixture_of_faults_and_delays_passes_the_cap(tmp_path_factory, cap, seed, in_flight):
    """Over costs and latencies: whatever the server billed, answered or not."""

    def behave(call):
        kind = (call.number * 7919 + seed) % 10
        if kind == 0:
            return close(call)
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
    with Store.open(tmp_path / "s") as store:
        endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
        with pytest.raises(ValueError, match="price is unknown"):
            Client(endpoint, store, price=None, budget=Budget(usd=Decimal(1)))
        with pytest.raises(ValueError, match="nothing is capped"):
            Client(endpoint, store, price=None, budget=Budget())
        Client(endpoint, store, price=Price.free(), budget=Budget())


@pytest.mark.parametrize("num", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_estimate_brackets_the_bill_and_the_pilot_sharpens_it(tmp_path, num):
    queries = questions(num)
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        llm_client = client(server, store)
        before = llm_client.estimate(queries)
        asyncio.run(collect(llm_client, queries[:16], pilot=0))
        after = llm_client.estimate(queries)
        paid = store.ledger.confirmed
        asyncio.run(collect(llm_client, queries, pilot=0))
        bill = server.cost
    assert before.low <= bill <= before.worst
    assert after.answered == 16
    assert abs(paid + after.expected - bill) < 0.05 * bill


def test_a_server_that_ignores_the_bound_is_booked_and_left(tmp_path):
    usage = {"prompt_tokens": 5, "completion_tokens": 20_000}
    report, ledger, server, _ = run(tmp_path, lambda c: [0.01, http(completion(c, usage=usage))], 100)
    assert "no cap can be guaranteed" in report.stopped
    assert ledger.confirmed == server.cost
    assert len(server.calls) <= 20
