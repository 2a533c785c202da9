"""Rankings in one call from a notebook, whose event loop is running."""

import asyncio
import json
import subprocess
import sys

import pytest

import alkd_jax as alkd
from alkd_jax.llm.store import Store
from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, completion, error, http, ranked, titles_of
from tests.helpers.llm_questions import TITLES

HISTORIES = [(1, 2), (3,)]
CANDIDATES = [range(10, 40), range(50, 70)]


def test_lists_of_candidates_come_back_and_are_kept_in_a_store(tmp_path):
    with FaultServer() as server:

        async def cell():
            options = {"model": "any", "base_url": server.url, "k": 5, "store": tmp_path / "s"}
            return await alkd.llm.rank(HISTORIES, CANDIDATES, TITLES, **options)

        first = asyncio.run(cell())
        assert [len(row) for row in first] == [5, 5]
        assert all(set(row) <= set(items) for row, items in zip(first, CANDIDATES, strict=True))
        assert (asyncio.run(cell()), len(server.calls)) == (first, 2)
        assert len(ranked(server.calls[0].body)["ranking"]) >= 20


def test_items_that_go_before_others_come_back_and_all_that_were_shown_are_kept(tmp_path):
    store, shown = tmp_path / "s", [(10, 11, 12), (20, 21, 22, 23)]

    def reply(call):
        labels = {title: label for label, title in titles_of(call.body).items()}
        named = (
            [labels["(none of these)"]] if "Title 1:" in call.body["messages"][1]["content"] else [labels[TITLES[21]]]
        )
        return [http(completion(call, json.dumps({"ranking": named})))]

    with FaultServer(reply) as server:

        def ask():
            call = alkd.llm.items_before((1, 2), shown, TITLES, model="any", base_url=server.url, k=2, store=store)
            return asyncio.run(call)

        assert ask() == [(), (21,)]
        assert (ask(), len(server.calls)) == ([(), (21,)], 2)
    with Store.open(store, readonly=True) as answers:
        rows = answers.read("SELECT kind, session_id, candidates FROM requests ORDER BY session_id")
    assert [row[:2] for row in rows] == [("precede", 1), ("precede", 2)]
    assert [sorted(json.loads(row[2])) for row in rows] == [[0, *items] for items in shown]
    with FaultServer(lambda call: [error(401, "invalid_api_key")]) as server:
        call = alkd.llm.items_before((1,), [(2,)], TITLES, model="any", base_url=server.url)
        with pytest.warns(UserWarning, match="invalid_api_key"):
            assert asyncio.run(call) == [None]
    with pytest.raises(ValueError, match="items are 1, candidates 2"):
        asyncio.run(alkd.llm.items_before((1,), shown, TITLES, model="any"))


def test_what_stops_the_call_is_warned_of_and_a_cap_is_needed():
    with FaultServer(lambda call: [error(401, "invalid_api_key")]) as server:
        call = alkd.llm.rank(HISTORIES, CANDIDATES, TITLES, model="any", base_url=server.url)
        with pytest.warns(UserWarning, match="invalid_api_key"):
            assert asyncio.run(call) == [(), ()]
        call = alkd.llm.rank(HISTORIES, CANDIDATES, TITLES, model="gpt-6-luna", base_url=server.url)
        with pytest.raises(ValueError, match="nothing is capped"):
            asyncio.run(call)


def test_the_sdk_is_imported_only_to_ask():
    code = "import sys, alkd_jax as alkd; alkd.llm.rank; print([m for m in ('openai', 'jax') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.strip() == "[]"
