"""Vectors of texts from a server: what is sent once, what it costs, and what a server may get wrong."""

import asyncio
import base64
import json
from decimal import Decimal

import numpy as np
import pytest

from alkd_jax.llm.client import Client
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.embeddings import embed, parse_embeddings, stored_vectors
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import PROMPT, FaultServer, Reset, error, http

TEXTS = [f"Title {number}" for number in range(10)]
DIM = 6
PRICE = Price(Decimal("0.4"), Decimal("0.4"))


def vector(text, dim=DIM):
    return np.random.default_rng(sum(text.encode())).normal(size=dim).astype(np.float32)


def answer(call, *, tokens=None, **more):
    """A faultless answer, its vectors in another order than the texts."""
    texts = call.body["input"]
    rows = [{"index": place, "embedding": vector(text).tolist()} for place, text in enumerate(texts)]
    tokens = sum(len(text) // 4 + 1 for text in texts) if tokens is None else tokens
    call.server.charge(call, {"prompt_tokens": tokens, "completion_tokens": 0})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return http({"object": "list", "data": rows[::-1], "model": call.body["model"], "usage": usage} | more)


class Served(FaultServer):
    """A server of vectors; `asked` are the texts of each request."""

    def __init__(self, behave=lambda call: [answer(call)]):
        self.asked = []

        def route(call):
            assert call.path.endswith("/embeddings")
            self.asked.append(call.body["input"])
            return behave(call)

        super().__init__(routes=route)


def asked(server, path, texts=TEXTS, *, budget=None, price=PRICE, limits=None, model="any", **options):
    """What `embed` returns, and the ledger afterwards."""
    limits = limits or Limits(in_flight=(1, 1, 1), backoff_s=0.01)
    with Store.open(path) as store:
        endpoint = Endpoint(server.url, model)
        client = Client(endpoint, store, price=price, budget=budget or Budget(Decimal(1)), limits=limits)
        return asyncio.run(embed(client, texts, **options)), store.read_ledger()


def test_vectors_come_in_the_order_of_the_texts_and_are_paid_for_once(tmp_path):
    with Served() as server:
        texts = [*TEXTS, TEXTS[3]]
        found, ledger = asked(server, tmp_path / "s", texts, texts_per_request=4)
        np.testing.assert_array_equal(found.vectors, np.stack([vector(text) for text in texts]))
        assert sorted(map(len, server.asked)) == [2, 4, 4]
        assert ledger.confirmed == server.cost == found.usage.cost
        assert ledger.tokens * PROMPT == ledger.confirmed
        again, ledger_after = asked(server, tmp_path / "s", [*TEXTS[::-1], "a new one"], texts_per_request=3)
        assert server.asked[3:] == [["a new one"]]
        np.testing.assert_array_equal(again.vectors[:10], found.vectors[9::-1])
        assert ledger_after.confirmed == server.cost > ledger.confirmed


def test_other_models_and_other_lengths_are_other_vectors(tmp_path):
    with Served() as server:
        asked(server, tmp_path / "s")
        asked(server, tmp_path / "s", dimensions=3)
        asked(server, tmp_path / "s", model="another")
        assert len(server.asked) == 3
        with Store.open(tmp_path / "s", readonly=True) as store:
            assert stored_vectors(store, Endpoint(server.url, "another")).keys() == set(TEXTS)
            assert not stored_vectors(store, Endpoint(server.url, "third"))


def test_the_cap_holds_and_the_same_call_goes_on(tmp_path):
    with Served() as server:
        found, ledger = asked(server, tmp_path / "s", texts_per_request=1, budget=Budget(Decimal("0.000056")))
        assert found.vectors is None
        assert 0 < len(server.asked) < 10
        assert found.missing == 10 - len(server.asked)
        assert "budget exhausted" in found.usage.stopped
        assert ledger.committed <= Decimal("0.000056") * 10**12
        rest, ledger = asked(server, tmp_path / "s", texts_per_request=1)
        assert rest.missing == 0
        assert len(server.asked) == 10
        assert ledger.confirmed == server.cost


@pytest.mark.parametrize(
    ("first", "possible"),
    [
        (lambda call: [error(429, "rate_limit_exceeded", {"retry-after": "0.01"})], False),
        (lambda call: [error(503, "overloaded")], False),
        (lambda call: [Reset()], True),
        (lambda call: [http({"data": []})], True),
        (lambda call: [http(b"<html>", headers={"content-type": "text/html"})], True),
    ],
)
def test_a_request_that_failed_once_is_sent_again_and_counted(tmp_path, first, possible):
    with Served(lambda call: first(call) if len(server.asked) == 1 else [answer(call)]) as server:
        found, ledger = asked(server, tmp_path / "s")
        assert found.missing == 0
        assert len(server.asked) == 2
        assert ledger.confirmed == server.cost
        assert (ledger.possible > 0) == possible


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (404, "model_not_found"), (400, "bad")])
def test_a_refusal_ends_the_run_after_one_request(tmp_path, status, code):
    with Served(lambda call: [error(status, code)]) as server:
        found, ledger = asked(server, tmp_path / "s", texts_per_request=1)
        assert (found.vectors, found.missing, len(server.asked)) == (None, 10, 1)
        assert found.usage.stopped
        assert ledger.committed == 0


def test_many_requests_are_in_flight_and_usage_that_is_missing_costs_the_most(tmp_path):
    def slow(call):
        return [0.05, answer(call, usage=None)]

    with Served(slow) as server:
        limits = Limits(in_flight=(1, 4, 4))
        found, ledger = asked(server, tmp_path / "s", texts_per_request=1, limits=limits)
        assert found.missing == 0
        assert server.most_at_once > 1
        assert ledger.confirmed >= server.cost


def test_lengths_that_differ_between_requests_are_refused(tmp_path):
    def grows(call):
        rows = [{"index": 0, "embedding": [0.5] * (len(server.asked) + 1)}]
        return [http({"data": rows, "usage": {"prompt_tokens": 3, "total_tokens": 3}})]

    with Served(grows) as server, pytest.raises(ValueError, match=r"any gave vectors of \[2, 3\] numbers"):
        asked(server, tmp_path / "s", TEXTS[:2], texts_per_request=1)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a", " "], {}, "text 1 is empty"),
        (["a"], {"texts_per_request": 0}, "texts_per_request is 0"),
        (["a"], {"dimensions": 0}, "dimensions is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(tmp_path, texts, options, message):
    with Served() as server:
        with pytest.raises(ValueError, match=message):
            asked(server, tmp_path / "s", texts, **options)
        assert not server.asked


def test_stored_vectors_that_do_not_fit_their_request_are_refused(tmp_path):
    with Served() as server:
        asked(server, tmp_path / "s", TEXTS[:3])
        with Store.open(tmp_path / "s") as store:
            with store.transaction() as connection:
                connection.execute("UPDATE answers SET content = ?", (base64.b64encode(bytes(16)).decode(),))
            with pytest.raises(StoreError, match="has 4 numbers for 3 texts"):
                stored_vectors(store, Endpoint(server.url, "any"))


def body(*rows, **more):
    return json.dumps({"data": list(rows)} | more).encode()


def test_vectors_are_read_as_lists_and_as_base64():
    code = base64.b64encode(np.array([0.5, -1.0], "<f4").tobytes()).decode()
    raw = body({"index": 1, "embedding": code}, {"index": 0, "embedding": [1, 2.5]}, usage={"prompt_tokens": 7})
    found = parse_embeddings(raw, 2)
    numbers = np.frombuffer(base64.b64decode(found.content), "<f4").reshape(2, 2)
    np.testing.assert_array_equal(numbers, [[1, 2.5], [0.5, -1]])
    assert (found.usage.prompt, found.usage.completion) == (7, 0)
    # A server that sends no index sends the texts' order.
    assert parse_embeddings(body({"embedding": [1.0]}, {"embedding": [2.0]}), 2).content


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "without vectors"),
        (b"", "without vectors"),
        (body({"embedding": [1.0]}), "1 vectors; expected 2"),
        (body({"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}), "index 0; expected 0 to 1"),
        (body({"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}), "index 2"),
        (body({"index": True, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}), "index True"),
        (body({"embedding": [1.0]}, {"embedding": [1.0, 2.0]}), "several lengths"),
        (body({"embedding": [1.0]}, {"embedding": []}), "vector 1 is no list of finite numbers"),
        (body({"embedding": [1.0]}, {"embedding": [1e39]}), "vector 1 is no list"),
        (body({"embedding": [1.0]}, {"embedding": [10**400]}), "vector 1 is no list"),
        (body({"embedding": [1.0]}, {"embedding": ["1"]}), "vector 1 is no list"),
        (body({"embedding": [1.0]}, {"embedding": "!"}), "vector 1 is no list"),
        (body({"embedding": [1.0]}, 3), "index None"),
    ],
)
def test_what_is_no_answer_is_said(raw, message):
    assert message in parse_embeddings(raw, 2)
