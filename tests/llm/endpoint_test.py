"""The endpoint: what the key of an answer depends on, and that the API key is neither sent elsewhere nor written."""

import hashlib
import json
import logging
import pickle
import zlib

import pytest

from alkd_jax.llm import exchange, prompts
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import (
    Close,
    FaultServer,
    completion,
    error,
    http,
    ranked,
)
from tests.helpers.llm_questions import question, run
from tests.helpers.wire_faults import truncate


def test_what_enters_the_answer_enters_the_key():
    base = Endpoint("http://127.0.0.1:1/v1", "m")
    key = base.request(question(1))["key"]
    same = [
        Endpoint("http://127.0.0.1:1/v1/", "m"),
        Endpoint("http://127.0.0.1:1/v1", "m", temperature=0),
        Endpoint("http://127.0.0.1:1/v1", "m", api_key_env="OTHER"),
    ]
    for endpoint in same:
        assert endpoint.request(question(1))["key"] == key
        assert endpoint.prompt_hash(question(1)) == base.prompt_hash(question(1))
    others = [
        base.request(question(1, num_candidates=49)),
        base.request(question(1, template=prompts.MOVIES.with_hints(["Another hint."]))),
        base.request(question(1, titles=("", *(f"Name {n}" for n in range(1, 301))))),
        base.request(question(1, seed=1)),
        Endpoint("http://127.0.0.1:2/v1", "m").request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "n").request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "m", temperature=0.5).request(question(1)),
        Endpoint("http://127.0.0.1:1/v1", "m", seed=1).request(question(1)),
    ]
    assert key not in {request["key"] for request in others}
    # An answer that is found by its prompt hash must never be another question's.
    assert len({request["prompt_hash"] for request in others} | {base.prompt_hash(question(1))}) == len(others) + 1


def test_a_change_of_the_prompt_needs_another_prompt_version():
    """This is the digest of a question of version 1; a prompt changed without a new version would find old answers."""
    text = json.dumps([question(1).messages, question(1).schema, question(1).candidates])
    assert prompts.PROMPT_VERSION == 1
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d39d3bf5de0f6e2f"


SENTINEL = "sk-sentinel-5f2d8e1c9b7a4630"


def _echo(call):
    return [http(completion(call, json.dumps(ranked(call.body)) + call.headers["authorization"]))]


@pytest.mark.parametrize(
    "behave",
    [
        _echo,
        lambda c: [error(400, "bad", message=f"key {c.headers['authorization']}")],
        lambda c: [error(401, "bad", message=f"Incorrect API key provided: {SENTINEL}")],
        lambda c: [error(500, "bad", message=SENTINEL)],
        lambda c: [http(SENTINEL.encode())],
        lambda c: [Close()],
        truncate,
        lambda c: [error(429, SENTINEL, {"retry-after": "3600"}, message=SENTINEL)],
    ],
)
def test_the_key_appears_nowhere(tmp_path, behave, monkeypatch, caplog, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    caplog.set_level(logging.DEBUG)
    report, _, server, parsed = run(tmp_path, behave, 3)
    assert server.calls[0].headers["authorization"] == f"Bearer {SENTINEL}"
    output = caplog.text + "".join(capfd.readouterr()) + repr(report) + repr(parsed)
    output += pickle.dumps((report, parsed)).decode("latin-1") + json.dumps(report.as_json())
    with Store.open(tmp_path / "store.sqlite") as store:
        exchange.export_jsonl(store, tmp_path / "answers.jsonl")
        for (table,) in store.read("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for row in store.read(f"SELECT * FROM {table}"):
                output += repr(row) + "".join(_unpacked(value) for value in row)
        # Also while it is open: what SQLite keeps beside the file.
        output += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    output += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    assert {file.name for file in tmp_path.iterdir()} >= {"answers.jsonl", "store.sqlite"}
    assert SENTINEL not in output
    assert SENTINEL[3:] not in output


def _unpacked(value):
    """Text of what the store keeps compressed."""
    try:
        return zlib.decompress(value).decode("latin-1") if isinstance(value, bytes) else ""
    except zlib.error:
        return ""


def test_a_redirect_does_not_take_the_key_along(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    with FaultServer() as other:
        move = {"location": f"{other.url}/chat/completions"}
        report, _, _, _ = run(tmp_path, lambda c: [http(b"", 307, move)], 5)
        assert other.calls == []
    assert "redirected" in report.stopped


def test_a_proxy_of_the_environment_is_not_used_on_this_machine(tmp_path, monkeypatch):
    with FaultServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        report, _, _, _ = run(tmp_path, num=2)
        assert proxy.calls == []
    assert report.statuses == {"ok": 2}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/v1", "unencrypted"),
        ("https://user:secret@example.org/v1", "user or password"),
        ("ftp://example.org", "expected http"),
        ("http://[::1", "expected http"),
        ("http://localhost:99999", "expected http"),
        ("example.org/v1", "expected http"),
    ],
)
def test_an_address_that_gives_the_key_away_is_refused(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)
    Endpoint("http://example.org/v1", "m", allow_http=True)


def test_another_machine_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        Endpoint("https://example.org/v1", "m").api_key()
    assert Endpoint("http://localhost:1/v1", "m").api_key()
