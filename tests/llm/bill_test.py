"""What is booked is never below what a provider with a bill of its own has charged, and equal where it tells all."""

import asyncio
import dataclasses
import json

import pytest

from alkd_jax.llm.collection import collect, collect_sync
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.price_list import PRICES
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.store import Store
from alkd_jax.llm.token_usage import Usage, read_usage
from tests.helpers.fault_server import FaultServer, completion, faultless, http
from tests.helpers.llm_questions import client, questions, run
from tests.helpers.providers import LIST_PRICE as PRICE
from tests.helpers.providers import Provider, closing_idle_connections
from tests.helpers.wire_faults import close, on_first_arrival


def openai(provider):
    spoken = provider.completion + provider.reasoning
    details = {"cached_tokens": provider.cached}
    counts = {"prompt_tokens": provider.prompt, "completion_tokens": spoken, "prompt_tokens_details": details}
    told = {"completion_tokens_details": {"reasoning_tokens": provider.reasoning}}
    return counts | told | {"total_tokens": provider.prompt + spoken}


def reasoning_only_in_the_total(provider):
    counts = {"prompt_tokens": provider.prompt, "completion_tokens": provider.completion}
    return counts | {"total_tokens": provider.prompt + provider.completion + provider.reasoning}


def reasoning_beside(provider):
    details = {"reasoning_tokens": provider.reasoning}
    return reasoning_only_in_the_total(provider) | {"completion_tokens_details": details}


def reasoning_without_total(provider):
    counts = {"prompt_tokens": provider.prompt, "completion_tokens": provider.completion}
    return counts | {"completion_tokens_details": {"reasoning_tokens": provider.reasoning}}


def cache_hits(provider):
    counts = {"prompt_tokens": provider.prompt, "completion_tokens": provider.completion}
    return counts | {"prompt_cache_hit_tokens": provider.cached, "total_tokens": provider.prompt + provider.completion}


COMPLETE = {
    "plain": Provider(openai),
    "cached": Provider(openai, cached=2000),
    "cache hits": Provider(cache_hits, cached=1000),
    "reasoning included": Provider(openai, reasoning=700),
    "reasoning in the total only": Provider(reasoning_only_in_the_total, reasoning=700),
    "reasoning beside the completion": Provider(reasoning_beside, reasoning=700),
    "no total": Provider(reasoning_without_total, reasoning=700),
    "priority": Provider(openai, factor=1.75, more={"service_tier": "priority"}),
}
INCOMPLETE = {
    "zeros": Provider(lambda _: {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "no prompt": Provider(lambda p: openai(p) | {"prompt_tokens": 0}),
    "no completion": Provider(lambda p: openai(p) | {"completion_tokens": 0, "total_tokens": p.prompt}),
    "none": Provider(lambda _: None),
    "another tier": Provider(openai, factor=6, more={"service_tier": "ultrafast"}),
    "charged by its own word": Provider(lambda p: openai(p) | {"cost": 0.0016128}, factor=1.2),
}


@pytest.mark.parametrize("name", [*COMPLETE, *INCOMPLETE])
def test_the_bill_is_booked(tmp_path, name):
    provider = (COMPLETE | INCOMPLETE)[name]
    provider.billed = 0
    price = PRICE if name != "another tier" else Price(PRICE.input, PRICE.output, PRICE.cached_input)
    report, ledger, _, _ = run(tmp_path, provider, 6, price=price, max_output_tokens=1024)
    assert report.statuses == {"ok": 6}
    assert ledger.possible == 0
    if name in COMPLETE:
        assert ledger.confirmed == provider.billed
    assert ledger.confirmed >= provider.billed > 0


def test_a_dear_tier_is_reserved_for_after_the_first_answer(tmp_path):
    """The second run knows the tier from the store, so that its cap holds from the first request on."""
    provider = Provider(openai, factor=1.75, more={"service_tier": "priority"})
    with FaultServer(provider) as server, Store.open(tmp_path / "s") as store:
        plain = client(server, store, price=PRICE).max_cost({"size": 9000, "max_output_tokens": 256})[0]
        collect_sync(client(server, store, price=PRICE), questions(2), pilot=0)
        dear = client(server, store, price=PRICE).max_cost({"size": 9000, "max_output_tokens": 256})[0]
        assert dear == plain * 1.75


def test_the_cap_holds_where_reasoning_is_billed_apart(tmp_path):
    """Nothing more is sent once an answer has cost more than was reserved for it."""
    provider = Provider(reasoning_only_in_the_total, reasoning=9000)
    report, ledger, server, _ = run(tmp_path, provider, 50, usd="1", price=PRICE)
    assert "no cap can be guaranteed" in report.stopped
    assert len(server.calls) == 1
    assert ledger.confirmed == provider.billed


def test_counts_that_contradict_each_other_are_read_as_the_most_they_can_mean():
    both = {"prompt_tokens": 5, "completion_tokens": 2}
    assert read_usage(both | {"prompt_tokens_details": {"cached_tokens": 9}}) == Usage(14, 9, 2)
    assert read_usage(both | {"total_tokens": 3}) == Usage(5, 0, 2)
    assert read_usage({"input_tokens": 5, "output_tokens": 2}) == Usage(5, 0, 2)
    assert read_usage(both | {"prompt_tokens_details": {"cache_write_tokens": 4}}) == Usage(5, 0, 2, 4)
    assert read_usage(both | {"cost": 0.5}).charged == 5 * 10**11
    assert read_usage(both | {"completion_tokens_details": {"reasoning_tokens": 7}}) == Usage(5, 0, 9)
    assert read_usage(both | {"completion_tokens": 0}, has_text=False) == Usage(5, 0, 0)


def test_an_answer_of_a_dearer_model_is_booked_at_its_price(tmp_path):
    """A gateway may fall back to another model; a price that was given holds for whatever answers."""
    asked, dearer = PRICES["gpt-4o-mini"], PRICES["gpt-4o"]

    def fall_back(call):
        return [http(completion(call, model="gpt-4o"))]

    for price, expected in ((asked, dearer), (dataclasses.replace(asked, source="as given"), asked)):
        folder = tmp_path / price.source.replace(" ", "_")
        folder.mkdir()
        report, ledger, server, _ = run(folder, fall_back, 1, price=price, model="gpt-4o-mini", max_output_tokens=4096)
        ((_, prompt, done),) = server.bill
        assert ledger.confirmed == expected.cost(Usage(prompt, 0, done))
        assert any("answered by gpt-4o" in text for text in report.warnings)


def test_of_the_counts_of_several_events_the_largest_hold(tmp_path):
    def events(call):
        whole = completion(call)
        usages = [whole["usage"], whole["usage"] | {"completion_tokens": 1}, None]
        sent = [whole | {"usage": usage} for usage in usages]
        return [http("".join(f"data: {json.dumps(event)}\n\n" for event in sent).encode())]

    _, ledger, server, _ = run(tmp_path, events, 2)
    assert (ledger.confirmed, ledger.possible) == (server.cost, 0)


def test_a_server_that_closes_idle_connections_costs_nothing_more(tmp_path):
    behave = closing_idle_connections(0.02)
    report, ledger, server, _ = run(tmp_path, behave, 40, limits={"in_flight": (1, 4, 4)})
    assert report.statuses == {"ok": 40}
    assert (len(server.calls), ledger.possible) == (40, 0)
    assert ledger.confirmed == server.cost


def test_answers_that_never_arrive_are_booked_at_their_most(tmp_path):
    report, ledger, server, _ = run(tmp_path, on_first_arrival(close), 6)
    assert report.statuses == {"ok": 6}
    assert ledger.confirmed < server.cost <= ledger.confirmed + ledger.possible


@pytest.mark.parametrize("lost", [None, "DELETE FROM wordings", "DELETE FROM wordings WHERE length(mark) > 16"])
def test_a_larger_bound_buys_only_those_again_that_were_cut_off(tmp_path, lost):
    """Also in a store of an earlier version, which knows no hashes without the bound, or none at all."""

    def behave(call):
        bound = call.body["max_completion_tokens"]
        if bound < 400 and call.number % 4 == 1:
            return [http(completion(call, '{"ranking": ["C01"', finish="length"))]
        return faultless(call)

    with FaultServer(behave) as server, Store.open(tmp_path / "s") as store:
        first = collect_sync(client(server, store), questions(12), pilot=0)
        assert (first.statuses, len(server.calls)) == ({"ok": 9, "unusable": 3}, 12)
        assert any("cut off at 256 tokens" in text for text in first.warnings)
        if lost:
            with store.transaction() as connection:
                connection.execute(lost)
        larger = client(server, store, max_output_tokens=512)
        assert larger.estimate(questions(12)).answered == 9
        assert collect_sync(larger, questions(12), pilot=0).statuses == {"ok": 12}
        assert len(server.calls) == 15
        for bound in (256, 512, 1024):
            again = client(server, store, max_output_tokens=bound)
            assert collect_sync(again, questions(12), pilot=0).statuses == {"ok": 12}
            assert sum(answer.usable for _, _, answer in again.parsed_answers(questions(12))) == 12
        assert len(server.calls) == 15


def test_a_free_server_needs_no_cap(tmp_path):
    with FaultServer(faultless) as server, Store.open(tmp_path / "s") as store:
        free = client(server, store, price=Price.free())
        free.budget = Budget()
        assert asyncio.run(collect(free, questions(3), pilot=0)).statuses == {"ok": 3}
        assert (store.ledger.committed, store.ledger.requests) == (0, 3)
