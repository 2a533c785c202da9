"""Questions about items on the command line: which are asked, what they cost, and that no answer is bought twice."""

import json
import re

import pytest

from alkd_jax.data.readers import registry
from alkd_jax.llm.store import Store
from experiments import ask_items
from experiments.pipeline.question_value import Study, stored_answers
from tests.helpers import command_calls
from tests.helpers.fault_server import FaultServer, completion, error, http, labels_of

DATA = ["--data", "synthetic", "--model", "any", "--rare", "40", "--shown", "8", "--named", "3"]
"""The built-in data have no item that is never seen, so that rare ones are asked about."""


def first_labels(call):
    return [http(completion(call, json.dumps({"ranking": labels_of(call.body)[:3]})))]


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that calls the command and returns its exit status and output."""

    def call(*arguments):
        return command_calls.call(ask_items.main, [*DATA, *arguments], monkeypatch, capsys)

    return call


def test_the_most_valuable_questions_are_asked_once(command, tmp_path):
    store = tmp_path / "new" / "s.sqlite"
    with FaultServer(first_labels) as server:
        code, output = command("--base-url", server.url, "--questions", "5", "--store", store)
        assert code == 0, output
        assert len(server.calls) == 5
        assert "5 questions: 5 ok" in output
        code, output = command("--base-url", server.url, "--questions", "7", "--store", store)
        assert (code, len(server.calls)) == (0, 7)
        assert "5 from the store; 2 requests sent" in output
    study = Study(registry.read("synthetic"), rare=40, among="catalogue", num_candidates=8, k=3)
    best = study.asked[study.order("value", 7)]
    ((rankings, _),) = stored_answers(store).values()
    assert sorted(rankings.session_id.tolist()) == sorted(best.tolist())
    with Store.open(store, readonly=True) as answers:
        shown = dict(answers.read("SELECT session_id, candidates FROM requests"))
    rows = {int(item): row for item, row in zip(study.asked, study.shown[0], strict=True)}
    assert all(set(json.loads(text)) - {0} == set(rows[item][rows[item] > 0]) for item, text in shown.items())


def test_an_estimate_sends_nothing_and_the_cap_holds(command, tmp_path):
    options = ["--price-input", "0.4", "--price-output", "1.6", "--questions", "6", "--pilot", "0", "--in-flight", "1"]
    with FaultServer(first_labels) as server:
        code, output = command("--base-url", server.url, *options, "--estimate", "--store", tmp_path / "s")
        assert (code, len(server.calls)) == (0, 0)
        assert re.search(r"6 questions, 0 answered before .* expected, .* at worst", output)
        code, output = command("--base-url", server.url, *options, "--budget-usd", "0.002", "--store", tmp_path / "s")
        assert 0 < len(server.calls) < 6
        assert code == 2
        assert "budget exhausted" in output
        assert "items without" in output
        assert server.cost <= 0.002 * 10**12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shown", "100"], "--shown is 100; expected from 1 to 99"),
        (["--named", "0"], "--named is 0"),
        (["--questions", "100000"], "--questions is 100000; expected from 1 to"),
        (["--rare", "-1"], "--rare is -1"),
        ([], "nothing is capped"),
    ],
)
def test_options_that_do_not_fit_are_refused(command, tmp_path, options, message):
    code, output = command(
        "--base-url", "https://example.org/v1", "--store", tmp_path / "s", "--questions", 5, *options
    )
    assert code == 2
    assert message in output


def test_a_server_that_refuses_is_quoted(command, tmp_path):
    with FaultServer(lambda call: [error(401, "invalid_api_key", message="no such key")]) as server:
        code, output = command("--base-url", server.url, "--store", tmp_path / "s", "--questions", 3)
    assert code == 2
    assert "no such key" in output
    assert len(server.calls) == 1
