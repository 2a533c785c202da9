"""The Batch API on a real socket: no shard is paid for twice, every row is accounted for."""

import asyncio
import contextlib
import json
import random
import re
import traceback

import pytest

from alkd_jax.llm.batch import Batches
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.store import Store
from tests.helpers.fault_server import COMPLETION, PROMPT, FaultServer, completion, error, http
from tests.helpers.llm_questions import client, questions

BATCH_FIELDS = {"object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": 1}


class BatchApi:
    """Files and batches of a provider; `outcome` decides what a batch brings."""

    def __init__(self, outcome=None, fail=()):
        self.files, self.batches, self.outcome, self.fail = {}, {}, outcome or whole, list(fail)
        self.created = 0

    def __call__(self, call):
        path = call.path.split("?")[0]
        name = (call.method, re.sub(r"(file|batch)_\d+", "ID", path.removeprefix("/v1")))
        if self.fail and self.fail[0][0] == name:
            _, before = self.fail.pop(0)
            if before:
                return [error(500, "down")]
            list(self._answer(name, path, call))
            return [error(500, "down after the work was done")]
        return self._answer(name, path, call)

    def _answer(self, name, path, call):
        if name == ("POST", "/files"):
            lines = [json.loads(line) for line in call.raw.splitlines() if line.startswith(b'{"custom_id"')]
            file = f"file_{len(self.files)}"
            self.files[file] = lines
            yield http({"id": file, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"})
        elif name == ("POST", "/batches"):
            self.created += 1
            batch = {"id": f"batch_{self.created}", "status": "in_progress", **BATCH_FIELDS, **call.body}
            self.batches[batch["id"]] = batch
            yield http(batch)
        elif name == ("GET", "/batches"):
            yield http({"object": "list", "data": list(self.batches.values()), "has_more": False})
        elif name == ("GET", "/batches/ID"):
            batch = self.batches[path.rsplit("/")[-1]]
            if batch["status"] == "in_progress":
                status, output, errors = self.outcome(self.files[batch["input_file_id"]], call)
                batch["status"] = status
                for kind, lines in (("output", output), ("error", errors)):
                    if lines is not None:
                        self.files[f"file_{len(self.files)}"] = lines
                        batch[f"{kind}_file_id"] = f"file_{len(self.files) - 1}"
            yield http(batch)
        elif name == ("GET", "/files/ID/content"):
            file = path.split("/")[-2]
            if self.files[file] == "gone":
                yield error(404, "not_found")
            else:
                yield http("".join(json.dumps(line) + "\n" for line in self.files[file]).encode())
        else:
            yield error(404, "unknown")


def answered(line, call):
    call.body, call.raw = line["body"], json.dumps(line["body"]).encode()
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": completion(call)}, "error": None}


def failed(line):
    return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": {"error": {"message": "no"}}}}


def whole(lines, call):
    done = [answered(line, call) for line in lines]
    random.Random(0).shuffle(done)
    return "completed", done, None


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
    return "expired", [answered(lines[3], call), first, first, foreign], [failed(lines[1])]


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
        (lambda lines, call: ("completed", [[1], "x", {"custom_id": 5}], None), {"foreign": 3, "not done": 4}),
    ],
    ids=["only errors", "failed", "cancelled", "file gone", "rubbish"],
)
def test_batches_that_end_badly_leave_no_row_behind(tmp_path, outcome, counts):
    with provider(tmp_path, BatchApi(outcome)) as (_, batches, server, store):
        assert asyncio.run(run_to_the_end(batches, questions(4))) == counts
        assert (store.ledger.possible > 0) == ("files gone" in counts)
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
