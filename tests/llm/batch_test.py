"""The Batch API on a real socket: no shard is paid for twice, every row is accounted for."""

import asyncio
import contextlib
import traceback

import pytest

from alkd_jax.llm.batch import Batches
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.store import Store
from tests.helpers.batch_api import BatchApi, answered, failed, faulty, whole
from tests.helpers.fault_server import COMPLETION, PROMPT, FaultServer, error
from tests.helpers.llm_questions import client, questions


@contextlib.contextmanager
def provider(folder, api, **options):
    with FaultServer(routes=api) as server, Store.open(folder / "s") as store:
        llm_client = client(server, store, **options)
        yield llm_client, Batches(llm_client, shard_requests=4), server, store


async def run_to_the_end(batches, queries):
    await batches.submit(queries)
    while "in_progress" in await batches.poll():
        await asyncio.sleep(0.01)
    return await batches.ingest()


def usable(llm_client, queries):
    return [parsed.items for _, _, parsed in llm_client.parsed_answers(queries) if parsed is not None and parsed.usable]


def assert_bill_is_kept(server, store):
    half = sum(prompt * PROMPT + done * COMPLETION for _, prompt, done in server.bill) // 2
    assert half <= store.ledger.confirmed + store.ledger.possible
    assert store.ledger.open == 0
    store.verify()


def test_a_batch_brings_the_answers_at_half_the_price_in_any_order(tmp_path):
    api = BatchApi()
    with provider(tmp_path, api) as (llm_client, batches, server, store):
        counts = asyncio.run(run_to_the_end(batches, questions(10)))
        assert counts == {"answers": 10}
        assert api.created == 3
        assert store.ledger.confirmed == server.cost // 2
        assert len(usable(llm_client, questions(10))) == 10
        assert asyncio.run(batches.submit(questions(10))) == 0
        report = collect_sync(llm_client, questions(10), pilot=0)
        assert (report.cached, server.calls) == (10, [])


def test_what_waits_in_a_batch_is_not_asked_online(tmp_path):
    with provider(tmp_path, BatchApi()) as (llm_client, batches, server, _):
        asyncio.run(batches.submit(questions(3)))
        report = collect_sync(llm_client, questions(3), pilot=0)
        assert (len(report.missing), server.calls) == (3, [])


@pytest.mark.parametrize("step", [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/ID")])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_no_shard_is_created_twice_however_the_way_was_cut(tmp_path, step, before):
    """Cut between upload, create and save, by a failure before or after the provider did its work."""
    api = BatchApi(fail=[(step, before)])
    with FaultServer(routes=api) as server:
        for _ in range(3):
            with Store.open(tmp_path / "s") as store, contextlib.suppress(ConnectionError):
                batches = Batches(client(server, store))
                asyncio.run(run_to_the_end(batches, questions(4)))
        assert api.fail == []
        with Store.open(tmp_path / "s") as store:
            assert len(usable(client(server, store), questions(4))) == 4
            assert store.ledger.requests == 4
            assert_bill_is_kept(server, store)
    assert api.created == 1


def mixed(lines, call):
    """One answered twice, one failed, one missing, one foreign."""
    first = answered(lines[0], call)
    foreign = {"custom_id": "f" * 64, "response": {"status_code": 200, "body": {}}}
    counts = {"request_counts": {"completed": 2, "failed": 1, "total": 4}}
    return "expired", [answered(lines[3], call), first, first, foreign], [failed(lines[1])], counts


def test_every_row_of_a_half_done_batch_is_accounted_for(tmp_path):
    with provider(tmp_path, BatchApi(mixed)) as (_, batches, server, store):
        counts = asyncio.run(run_to_the_end(batches, questions(4)))
        assert counts == {"answers": 2, "errors": 1, "not done": 1, "foreign": 1, "repeated": 1}
        assert store.ledger.requests == 2
        assert_bill_is_kept(server, store)
        batches.client.store.verify()
        assert asyncio.run(batches.submit(questions(4))) == 2


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (lambda lines, call: ("completed", None, [failed(line) for line in lines]), {"errors": 4}),
        (lambda lines, call: ("failed", None, None), {"not done": 4}),
        (lambda lines, call: ("cancelled", [answered(lines[0], call)], None), {"answers": 1, "not done": 3}),
        (lambda lines, call: ("completed", "gone", None), {"files gone": 4}),
        (
            lambda lines, call: ("completed", [[1], "x", {"custom_id": 5}], None),
            {"foreign": 3, "lost": 3, "not done": 1},
        ),
        (
            lambda lines, call: ("completed", [answered(lines[0], call)], None, {"request_counts": None}),
            {"answers": 1, "lost": 3},
        ),
    ],
    ids=["only errors", "failed", "cancelled", "file gone", "rubbish", "half a file"],
)
def test_batches_that_end_badly_leave_no_row_behind(tmp_path, outcome, counts):
    with provider(tmp_path, BatchApi(outcome)) as (_, batches, server, store):
        assert asyncio.run(run_to_the_end(batches, questions(4))) == counts
        assert (store.ledger.possible > 0) == ("files gone" in counts or "lost" in counts)
        assert_bill_is_kept(server, store)
        assert asyncio.run(batches.ingest()) == {}


def test_a_shard_that_could_pass_the_cap_is_not_submitted(tmp_path):
    api = BatchApi()
    with provider(tmp_path, api, usd="0.005") as (_, batches, _, store):
        with pytest.raises(ValueError, match="budget exhausted"):
            asyncio.run(batches.submit(questions(12)))
        assert store.ledger.committed <= 5 * 10**9
        assert api.created < 3


def test_the_key_is_in_no_error(tmp_path, monkeypatch):
    key = "sk-sentinel-5f2d8e1c9b7a4630"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with provider(tmp_path, lambda call: [error(401, "bad", message=f"no such key {key}")]) as (_, batches, _, _):
        with pytest.raises(ConnectionError) as caught:
            asyncio.run(batches.submit(questions(1)))
        assert key not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert key not in "".join(traceback.format_exception(caught.value))


def test_half_an_output_file_is_billed_in_full(tmp_path):
    """The provider has answered all four, and its file holds two of them."""

    def half(lines, call):
        done = [answered(line, call) for line in lines]
        return "completed", done[:2], None, {"request_counts": {"completed": 4, "failed": 0, "total": 4}}

    with provider(tmp_path, BatchApi(half)) as (_, batches, server, store):
        assert asyncio.run(run_to_the_end(batches, questions(4))) == {"answers": 2, "lost": 2}
        assert store.ledger.possible > 0
        assert_bill_is_kept(server, store)


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_a_refused_shard_is_released_and_can_be_asked_otherwise(tmp_path, path):
    api = BatchApi()

    def refuse(call):
        if (call.method, call.path.split("?")[0]) == ("POST", f"/v1{path}"):
            return [error(400, "invalid_request_error", message="no such model for batches")]
        return api(call)

    with FaultServer(routes=refuse) as server, Store.open(tmp_path / "s") as store:
        llm_client = client(server, store)
        for _ in range(2):
            with pytest.raises(ConnectionError, match="no such model for batches"):
                asyncio.run(Batches(llm_client).submit(questions(3)))
            assert (store.ledger.committed, store.ledger.open, store.keys_in_batches()) == (0, 0, set())
        assert collect_sync(llm_client, questions(3), pilot=0).statuses == {"ok": 3}


def test_a_failed_batch_says_why_and_is_not_submitted_again_by_itself(tmp_path):
    api = BatchApi(faulty("the model gpt-x does not exist", "invalid_model"))
    with provider(tmp_path, api) as (_, batches, _, store):
        assert asyncio.run(run_to_the_end(batches, questions(4))) == {"not done": 4}
        assert batches.errors == {"batch failed: the model gpt-x does not exist (line 2)": 4}
        for _ in range(2):
            with pytest.raises(ValueError, match="gpt-x does not exist"):
                asyncio.run(batches.submit(questions(4)))
        assert (api.created, store.ledger.committed) == (1, 0)
        assert asyncio.run(batches.submit(questions(4), again=True)) == 4


def test_a_batch_that_the_server_has_no_place_for_is_submitted_again(tmp_path):
    api = BatchApi(faulty("Enqueued token limit reached, please try again", "token_limit_exceeded"))
    with provider(tmp_path, api) as (_, batches, _, _):
        asyncio.run(run_to_the_end(batches, questions(4)))
        assert asyncio.run(batches.submit(questions(4))) == 4


def test_a_cancelled_batch_releases_what_was_not_done_and_is_waited_for(tmp_path):
    with provider(tmp_path, BatchApi()) as (_, batches, server, store):
        asyncio.run(batches.submit(questions(6)))
        assert asyncio.run(batches.cancel()) == 2
        asyncio.run(batches.wait(first_s=0.01))
        assert asyncio.run(batches.ingest()) == {"not done": 6}
        assert (store.ledger.committed, store.keys_in_batches()) == (0, set())
        assert asyncio.run(batches.cancel()) == 0
        assert_bill_is_kept(server, store)


def test_a_field_that_a_batch_refuses_is_left_out_of_the_next(tmp_path):
    def picky(lines, call):
        message = {"error": {"message": "'temperature' does not support 0", "param": "temperature"}}
        if "temperature" in lines[0]["body"]:
            bad = [
                {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": message}} for line in lines
            ]
            return "completed", None, bad
        return whole(lines, call)

    with provider(tmp_path, BatchApi(picky)) as (llm_client, batches, server, store):
        assert asyncio.run(run_to_the_end(batches, questions(4))) == {"errors": 4}
        assert any("left out the next time" in text for text in batches.errors)
        assert asyncio.run(run_to_the_end(batches, questions(4))) == {"answers": 4}
        assert len(usable(llm_client, questions(4))) == 4
        assert_bill_is_kept(server, store)
