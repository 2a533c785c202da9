"""Rankings in one call from a notebook, whose event loop is running."""

import asyncio
import subprocess
import sys

import pytest

import alkd_jax as alkd
from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, error, ranked
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
