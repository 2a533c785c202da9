"""What a server refuses of a request is left out or replaced, said aloud, and remembered in the store."""

import pytest

from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import FaultServer, faultless
from tests.helpers.llm_questions import QUICK, client, question, questions
from tests.helpers.providers import NO_TEMPERATURE, refusing

NO_SEED = (lambda body: "seed" in body, "Unrecognized request argument supplied: seed", 400, {})
NEW_BOUND = (
    lambda body: "max_completion_tokens" in body,
    "Extra inputs are not permitted",
    422,
    {"details": [{"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]},
)
NO_SCHEMA = (
    lambda body: body.get("response_format", {}).get("type") == "json_schema",
    "This response_format type is unavailable now",
    400,
    {"type": "invalid_request_error"},
)
NO_FORMAT = (
    lambda body: "response_format" in body,
    "'response_format' is not supported by this model",
    404,
    {},
)
NO_GRAMMAR = (lambda body: "response_format" in body, "Failed to parse grammar", 500, {})


def has_system(body):
    return any(message["role"] != "user" for message in body["messages"])


NO_SYSTEM = [
    (has_system, "System role not supported", 400, {}),
    (has_system, "Template error: invalid operation: System role not supported (in <string>:1)", 422, {}),
    (has_system, "Conversation roles must alternate user/assistant/user/assistant/...", 400, {}),
    (has_system, "Developer instruction is not enabled for models/gemma-3-27b-it", 400, {"status": "INVALID_ARGUMENT"}),
    (
        has_system,
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        400,
        {"param": "messages[0].role", "code": "unsupported_value"},
    ),
    (has_system, "This model doesn't support system messages. Try again without a system message.", 400, {}),
]


def ask(folder, behave, number=12, **options):
    with FaultServer(behave) as server, Store.open(folder / "s") as store:
        llm_client = client(server, store, **options)
        report = collect_sync(llm_client, questions(number), pilot=0)
        again = collect_sync(client(server, store, **options), questions(number + 3), pilot=0)
        store.verify()
        return report, again, server, store.ledger


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ([NO_TEMPERATURE], 1),
        ([NO_SEED], 1),
        ([NEW_BOUND], 1),
        ([NO_SCHEMA], 1),
        ([NO_FORMAT], 2),
        *(([rule], 1) for rule in NO_SYSTEM),
        ([NO_SCHEMA, NO_SEED, NEW_BOUND, NO_TEMPERATURE, NO_SYSTEM[0]], 5),
    ],
    ids=["temperature", "seed", "bound", "schema", "format", *[f"system {n}" for n in range(len(NO_SYSTEM))], "all"],
)
def test_a_refused_field_is_sent_once_and_never_again(tmp_path, rules, refused):
    report, again, server, ledger = ask(tmp_path, refusing(faultless, *rules))
    assert (report.statuses, report.failed) == ({"ok": 12}, {})
    assert len(report.warnings) == refused
    assert all("the server refuses" in text for text in report.warnings)
    assert len(server.calls) == 12 + refused + 3
    # A second run asks in the adapted form at once, and finds what was asked in it.
    assert (again.cached, again.requests, again.warnings) == (12, 3, [])
    assert (ledger.confirmed, ledger.possible) == (server.cost, 0)


def test_an_error_of_the_server_that_names_a_field_is_booked_and_mended(tmp_path):
    report, _, server, ledger = ask(tmp_path, refusing(faultless, NO_GRAMMAR))
    assert report.statuses == {"ok": 12}
    assert ledger.possible > 0
    assert ledger.confirmed == server.cost


def test_a_field_refused_while_many_are_in_flight_is_left_out_for_all(tmp_path):
    """A gateway may send later questions to another server, which takes less."""

    def behave(call):
        return [0.05, *(refusing(faultless, NO_SEED)(call) if call.number > 3 else faultless(call))]

    report, _, server, ledger = ask(tmp_path, behave, 30)
    assert (report.statuses, report.failed) == ({"ok": 30}, {})
    assert ledger.confirmed == server.cost


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ((lambda body: True, "max_completion_tokens is too small: expected at least 1000", 400, {}), 1),
        ((lambda body: True, "Unsupported parameter: 'max_completion_tokens' or 'max_tokens'", 400, {}), 2),
    ],
)
def test_a_bound_that_the_server_does_not_take_at_all_ends_the_run(tmp_path, rule, sent):
    report, _, server, _ = ask(tmp_path, refusing(faultless, rule))
    assert "max_completion_tokens" in report.stopped
    assert len(server.calls) <= sent + 2


def test_instructions_stand_first_in_the_message_of_a_model_without_a_system_role(tmp_path):
    plain, merged = Endpoint("http://127.0.0.1:1/v1", "m"), Endpoint("http://127.0.0.1:1/v1", "m", system_role=None)
    system, user = (message["content"] for message in plain.body(question(1))["messages"])
    assert merged.body(question(1))["messages"] == [{"role": "user", "content": f"{system}\n\n{user}"}]
    assert merged.prompt_hash(question(1)) != plain.prompt_hash(question(1))


def test_messages_that_are_refused_without_a_system_role_too_fail_and_are_not_sent_again(tmp_path):
    rule = (lambda body: True, "Conversation roles must alternate user/assistant", 400, {})
    report, again, server, ledger = ask(tmp_path, refusing(faultless, rule))
    assert len(report.failed) == 12
    assert all("roles must alternate" in error for error in report.failed.values())
    assert len(server.calls) == 1 + 12 + again.requests
    assert (ledger.confirmed, ledger.possible) == (0, 0)


def test_further_fields_are_sent_and_enter_the_key(tmp_path):
    plain = Endpoint("http://127.0.0.1:1/v1", "m")
    more = Endpoint("http://127.0.0.1:1/v1", "m", reasoning_effort="none", extra_body='{"top_k": 1, "think": false}')
    body = more.body(question(1))
    assert (body["reasoning_effort"], body["top_k"], body["think"]) == ("none", 1, False)
    assert more.request(question(1))["key"] != plain.request(question(1))["key"]
    assert more.prompt_hash(question(1)) != plain.prompt_hash(question(1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"n": 5}', "extra_body has n"),
        ('{"model": "x"}', "extra_body has model"),
        ('{"max_tokens": 99999}', "extra_body has max_tokens"),
        ("[1]", "expected a JSON object"),
        ("{", "expected a JSON object"),
    ],
)
def test_a_further_field_that_could_change_the_cost_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Endpoint("http://127.0.0.1:1/v1", "m", extra_body=text)


def test_an_address_with_a_query_is_sent_with_it_and_a_key_in_it_is_refused(tmp_path):
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        llm_client = client(f"{server.url}?api-version=2026-10-01", store)
        assert collect_sync(llm_client, questions(1), pilot=0).statuses == {"ok": 1}
        assert server.calls[0].path == "/v1/chat/completions?api-version=2026-10-01"
    with pytest.raises(ValueError, match="subscription-key in its query"):
        Endpoint("https://example.org/v1?subscription-key=abc", "m")
    assert Endpoint("http://0.0.0.0:8000/v1", "m").is_local
    assert QUICK["total_s"] > 0
