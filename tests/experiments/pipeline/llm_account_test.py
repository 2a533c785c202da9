"""The account beside a store: a store that has lost paid answers is refused, and files of another shape are named."""

import json
import shutil

import pytest

from alkd_jax.llm.answers import Answer
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.usage import UsageReport
from experiments.pipeline import llm_account, llm_files
from experiments.pipeline.llm_options import LLMSettings
from tests.helpers.llm_questions import question

ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m")


def ask(run, number):
    with llm_files.open_store(run) as store:
        attempt = store.begin_attempt(ENDPOINT.request(question(number)), cost=9, tokens=9)
        answer = Answer("x", "stop", None, None, "m", None, None, "id", b"{}")
        store.record_answer(attempt, answer, cost=10**6, tokens=9, basis="usage")
        llm_account.save_usage(run, UsageReport(asked=1, seconds=1.5), store)


@pytest.fixture
def run(tmp_path):
    for number in range(2):
        ask(tmp_path, number)
    return tmp_path


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("lost", ["emptied", "missing", "older"])
def test_a_store_that_has_lost_paid_answers_is_refused(run, tmp_path_factory, lost, readonly):
    store = run / "llm" / "answers.sqlite"
    if lost == "emptied":
        store.write_bytes(b"")
    elif lost == "missing":
        store.unlink()
    else:
        before = tmp_path_factory.mktemp("before")
        ask(before, 0)
        shutil.copy(before / "llm" / "answers.sqlite", store)
    names = {"emptied": "is empty", "missing": "is missing", "older": "holds 1 requests"}
    with pytest.raises(ValueError, match=rf"answers.sqlite {names[lost]}; expected the 2 requests and \$0.000002"):
        llm_files.open_store(run, readonly=readonly)
    assert store.exists() == (lost != "missing")


def test_a_store_that_holds_more_than_the_account_is_whole(run):
    """A process that was killed has not written the account."""
    account = run / "llm" / "account.json"
    older = account.read_text()
    ask(run, 2)
    for text in (older, None):
        account.write_text(text) if text else account.unlink()
        with llm_files.open_store(run) as store:
            assert store.ledger == Ledger(confirmed=3 * 10**6, tokens=27, requests=3)
    assert llm_account.read_account(run) == {"calls": [], "store": {}}


STORES = ("[]", '{"confirmed": -5}', '{"confirmed": 1e300}')


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{}", "{", '{"calls": 3, "store": {}}', '{"calls": [{"seconds": NaN}], "store": {}}'),
        *(f'{{"calls": [], "store": {store}}}' for store in STORES),
    ],
)
def test_an_account_of_another_shape_is_named(run, text):
    (run / "llm" / "account.json").write_text(text)
    with pytest.raises(ValueError, match=r"account.json.*expected"):
        llm_files.open_store(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_flight": "many"}, "'in_flight' is 'many'; expected int"),
        ({"model": None}, "'model' is None; expected str"),
        ({"colour": 3}, "'colour' is 3; expected one of run, model"),
    ],
)
def test_settings_of_another_shape_are_named(tmp_path, change, message):
    (tmp_path / "llm").mkdir()
    settings = LLMSettings(tmp_path, "m", budget_usd="1", price_input="1", price_output="1")
    with llm_files.open_store(tmp_path) as store:
        llm_files.save_settings(settings, settings.client(store))
    assert llm_files.load_settings(tmp_path) == settings
    file = tmp_path / "llm" / "asking.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=f"asking.json: {message}"):
        llm_files.load_settings(tmp_path)
    file.write_text("[3]")
    with pytest.raises(ValueError, match=r"asking\.json"):
        llm_files.load_settings(tmp_path)
