"""The kinds of answers, bills, stops and stores that real providers have sent, each on a socket server with a bill.

The numbers are those of a list of kinds: 1 to 6 are answers, 7 to 12 money, 13 to 19 stops and limits, 23 the store.
What commands do about 9, 12, 16, 18 and 20 to 22 is in `tests/experiments/provider_groups_test.py`. All 23 groups:

    python -m pytest -v -k provider_groups tests/llm tests/experiments
"""

import asyncio
import json
import random
import sqlite3
import struct

import pytest

from alkd_jax.llm.batch import Batches
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from tests.helpers import answer_styles
from tests.helpers.batch_api import BatchApi, answered, faulty
from tests.helpers.fault_server import FaultServer, completion, error, faultless, http, labels_of, ranked, titles_of
from tests.helpers.llm_questions import TITLES, client, question, questions, run
from tests.helpers.providers import (
    LIST_PRICE,
    NO_TEMPERATURE,
    OneSlot,
    Provider,
    closing_idle_connections,
    refusing,
    shapes,
)

HOSTILE = ("", *answer_styles.HOSTILE, *(f"Title {n}" for n in range(1, 251)))


def read(folder, write, kinds, *, titles=TITLES):
    """Asks one question for each kind, answered by `write(call, kind, labels in the true order)`.

    Returns:
        The kinds whose answers were read in another order, and those that were not read. The bill must be booked.
    """
    kinds = list(kinds)
    asked = [question(n, titles=titles) for n in range(len(kinds))]
    number_of = {q.messages[-1]["content"]: n for n, q in enumerate(asked)}

    def behave(call):
        kind = kinds[number_of[call.body["messages"][-1]["content"]]]
        body = write(call, kind, ranked(call.body)["ranking"])
        return [http(body if isinstance(body, bytes) else json.dumps(body).encode())]

    folder.mkdir(exist_ok=True)
    _, ledger, server, parsed = run(folder, behave, asked, min_valid=3)
    assert (ledger.confirmed, ledger.possible, ledger.open) == (server.cost, 0, 0)
    wrong, lost = [], []
    for kind, q in zip(kinds, asked, strict=True):
        true = tuple(q.candidates[int(label[1:])] for label in ranked({"messages": q.messages})["ranking"])
        if parsed[q.session_id].items != true:
            (wrong if parsed[q.session_id].items else lost).append(kind)
    return wrong, lost


def as_asked(labels):
    return json.dumps({"ranking": labels})


def in_text(form):
    """Writes a completion whose content is `form(kind, labels, titles by label)`."""
    return lambda call, kind, labels: completion(call, form(kind, labels, titles_of(call.body)))


REASONING = {
    "unclosed": "<think>\n{thoughts}\n\n{answer}",
    "twice": "<think>{thoughts}</think>\n<think>{thoughts}</think>\n{answer}",
    "[THINK]": "[THINK]{thoughts}[/THINK]{answer}",
    "thought": "<thought>\n{thoughts}\n</thought>\n\n{answer}",
    "closed only": "{thoughts}\n</think>\n{answer}",
    "channels": "<|channel|>analysis<|message|>{thoughts}<|end|><|start|>assistant<|channel|>final<|message|>{answer}",
    "candidates first": "{candidates}\n\n{answer}",
    "schema first": "{schema}\n{answer}",
    "no tags": "{thoughts}\n\nFinal answer:\n{answer}",
}


def test_group_01_reasoning_in_the_content(tmp_path):
    def form(kind, labels, titles):
        drafted = " ".join(f"'{label}'" for label in sorted(titles))
        lines = "\n".join(json.dumps({"id": label, "title": titles[label]}) for label in sorted(titles))
        schema = {"type": "object", "properties": {"ranking": {"type": "array", "items": {"enum": sorted(titles)}}}}
        return REASONING[kind[0]].format(
            thoughts=f"Candidates are {drafted}. First idea: {as_asked(labels[::-1])}. Hmm, {labels[7]} first?",
            candidates=lines,
            schema=json.dumps(schema),
            answer=as_asked(labels),
        )

    wrong, lost = read(tmp_path, in_text(form), [(name, n) for name in REASONING for n in range(2)])
    assert wrong == []
    # An answer behind reasoning without an end may be a draft.
    assert {name for name, _ in lost} <= {"unclosed"}


def test_group_02_titles_that_quote_labels(tmp_path):
    kinds = [f"{style} {n}" for style in ("numbered with titles", "numbered, titles first", "#n") for n in range(5)]

    def form(kind, labels, titles):
        entries = [(label, titles[label]) for label in labels]
        return answer_styles.TEXT_STYLES[kind[:-2]](entries, random.Random(0))

    wrong, lost = read(tmp_path, in_text(form), kinds, titles=HOSTILE)
    assert (wrong, len(lost) <= 1) == ([], True)


def shorter(label):
    return f"C{int(label[1:])}"


SPELLINGS = {
    "C7": lambda o, t: json.dumps({"ranking": [shorter(label) for label in o]}),
    "C-07": lambda o, t: json.dumps({"ranking": [f"C-{label[1:]}" for label in o]}),
    "C 07": lambda o, t: json.dumps({"ranking": [f"C {label[1:]}" for label in o]}),
    "Candidate C07": lambda o, t: json.dumps({"ranking": [f"Candidate {label}" for label in o]}),
    "id=C07": lambda o, t: json.dumps({"ranking": [f"id={label}" for label in o]}),
    "title (C07)": lambda o, t: json.dumps({"ranking": [f"{t[label]} ({label})" for label in o]}),
    "1. C07 in JSON": lambda o, t: json.dumps({"ranking": [f"{n}. {label}" for n, label in enumerate(o, 1)]}),
    "label": lambda o, t: json.dumps({"ranking": [{"label": label} for label in o]}),
    "candidate_id": lambda o, t: json.dumps({"ranking": [{"candidate_id": label} for label in o]}),
    "one string": lambda o, t: json.dumps({"ranking": ", ".join(o)}),
    "in a list": lambda o, t: json.dumps([{"ranking": o}]),
    "Ranking:": lambda o, t: "Ranking: " + ", ".join(o),
    "intro and commas": lambda o, t: "Here are my picks:\n" + ", ".join(o),
    "table": lambda o, t: "| Rank | ID |\n|---|---|\n" + "\n".join(f"| {n} | {a} |" for n, a in enumerate(o, 1)),
    "CSV": lambda o, t: "rank,id\n" + "\n".join(f"{n},{label}" for n, label in enumerate(o, 1)),
    "arrows": lambda o, t: " -> ".join(o),
    "spaces": lambda o, t: " ".join(o),
    "bold": lambda o, t: "\n".join(f"**{n}. {label}**" for n, label in enumerate(o, 1)),
    "Rank 1:": lambda o, t: "\n".join(f"Rank {n}: {label}" for n, label in enumerate(o, 1)),
    "#1:": lambda o, t: "\n".join(f"#{n}: {label}" for n, label in enumerate(o, 1)),
    "two fences": lambda o, t: f"```\n{as_asked(o)}\n```\nThe same as text:\n```text\n{', '.join(o)}\n```",
    "smart quotes": lambda o, t: "{“ranking”: [" + ", ".join(f"“{label}”" for label in o) + "]}",
}


def test_group_03_spellings_that_a_person_accepts(tmp_path):
    assert read(tmp_path, in_text(lambda kind, o, t: SPELLINGS[kind](o, t)), SPELLINGS) == ([], [])


def test_group_04_ranks_that_are_given(tmp_path):
    def form(kind, labels, titles):
        ranks = dict(sorted((label, n) for n, label in enumerate(labels, 1)))
        if kind == "map":
            return json.dumps(ranks)
        if kind == "objects":
            return json.dumps({"ranking": [{"id": label, "rank": n} for label, n in ranks.items()]})
        return "| id | rank |\n|---|---|\n" + "\n".join(f"| {label} | {n} |" for label, n in ranks.items())

    assert read(tmp_path, in_text(form), ["map", "objects", "table"]) == ([], [])


def test_group_05_the_answer_in_another_place(tmp_path):
    places = {
        "parts": lambda o: {"content": [{"type": "text", "text": as_asked(o)}]},
        "object": lambda o: {"content": {"ranking": o}},
        "call": lambda o: {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": as_asked(o)}}]},
        "reasoning": lambda o: {"content": "", "reasoning_content": as_asked(o)},
    }
    assert read(tmp_path, lambda call, kind, o: completion(call, message=places[kind](o)), places) == ([], [])


def events(whole, text):
    deltas = [{"role": "assistant"}, {"content": text[:30]}, {"content": text[30:]}]
    sent = [{"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    sent.append({"choices": [], "usage": whole["usage"]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in sent) + "data: [DONE]\n\n"


def zstd(data):
    """A frame of Zstandard with one block that is not compressed."""
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


def test_group_06_wrapped_and_encoded_bodies(tmp_path):
    bodies = {
        "byte order mark": lambda whole, text: "\ufeff" + json.dumps(whole),
        "comments": lambda whole, text: ": PROCESSING\n\n: PROCESSING\n" + json.dumps(whole),
        "events": events,
        "trailer": lambda whole, text: json.dumps(whole) + "\n<!-- 12 ms -->",
    }

    def write(call, kind, labels):
        return bodies[kind](completion(call, as_asked(labels)), as_asked(labels)).encode()

    assert read(tmp_path / "read", write, bodies) == ([], [])
    for name, kind, headers, encode in (
        ("html", "text/html", {}, lambda body: b"<html>busy</html>"),
        ("zstd", "application/json, encoded as zstd", {"content-encoding": "zstd"}, zstd),
    ):

        def unreadable(call, kind=kind, headers=headers, encode=encode):
            body = encode(json.dumps(completion(call)).encode())
            return [http(body, headers={"content-type": kind.partition(",")[0]} | headers)]

        (tmp_path / name).mkdir()
        report, ledger, server, _ = run(tmp_path / name, unreadable, 40)
        assert f"that is no JSON ({kind})" in report.stopped
        assert (len(server.calls) <= 9, ledger.confirmed) == (True, 0)
        assert server.cost <= ledger.possible


def booked(folder, provider, *, num=6, **options):
    """Asks a provider; returns what was booked, what it has billed, and the report."""
    folder.mkdir(exist_ok=True)
    report, ledger, _, _ = run(folder, provider, num, price=LIST_PRICE, max_output_tokens=1024, **options)
    assert (ledger.possible, ledger.open) == (0, 0)
    return ledger.confirmed, provider.billed, report


def counts(provider, **more):
    return {"prompt_tokens": provider.prompt, "completion_tokens": provider.completion} | more


def test_group_07_reasoning_that_is_billed_apart(tmp_path):
    for number, usage in enumerate((
        lambda p: counts(p, total_tokens=p.prompt + p.completion + p.reasoning),
        lambda p: counts(p, completion_tokens_details={"reasoning_tokens": p.reasoning}),
        # Its total counts no reasoning, which a completion of fewer tokens cannot include.
        lambda p: counts(p, total_tokens=p.prompt + 90, completion_tokens_details={"reasoning_tokens": p.reasoning}),
        lambda p: counts(p, total_tokens=p.prompt + 90, reasoning_tokens=p.reasoning),
    )):  # fmt: skip
        paid, billed, report = booked(tmp_path / str(number), Provider(usage, reasoning=700))
        assert (paid, report.statuses) == (billed, {"ok": 6})
    provider = Provider(lambda p: counts(p, total_tokens=p.prompt + p.completion + p.reasoning), reasoning=9000)
    paid, billed, report = booked(tmp_path / "cap", provider, usd="1")
    assert (paid == billed, "no cap can be guaranteed" in report.stopped) == (True, True)


def test_group_08_zeros_and_dear_tiers(tmp_path):
    def odd(name, value):
        return lambda p: counts(p) | {name: value}

    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    unusable = [lambda _: zeros, lambda _: None, odd("prompt_tokens", -3000), odd("completion_tokens", "90"),
                odd("completion_tokens", 0), odd("prompt_tokens", 3e3), odd("prompt_tokens", True)]  # fmt: skip
    for number, usage in enumerate(unusable):
        paid, billed, _ = booked(tmp_path / str(number), Provider(usage), num=2)
        assert paid >= billed > 0
    told = Provider(counts, factor=1.75, more={"service_tier": "priority"})
    assert booked(tmp_path / "told", told)[0] == told.billed
    untold = Provider(counts, factor=1.75)
    assert booked(tmp_path / "untold", untold, extra_body='{"service_tier": "priority"}')[0] == untold.billed
    charged = Provider(lambda p: counts(p, cost="0.0016128"), factor=1.2)
    assert booked(tmp_path / "charged", charged)[0] >= charged.billed


def test_group_09_batches_that_end_badly(tmp_path):
    api = BatchApi()
    half = {"request_counts": {"completed": 4, "failed": 0, "total": 4}}

    def refuse(call):
        if (call.method, call.path.split("?")[0]) == ("POST", "/v1/batches") and not api.created:
            return [error(400, "invalid_request_error", message="no batches for this model")]
        return api(call)

    with FaultServer(routes=refuse) as server, Store.open(tmp_path / "s") as store:
        batches = Batches(client(server, store), shard_requests=4)
        with pytest.raises(ConnectionError, match="no batches for this model"):
            asyncio.run(batches.submit(questions(4)))
        assert (store.ledger.committed, store.keys_in_batches()) == (0, set())
        api.created, api.outcome = 1, faulty("no such model", "invalid_model")
        asyncio.run(batches.submit(questions(4)))
        asyncio.run(batches.wait(first_s=0.01))
        assert asyncio.run(batches.ingest()) == {"not done": 4}
        with pytest.raises(ValueError, match="no such model"):
            asyncio.run(batches.submit(questions(4)))
        api.outcome = lambda lines, call: ("completed", [answered(line, call) for line in lines][:2], None, half)
        asyncio.run(batches.submit(questions(4), again=True))
        asyncio.run(batches.wait(first_s=0.01))
        assert asyncio.run(batches.ingest()) == {"answers": 2, "lost": 2}
        assert store.ledger.possible > 0
        assert asyncio.run(batches.submit(questions(10))) > 0
        assert asyncio.run(batches.cancel()) > 0
        asyncio.run(batches.ingest())
        assert (store.ledger.open, store.keys_in_batches()) == (0, set())
        assert sum(p * 400_000 + c * 1_600_000 for _, p, c in server.bill) / 2 <= store.ledger.committed


def test_group_10_idle_connections_that_the_server_closes(tmp_path):
    behave = closing_idle_connections(0.01)
    report, ledger, server, _ = run(tmp_path, behave, 30, limits={"in_flight": (1, 4, 4)})
    assert (report.statuses, len(server.calls), ledger.possible) == ({"ok": 30}, 30, 0)
    assert ledger.confirmed == server.cost


def test_group_11_a_larger_bound_of_the_output(tmp_path):
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        for bound in (256, 512, 4096, 256):
            report = collect_sync(client(server, store, max_output_tokens=bound), questions(5), pilot=0)
            assert (report.statuses, len(server.calls)) == ({"ok": 5}, 5)
        assert store.ledger.confirmed == server.cost


def test_group_12_a_free_server_without_a_cap(tmp_path):
    report, ledger, _, _ = run(tmp_path, faultless, 5, price=Price.free(), budget=Budget())
    assert (report.statuses, ledger.committed, ledger.requests) == ({"ok": 5}, 0, 5)


def test_group_13_no_credit_in_any_words(tmp_path):
    replies = [
        error(402, "payment_required"),
        error(429, "x", message="You exceeded your current quota, please check your plan and billing details."),
        shapes("Insufficient Balance", "x")["beside no choices"](402),
    ]
    for number, reply in enumerate(replies):
        (tmp_path / str(number)).mkdir()
        report, ledger, server, _ = run(tmp_path / str(number), lambda c, reply=reply: [reply], 40)
        assert (len(server.calls), ledger.committed, bool(report.stopped)) == (1, 0, True), reply
    report, _, server, _ = run(tmp_path, lambda c: [http({"choices": None})], 40)
    assert (len(server.calls) <= 9, bool(report.stopped)) == (True, True)


@pytest.mark.parametrize("status", [403, 429])
def test_group_14_faults_of_one_question(tmp_path, status):
    text = {403: "Your input was flagged by moderation", 429: "Request too large: Limit 100, Requested 200"}[status]
    refuse = error(status, "x", message=text)
    report, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number == 5 else faultless(c), 20)
    assert (report.statuses, len(report.failed), report.stopped) == ({"ok": 19}, 1, None)
    assert (ledger.confirmed, ledger.possible) == (server.cost, 0)


def test_group_15_errors_that_are_lists_and_texts(tmp_path):
    for number, shape in enumerate(("list", "bare list", "bare text")):
        refuse = shapes("odd title in line 3", "x")[shape](400)
        (tmp_path / str(number)).mkdir()
        report, _, _, _ = run(tmp_path / str(number), lambda c, r=refuse: [r] if c.number == 2 else faultless(c), 5)
        assert ["odd title in line 3" in text for text in report.failed.values()] == [True], shape


def test_group_16_fields_that_a_provider_refuses(tmp_path):
    refused = [(lambda body: "seed" in body, "Unrecognized request argument supplied: seed", 400, {}), NO_TEMPERATURE]
    refused.append((
        lambda body: "max_completion_tokens" in body, "Extra inputs are not permitted: max_completion_tokens", 422, {}
    ))  # fmt: skip
    refused.append((lambda body: "response_format" in body, "'response_format' is not supported", 404, {}))
    report, ledger, server, _ = run(tmp_path, refusing(faultless, *refused), 12)
    assert (report.statuses, len(server.calls)) == ({"ok": 12}, 12 + 5)
    assert all(any(name in text for text in report.warnings) for name in ("seed", "temperature", "response_format"))
    assert (ledger.confirmed, ledger.possible) == (server.cost, 0)


def test_group_17_an_answer_that_takes_its_time(tmp_path):
    report, ledger, server, _ = run(tmp_path, lambda c: [1.0, *faultless(c)], 1, limits={"total_s": 600.0})
    assert (report.statuses, len(server.calls), ledger.possible) == ({"ok": 1}, 1, 0)
    connection = Connection(Endpoint(server.url, "m"), Limits(total_s=600.0))
    # Nothing but the limit of the whole request ends the wait for the first byte.
    assert connection.sdk.timeout.read is None


def test_group_18_a_server_with_one_slot(tmp_path):
    limits = {"in_flight": (1, 4, 64), "total_s": 1.2}
    report, ledger, server, _ = run(tmp_path, OneSlot(0.1), 16, limits=limits)
    assert (report.statuses, len(server.calls) < 16 + 8) == ({"ok": 16}, True)
    assert server.cost <= ledger.confirmed + ledger.possible


def test_group_19_prompts_cut_to_the_context(tmp_path):
    usage = {"prompt_tokens": 256, "completion_tokens": 90}
    report, _, _, _ = run(tmp_path, lambda c: [http(completion(c, usage=usage))], 3)
    assert any("cuts prompts to its context" in text for text in report.warnings)


@pytest.mark.parametrize("edit", ["answers SET items = '[999999, -5]'", "attempts SET cost = -1000000"])
def test_group_23_a_store_edited_by_hand(tmp_path, edit):
    _, _, server, _ = run(tmp_path, faultless, 5)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute(f"UPDATE {edit} WHERE rowid = 3")
    connection.close()
    with pytest.raises(StoreError, match="row 3"), Store.open(tmp_path / "store.sqlite") as store:
        collect_sync(client(server, store), questions(5))
    assert len(server.calls) == 5
    assert len(labels_of(server.calls[0].body)) == 50
