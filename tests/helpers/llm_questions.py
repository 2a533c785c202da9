"""A small catalogue, questions about it, and a client for a server on this machine."""

import asyncio
from decimal import Decimal

from alkd_jax.llm import prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import COMPLETION, PROMPT, FaultServer, faultless

PRICE = Price(Decimal(PROMPT) / 10**6, Decimal(COMPLETION) / 10**6)
TITLES = ("", *(f"Title {n}: Kind {n % 7}" for n in range(1, 301)))
QUICK = {"connect_s": 200.0, "total_s": 400.0, "backoff_s": 0.02}
"""Limits with short pauses between attempts and long time limits, so that no test depends on the machine's load."""


def question(number, *, template=prompts.MOVIES, num_candidates=50, titles=TITLES, seed=None):
    """The question about session `number`: three items of history, and candidates that are not among them."""
    history = tuple(1 + (number * 7 + n) % 300 for n in range(3))
    others = [item for item in range(1, len(titles)) if item not in history]
    first = number * 13 % 200
    return prompts.ranking_question(
        prompts.RankingPrompt(number, history, tuple(others[first : first + num_candidates])),
        template,
        titles,
        # Sessions repeat after 600; another order of labels makes another question of the same.
        seed=number // 600 if seed is None else seed,
    )


def questions(number):
    return [question(n) for n in range(number)]


def client(server, store, *, usd="10", price=PRICE, limits=None, **options):
    url = server if isinstance(server, str) else server.url
    endpoint_options = {
        name: options.pop(name) for name in ("max_output_tokens", "temperature", "extra_body") if name in options
    }
    return Client(
        Endpoint(url, options.pop("model", "test-model"), **endpoint_options),
        store,
        price=price,
        budget=options.pop("budget", None) or Budget(usd=Decimal(usd)),
        limits=Limits(**(QUICK | (limits or {}))),
        **options,
    )


def run(folder, behave=faultless, num=20, *, pilot=0, **options):
    """Asks `num` questions of a server with that behavior.

    Returns:
        The usage report, the ledger, the server, and session id → parsed answer.
    """
    queries = questions(num) if isinstance(num, int) else num
    with FaultServer(behave) as server, Store.open(folder / "store.sqlite") as store:
        llm_client = client(server, store, **options)
        report = asyncio.run(collect(llm_client, queries, pilot=pilot))
        store.verify()
        parsed = {q.session_id: answer for q, _, answer in llm_client.parsed_answers(queries)}
        return report, store.ledger, server, parsed
