"""Faults of the server that several test modules use, and what the bills must satisfy."""

import json
from collections import Counter

from alkd_jax.llm.endpoint import Endpoint
from tests.helpers.fault_server import (
    Close,
    Reset,
    completion,
    faultless,
    http,
)
from tests.helpers.llm_questions import PRICE, question


def on_first_arrival(*acts):
    """Behaves so at every question's first arrival, and faultlessly afterwards."""
    seen = Counter()

    def behave(call):
        seen[call.digest] += 1
        if seen[call.digest] > 1:
            return faultless(call)
        return [act(call) if callable(act) and not isinstance(act, type) else act for act in acts]

    return behave


def assert_bills_agree(ledger, server):
    assert ledger.confirmed == server.cost
    assert (ledger.open, ledger.reserved, ledger.possible) == (0, 0, 0)


def worst_cost(server):
    request = Endpoint(server.url, "test-model").request(question(0))
    return PRICE.max_cost(request["size"], 256)


def trickle(call):
    yield b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    completion(call)
    while True:
        yield b" "
        yield 0.05


def never_answer(call):
    completion(call)
    return [3600]


def stall_in_head(call):
    completion(call)
    return [b"HTTP/1.1 200 X\r\n", 3600]


def truncate(call):
    body = json.dumps(completion(call)).encode()
    return [http(body[:-40], length=len(body)), Close()]


def reset(call):
    return [http(completion(call))[:-60], 0.02, Reset()]


def close(call):
    completion(call)
    return [Close()]


def end_without_last_chunk(call):
    completion(call)
    return [
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        Close(),
    ]
