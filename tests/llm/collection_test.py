"""Collecting answers from a server on a real socket: each question once, in parallel, cancelled, from a notebook."""

import asyncio
import dataclasses
import time

import pytest

from alkd_jax.llm import prompts
from alkd_jax.llm.collection import collect, collect_sync
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import (
    COMPLETION,
    PROMPT,
    FaultServer,
    completion,
    error,
    faultless,
    http,
    ranked,
)
from tests.helpers.llm_questions import PRICE, QUICK, client, question, questions, run
from tests.helpers.wire_faults import (
    assert_bills_agree,
    never_answer,
)


def test_every_question_is_answered_once_and_both_ledgers_agree(tmp_path):
    report, ledger, server, parsed = run(tmp_path, num=40, pilot=16)
    assert report.statuses == {"ok": 40}
    assert len(server.calls) == report.requests == ledger.requests == 40
    assert_bills_agree(ledger, server)
    for number, reading in parsed.items():
        query = question(number)
        labels = ranked({"messages": query.messages})["ranking"]
        assert reading.items == tuple(query.candidates[int(name[1:])] for name in labels)


def test_an_invalid_answer_is_not_bought_again_by_the_next_run(tmp_path):
    bad = lambda c: [http(completion(c, "nothing"))]  # noqa: E731
    with FaultServer(bad) as server, Store.open(tmp_path / "s") as store:
        for _ in range(3):
            collect_sync(client(server, store), questions(2), pilot=0)
        assert len(server.calls) == 4


def test_the_target_changes_no_byte_and_no_key():
    """A prompt has no field for it."""
    assert {field.name for field in dataclasses.fields(prompts.RankingPrompt)} == {
        "session_id",
        "history",
        "candidates",
        "k",
    }


def test_equal_questions_are_asked_once(tmp_path):
    """Also when they are asked at the same time."""
    twins = [dataclasses.replace(question(1), session_id=n) for n in range(8)]
    report, _, server, parsed = run(tmp_path, lambda c: [0.05, *faultless(c)], twins)
    assert len(server.calls) == 1
    assert report.statuses == {"ok": 8}
    assert report.cached == 7
    assert len({reading.items for reading in parsed.values()}) == 1


def _never(*_, **__):
    raise AssertionError("rendered again")


def test_what_was_rendered_once_is_found_without_its_text(tmp_path, monkeypatch):
    """Where the prompt hashes were lost, as in a store filled by an import, questions are rendered once more."""
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        llm_client = client(server, store)
        collect_sync(llm_client, questions(5), pilot=0)
        with store.transaction() as connection:
            connection.execute("DELETE FROM wordings WHERE key IN (SELECT key FROM answers WHERE attempt <= 3)")
        assert collect_sync(llm_client, questions(5), pilot=0).cached == 5
        monkeypatch.setattr(prompts, "_render_ranking", _never)
        assert collect_sync(llm_client, questions(5), pilot=0).cached == 5
        assert llm_client.estimate(questions(5)).answered == 5
        assert sum(reading.usable for _, _, reading in llm_client.parsed_answers(questions(5))) == 5
        assert len(server.calls) == 5


def test_a_pilot_of_bad_answers_ends_the_run(tmp_path):
    report, _, server, _ = run(tmp_path, lambda c: [http(completion(c, finish="content_filter"))], 100, pilot=16)
    assert report.stopped.startswith("pilot: only 0%")
    assert len(server.calls) == 16
    assert len(report.missing) == 100


def test_a_run_of_failures_ends(tmp_path):
    limits = {"max_possibly_billed": 0, "in_flight": (1, 4, 4)}
    report, _, server, _ = run(
        tmp_path, lambda c: [error(500, "oops")] if c.number else faultless(c), 100, limits=limits
    )
    assert "more than half" in report.stopped
    assert len(server.calls) < 60


def test_collecting_works_inside_a_running_loop(tmp_path):
    """The notebook."""

    async def cell(llm_client):
        return collect_sync(llm_client, questions(3), pilot=0)

    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        assert asyncio.run(cell(client(server, store))).statuses == {"ok": 3}


def test_a_cancelled_run_books_what_was_on_its_way(tmp_path):

    async def cancelled(llm_client):
        task = asyncio.create_task(collect(llm_client, questions(10), pilot=0))
        while len(server.calls) < 10 and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    behave = lambda call: never_answer(call) if call.number else faultless(call)  # noqa: E731
    with FaultServer(behave) as server, Store.open(tmp_path / "s") as store:
        asyncio.run(cancelled(client(server, store)))
        assert (store.ledger.open, store.ledger.requests) == (0, 10)
        assert 0 < store.ledger.confirmed < server.cost <= store.ledger.confirmed + store.ledger.possible
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
