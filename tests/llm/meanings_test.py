"""An error ends the question, the run, or the moment by what it says, whatever its status and the shape of its body."""

import json

import pytest

from alkd_jax.llm import refusals
from tests.helpers.fault_server import error, faultless, http
from tests.helpers.llm_questions import run
from tests.helpers.providers import shapes

BODY = {
    "model": "m",
    "messages": [],
    "max_completion_tokens": 256,
    "temperature": 0,
    "seed": 0,
    "response_format": {"type": "json_schema"},
}

RUN = [
    (402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits"),
    (402, "Payment Required"),
    (402, "Insufficient Balance"),
    (400, "Your credit balance is too low to access the API. Please go to Plans & Billing to purchase credits."),
    (429, "You exceeded your current quota, please check your plan and billing details."),
    (403, "Your account has run out of credits"),
    (429, "insufficient_quota"),
    (400, "Budget has been exceeded! Current cost: 0.4, Max budget: 0.3"),
    (429, "You have reached your monthly spending limit"),
    (401, "Incorrect API key provided"),
    (400, "API key not valid. Please pass a valid API key."),
    (403, "Country, region, or territory not supported"),
    (404, "The model `gpt-x` does not exist or you do not have access to it."),
    (400, "The model gpt-4-turbo has been deprecated"),
    (404, 'model "llama9" not found, try pulling it first'),
    (500, "Your organization has been disabled"),
]
QUESTION = [
    (400, "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."),
    (413, "whatever"),
    (429, "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 45000."),
    (400, "the request exceeds the available context size, try increasing it"),
    (400, "'max_tokens' is too large: 256. This model's maximum context length is 2048 tokens"),
    (403, "Your chosen model requires moderation and your input was flagged"),
    (400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."),
    (403, "Input data may contain inappropriate content."),
    (422, "The prompt was blocked by our safety system"),
]
MOMENT = [
    (429, "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000."),
    (429, "Rate limit reached for requests. Please add a payment method to increase your rate limit."),
    (429, "Resource exhausted. Please try again later."),
    (429, "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'"),
    (403, "Rate limit exceeded for your project"),
    (503, "Loading model"),
]


def outcome(status, text, shape="object", code="some_error"):
    status, head, raw = split(shapes(text, code)[shape](status))
    return refusals.classify(status, raw, head, body=BODY, now=0.0)


def split(whole):
    """Status, headers and body of an HTTP answer."""
    head, _, raw = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), raw


@pytest.mark.parametrize("shape", shapes("", ""))
@pytest.mark.parametrize(
    ("cases", "expected"), [(RUN, "fatal"), (QUESTION, "bad_request"), (MOMENT, "rate_limited")], ids=str
)
def test_the_words_decide_in_every_shape(cases, expected, shape):
    for status, text in cases:
        reply = outcome(status, text, shape)
        assert (reply.outcome, status, text) == (expected, status, text)
        assert text in reply.error
        assert f"HTTP {200 if shape in IN_ANSWERS else status}" in reply.error
        assert reply.is_charged == (status == 500)


IN_ANSWERS = ("in a 200", "in a choice", "beside no choices")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 6s.", 6),
        ("Please retry in 34.07s.", 34.07),
        ("try again in 20ms", 0.02),
        ("Please try again in 1m30s.", 90),
        ("Retry after 2 minutes", 120),
        ("Wait 1 hour and 5 minutes", 3900),
        ("no wait is named", None),
        ("there were 25 seconds", None),
    ],
)
def test_the_wait_is_read_from_the_words(text, seconds):
    reply = outcome(429, f"Rate limit reached. {text}")
    assert reply.wait == (None if seconds is None else pytest.approx(seconds))


def test_the_wait_is_read_from_details_and_repeated_headers():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]
    quota = {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}
    raw = json.dumps([{"error": quota | {"details": details}}]).encode()
    reply = refusals.classify(429, raw, {}, body=BODY, now=0.0)
    assert (reply.outcome, reply.wait) == ("rate_limited", 34)
    raw = json.dumps(
        {"error": {"message": "slow", "code": 429, "metadata": {"headers": {"Retry-After": "9"}}}}
    ).encode()
    assert refusals.classify(200, raw, {}, body=BODY, now=0.0).wait == 9


def test_what_may_have_been_done_is_charged_and_what_was_refused_is_not():
    for status in (500, 502, 504, 408):
        assert outcome(status, "oops").is_charged
        assert outcome(status, "oops").outcome == "possibly_billed"
        assert outcome(status, "oops", "in a 200").is_charged
    for status in (400, 403, 429, 503):
        assert not outcome(status, "oops").is_charged
        assert not outcome(status, "oops", "in a 200").is_charged
    without = refusals.classify(200, b'{"error": {"message": "oops"}}', {}, body=BODY, now=0.0)
    assert (without.outcome, without.is_charged) == ("possibly_billed", True)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{}", b"7", b'"', b"[" * 9999, b"\xff\xfe", b'{"error": 5}'])
def test_a_body_that_says_nothing_leaves_the_status(raw):
    assert refusals.classify(500, raw, {}, body=BODY, now=0.0).outcome == "possibly_billed"
    assert refusals.classify(429, raw, {}, body=BODY, now=0.0).outcome == "rate_limited"
    assert refusals.classify(401, raw, {}, body=BODY, now=0.0).outcome == "fatal"
    assert refusals.classify(400, raw, {}, body=BODY, now=0.0).outcome == "bad_request"


@pytest.mark.parametrize("shape", ["object", "in a 200", "beside no choices"])
def test_a_run_without_credit_ends_at_its_first_question(tmp_path, shape):
    refuse = shapes("Insufficient credits", "payment")[shape](402)
    report, ledger, server, _ = run(tmp_path, lambda c: [refuse], 40)
    assert "Insufficient credits" in report.stopped
    assert (len(server.calls), ledger.committed, len(report.missing)) == (1, 0, 40)


def test_credit_that_ends_midway_ends_the_run_once(tmp_path):
    refuse = http({"error": {"message": "Insufficient credits", "code": 402}})
    report, ledger, server, _ = run(
        tmp_path, lambda c: [refuse] if c.number >= 10 else faultless(c), 80, limits={"in_flight": (1, 4, 4)}
    )
    assert "Insufficient credits" in report.stopped
    assert len(server.calls) <= 10 + 4
    assert ledger.confirmed == server.cost


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "your input was flagged"),
        (429, "Request too large: Limit 100, Requested 200"),
        (403, "Forbidden"),
        (404, ""),
    ],
)
def test_one_refused_title_ends_neither_the_run_nor_pauses_it(tmp_path, status, text):
    refuse = error(status, "some_error", message=text)
    report, ledger, server, _ = run(tmp_path, lambda c: [refuse] if c.number == 5 else faultless(c), 20)
    assert (report.statuses, len(report.failed), report.stopped) == ({"ok": 19}, 1, None)
    assert (len(server.calls), ledger.confirmed, ledger.possible) == (20, server.cost, 0)


def test_a_refusal_of_the_first_title_only_is_not_the_runs(tmp_path):
    refuse = error(400, "some_error", message="bad characters")
    report, _, server, _ = run(tmp_path, lambda c: [refuse] if c.number == 0 else faultless(c), 20)
    assert (report.statuses, len(report.failed), len(server.calls)) == ({"ok": 19}, 1, 20)


@pytest.mark.parametrize(
    "reply",
    [http({"choices": None}), http({"choices": []}), error(400, "x", message="?"), error(403, "x"), http(b"<html>")],
    ids=["null", "empty", "400", "403", "html"],
)
def test_a_server_that_answers_nothing_is_asked_three_questions_at_most(tmp_path, reply):
    report, _, server, _ = run(tmp_path, lambda c: [reply], 100, pilot=16)
    assert report.stopped
    assert len(server.calls) <= 9
    assert len(report.missing) == 100


def test_a_server_that_forbids_everything_midway_is_left(tmp_path):
    refuse = error(403, "some_error", message="Forbidden")
    report, _, server, _ = run(
        tmp_path, lambda c: [refuse] if c.number >= 10 else faultless(c), 80, limits={"in_flight": (1, 4, 4)}
    )
    assert "Forbidden" in report.stopped
    assert len(server.calls) <= 10 + 5 + 4
