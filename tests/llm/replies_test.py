"""Replies that are malformed, incomplete, refused or from another model: named, billed and asked again at most once."""

import dataclasses
from decimal import Decimal

import pytest

from tests.helpers.fault_server import (
    completion,
    http,
)
from tests.helpers.llm_questions import PRICE, run
from tests.helpers.wire_faults import assert_bills_agree, on_first_arrival, worst_cost


def test_a_mixture_of_fingerprints_is_noticed(tmp_path):
    report, _, _, _ = run(
        tmp_path, lambda c: [http(completion(c, system_fingerprint=f"fp_{c.number % 2}"))], 4, model="test-model"
    )
    assert any("more than one model answered" in text for text in report.warnings)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>busy</html>",
        b"",
        b'{"choices": [{"mess',
        b"{}",
        b"[]",
        b"null",
        b'{"error": {"message": "no"}}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": {"0": 1}}',
        b"[" * 200_000,
        b"\xff\xfe{}",
        b" " * 3_000_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_an_answer_that_is_none_has_a_name_and_is_tried_again(tmp_path, raw):
    report, ledger, server, _ = run(tmp_path, on_first_arrival(http(raw, headers={"content-type": "text/html"})), 2)
    assert report.statuses == {"ok": 2}
    assert ledger.possible > 0
    assert ledger.confirmed == server.cost
    assert len(server.calls) == 4


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": -5, "completion_tokens": 3},
        {"prompt_tokens": "7", "completion_tokens": 3},
        {"prompt_tokens": 10**400, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {},
    ],
    ids=["none", "negative", "text", "huge", "bool", "empty"],
)
def test_an_answer_without_a_usable_count_costs_the_worst(tmp_path, usage):
    def behave(call):
        bill = list(call.server.bill)
        whole = completion(call, usage=usage)
        call.server.bill[:] = bill
        return [http(whole)]

    _, ledger, server, parsed = run(tmp_path, behave, 1)
    assert ledger.confirmed == worst_cost(server)
    assert parsed[0].status == "ok"


def test_null_content_is_asked_once_more_and_then_invalid(tmp_path):
    report, ledger, server, _ = run(tmp_path, lambda c: [http(completion(c, message={"content": None}))], 3)
    assert report.statuses == {"invalid": 3}
    assert len(server.calls) == 6
    assert report.missing == [0, 1, 2] or sorted(report.missing) == [0, 1, 2]
    assert_bills_agree(ledger, server)


def test_another_model_and_tier_are_noticed_and_priced_by_the_tier(tmp_path):
    price = dataclasses.replace(PRICE, tier_factors={"flex": Decimal("0.5")})
    report, ledger, server, _ = run(
        tmp_path, lambda c: [http(completion(c, model="other", service_tier="flex"))], 4, price=price
    )
    assert ledger.confirmed == server.cost / 2
    assert any("answered by other" in text for text in report.warnings)
    assert any("flex" in text for text in report.warnings)


@pytest.mark.parametrize(
    ("finish", "content", "message", "status", "hits"),
    [
        ("length", '{"ranking": ["C01", "C02"', {}, "unusable", 1),
        ("content_filter", "", {}, "refused", 1),
        ("stop", None, {"content": None, "refusal": "I cannot"}, "refused", 1),
        ("elsewhere", None, {}, "ok", 1),
        ("stop", "<think>endless", {}, "invalid", 2),
        ("stop", "I will not rank.", {}, "invalid", 2),
    ],
)
def test_bad_endings_are_billed_and_asked_again_once_at_most(tmp_path, finish, content, message, status, hits):
    report, ledger, server, _ = run(
        tmp_path, lambda c: [http(completion(c, content, finish=finish, message=message))], 1
    )
    assert report.statuses == {status: 1}
    assert len(server.calls) == hits
    assert_bills_agree(ledger, server)
