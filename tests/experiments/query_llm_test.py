"""The command line from estimate to export on a run's folder, and the pipeline that reads what was paid for."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from alkd_jax.io import read_json, write_json
from alkd_jax.llm import teachers
from alkd_jax.llm.agreement import fuse_rankings
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.teachers.protocol import lists_to_rankings
from alkd_jax.llm.teachers.replay import load_rankings, save_rankings
from alkd_jax.types import Rankings, Sessions
from experiments import query_llm, summarize_hints
from experiments.pipeline import llm_files, llm_settings
from experiments.pipeline.settings import Settings
from experiments.pipeline.stages import Run
from experiments.pipeline.teachers import TEACHERS, fill_with_candidates
from experiments.reporting import teacher_quality
from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, completion, error, faultless, http, ranked


def test_from_the_estimate_to_the_export_nothing_is_bought_twice(folder, command):
    with FaultServer() as server:
        server_options = f"--base-url {server.url} --model gpt-4o-mini"
        code, output = command(f"estimate {server_options}")
        assert (code, server.calls) == (0, [])
        assert "20 questions, 0 answered before" in output
        assert re.search(r"\$0\.\d+ at least, \$0\.\d+ expected, \$0\.\d+ at worst", output)
        code, output = command(f"pilot {server_options} --budget-usd 1.00 --pilot 5")
        assert (code, len(server.calls)) == (0, 5)
        assert "measured on 5 answers" in output
        for _ in range(2):
            code, output = command(f"run {server_options} --budget-usd 1.00 --pilot 5")
            assert (code, len(server.calls)) == (0, 20)
            assert "20 questions: 20 ok" in output
        paid = sum(prompt * 150_000 + done * 600_000 for _, prompt, done in server.bill)
        code, output = command(f"status --json {folder.parent / 'status.json'}")
        assert f"{dollars(paid)} paid" in output
        numbers = read_json(folder.parent / "status.json")
        assert numbers["paid_usd"] == pytest.approx(paid / 1e12)
        assert (numbers["answers"], numbers["usable"], numbers["reserved_usd"]) == (20, 20, 0)
        code, output = command("export")
        assert "20 answers to 20 questions" in output
    lists = load_rankings(folder / "llm" / "answers.jsonl", num_items=2000)
    assert len(lists) == 20
    calls = read_json(folder / "llm" / "account.json")["calls"]
    assert [call["requests"] for call in calls] == [5, 15, 0]


def test_questions_are_shown_before_and_after_they_are_answered(folder, command):
    with FaultServer() as server:
        options = f"--base-url {server.url} --model gpt-4o-mini"
        code, output = command(f"show {options} --number 1")
        assert (code, server.calls) == (0, [])
        assert all(text in output for text in ("--- user", "--- no answer yet", "0 usable lists"))
        assert command(f"run {options} --budget-usd 1.00 --pilot 5")[0] == 0
        code, output = command(f"show {options} --number 2")
        assert (code, output.count("--- read as: ok"), len(server.calls)) == (0, 2, 20)
        assert all(text in output for text in ("20 usable lists", "position bias: +", "gpt-4o-mini: 20 requests"))
        session = re.findall(r"session (\d+)", output)[0]
        assert command(f"show {options} --session {session}")[1].count("--- user") == 1
        code, output = command(f"show {options} --session -5")
        assert (code, "--session is -5; expected one of the sessions that the model ranks" in output) == (2, True)


def test_lists_for_several_orders_of_the_candidates_are_fused(folder, command):
    with FaultServer() as server:
        options = f"run --base-url {server.url} --model gpt-4o-mini --budget-usd 1.00 --pilot 5"
        assert command(options)[0] == 0
        code, output = command(f"{options} --shuffles 3")
        assert (code, len(server.calls)) == (0, 60), "the first order was asked before"
        output = command(f"show --base-url {server.url} --model gpt-4o-mini --shuffles 3 --number 1")[1]
        assert "60 pairs of lists for the same session" in output
    dataset = Run.reopen(folder, readonly=True).dataset
    rankings, report = llm_settings.stored_rankings(folder, dataset)
    assert (report["asked"], report["missing"], report["shuffles"]) == (20, [], 3)
    assert report["self_agreement"]["pairs"] == 60
    with llm_files.open_store(folder, readonly=True) as store:
        rows = store.read(
            "SELECT r.session_id, a.items FROM answers a JOIN requests r ON r.key = a.key ORDER BY a.attempt"
        )
    for session, items, mask in zip(rankings.session_id, rankings.items, rankings.mask, strict=True):
        own = [json.loads(text) for number, text in rows if number == session]
        assert len(own) == 3
        assert items[mask].tolist() == list(fuse_rankings(own, 25))


def test_before_any_question_the_status_is_zero_and_the_sessions_can_be_written_down(folder, command):
    code, output = command(f"status --json {folder.parent / 'status.json'}")
    numbers = read_json(folder.parent / "status.json")
    assert (code, numbers["paid_usd"], numbers["possible_usd"], numbers["answers"]) == (0, 0, 0, 0)
    assert not (folder / "llm").exists()
    assert command("estimate --model gpt-4o-mini")[0] == 0
    code, output = command(f"questions --out {folder.parent / 'questions.jsonl'}")
    assert (code, "20 sessions to rank" in output) == (0, True)
    lines = [json.loads(line) for line in (folder.parent / "questions.jsonl").read_text().splitlines()]
    dataset = Run.reopen(folder, readonly=True).dataset
    rows = dataset.train.rows_of(np.array([line["session_id"] for line in lines]))
    for line, row in zip(lines, rows.tolist(), strict=True):
        numbers = [dataset.item_ids.index(entry["item"]) for entry in line["history"]]
        assert numbers == dataset.train.items[row][dataset.train.mask[row]].tolist()
        assert [entry["title"] for entry in line["history"]] == [dataset.titles[number] for number in numbers]
        assert len(line["candidates"]) == 50


def test_the_key_is_in_no_file_of_the_run_and_in_nothing_printed(folder, command, monkeypatch):
    """From the command to the export, with a server that repeats the key in answers and errors."""
    sentinel = "sk-sentinel-5f2d8e1c9b7a4630"
    monkeypatch.setenv("OPENAI_API_KEY", sentinel)

    def behave(call):
        if call.number % 4 == 1:
            return [error(400, sentinel, message=f"Bearer {sentinel}")]
        return [http(completion(call, json.dumps(ranked(call.body)) + sentinel, system_fingerprint=sentinel))]

    with FaultServer(behave) as server:
        server_options = f"--base-url {server.url} --model gpt-4o-mini --budget-usd 1.00 --pilot 0"
        output = "".join(
            command(text)[1] for text in (f"estimate {server_options}", f"run {server_options}", "status", "export")
        )
        assert server.calls[0].headers["authorization"] == f"Bearer {sentinel}"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"answers.jsonl", "answers.sqlite", "asking.json", "account.json"} <= {file.name for file in files}
    output += "".join(file.read_bytes().decode("latin-1") for file in files)
    assert "[key]" in output
    assert sentinel[3:] not in output


def test_the_pipeline_reads_the_store_and_opens_no_connection(folder, command):
    settings = Run.reopen(folder).settings
    with pytest.raises(ValueError, match=r"no model was asked yet; run `python -m experiments.query_llm estimate"):
        Run.open(settings).rankings_stage()
    with FaultServer(lambda c: [http(completion(c, "no"))] if c.number == 3 else faultless(c)) as server:
        server_options = f"--base-url {server.url} --model any"
        command(f"run {server_options} --budget-requests 7 --partial --pilot 2")
        with pytest.raises(ValueError, match=r"1\d of 20 sessions have no answer yet"):
            Run.reopen(folder).rankings_stage()
        code, output = command(f"run {server_options} --budget-usd 1")
        assert (code, "free" in output) == (0, True)
    run = Run.reopen(folder)
    run.candidates_stage()
    run.rankings_stage()
    exported = llm_settings.stored_rankings(folder, run.dataset)[0]
    np.testing.assert_array_equal(run.rankings().items, exported.items)
    assert len(run.rankings()) == 20


def test_sigterm_ends_the_command_with_what_has_arrived(folder, command):
    def behave(call):
        if call.number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return faultless(call)

    with FaultServer(behave) as server:
        options = f"run --base-url {server.url} --model any --budget-usd 1 --pilot 0 --in-flight 2"
        code, output = command(options)
        assert code == 143
        assert "stopped: interrupted" in output
        assert output.endswith("ended by SIGTERM; run the same command again to continue")
        arrived = len(server.calls)
        assert 4 <= arrived < 20
        code, output = command(options)
        assert (code, len(server.calls)) == (0, 20)
        assert f"20 ok; {arrived} from the store" in output


def test_too_small_a_budget_is_said_after_the_pilot_and_kept(folder, command):
    with FaultServer() as server:
        server_options = f"--base-url {server.url} --model gpt-4o-mini --pilot 4"
        code, output = command(f"run {server_options} --budget-usd 0.004")
        assert (code, len(server.calls)) == (3, 4)
        assert "more than the cap of $0.004000" in output
        code, output = command(f"run {server_options} --budget-usd 0.004")
        assert (code, len(server.calls)) == (2, 4)
        code, output = command(f"run {server_options} --budget-usd 0.004 --partial")
        assert code == 3
        assert 4 < len(server.calls) < 20
        assert sum(prompt * 150_000 + done * 600_000 for _, prompt, done in server.bill) <= 4 * 10**9


def test_what_cannot_be_asked_is_said_in_one_line(folder, command, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for text, message in (
        ("run --base-url https://example.org/v1 --model x --budget-usd 1", "no price is known for x"),
        ("run --base-url https://example.org/v1 --model gpt-4o-mini --budget-usd 1", "OPENAI_API_KEY is not set"),
        ("run --base-url https://example.org/v1 --model gpt-4o-mini", "nothing is capped"),
        ("run --base-url http://example.org/v1 --model gpt-4o-mini --budget-usd 1", "unencrypted"),
        ("run --base-url http://127.0.0.1:1/v1 --model m --budget-usd much", "--budget-usd is 'much'"),
        ("export", "no model was asked yet"),
    ):
        (folder / "llm").exists() and [file.unlink() for file in (folder / "llm").iterdir()]
        code, out = command(text)
        assert code == 2
        assert message in out
    monkeypatch.setattr(sys, "argv", ["command", "estimate", "--run", str(tmp_path), "--model", "m"])
    with pytest.raises(SystemExit):
        query_llm.main()


def test_hints_are_asked_for_once_and_enter_the_questions(folder, command):
    with FaultServer() as server:
        server_options = f"--base-url {server.url} --model any --budget-usd 1"
        for _ in range(2):
            code, output = command(f"{server_options} --cases 3", main=summarize_hints.main)
            assert (code, len(server.calls)) == (0, 1)
            assert "- People keep to series." in output
        shown = server.calls[0].body["messages"][-1]["content"]
        assert shown.count(", history:") == shown.count(", suggested:") == 3
        command(f"run {server_options} --pilot 0")
        assert json.dumps({"hint": "People keep to genres."}) in server.calls[-1].body["messages"][0]["content"]


@pytest.mark.parametrize("ranker", ["simulated", "conventional", "neighbor", "replay"])
def test_teachers_that_cost_nothing_rank_the_same_sessions(folder, ranker, tmp_path):
    run = Run.reopen(folder)
    run.candidates_stage()
    file = tmp_path / "lists.jsonl"
    save_rankings(file, TEACHERS["conventional"].rank(run.settings, run.dataset)[0])
    settings = dataclasses.replace(run.settings, teacher=ranker, rankings=file if ranker == "replay" else None)
    settings.check()
    lists, account = TEACHERS[ranker].rank(settings, run.dataset)
    assert (len(lists), account["asked"], account["missing"]) == (20, 20, [])
    sessions, candidates = llm_settings.sessions_to_rank(folder, run.dataset)
    np.testing.assert_array_equal(lists.session_id, sessions.session_id)
    if ranker in ("conventional", "replay"):
        np.testing.assert_array_equal(lists.items, candidates[:, :25])


def test_quality_with_missing_sessions_is_measured_on_the_lists_that_exist(folder):
    run = Run.reopen(folder)
    run.candidates_stage()
    lists, _ = TEACHERS["conventional"].rank(run.settings, run.dataset)
    some = Rankings(*(np.asarray(leaf)[3:] for leaf in (lists.session_id, lists.items, lists.mask)))
    save_rankings(folder / "rankings.jsonl", some)
    write_json(folder / "rankings.report.json", {})
    account = teacher_quality.measure_quality(run)
    train = run.dataset.train
    target = dict(zip(train.session_id.tolist(), train.target.tolist(), strict=True))
    held = [target[session] in row for session, row in zip(some.session_id.tolist(), some.items.tolist(), strict=True)]
    assert (account["asked"], account["usable"]) == (20, 17)
    assert account["hits@25"] == pytest.approx(np.mean(held))
    # The recommender's own order, for which the fixture stands in, is what these lists are.
    assert account["conventional@25"] == account["hits@25"] == account["similar"]
    assert account["incorrect"] == pytest.approx(1 - np.mean(held))


def test_recorded_lists_filled_up_hold_the_list_and_then_the_teachers_items():
    recorded = lists_to_rankings({4: (9, 8), 6: ()}, 3)
    sessions = Sessions(*(np.array([[1], [1], [1]]), np.ones((3, 1), bool), np.array([2, 2, 2]), np.array([4, 5, 6])))
    filled = fill_with_candidates(recorded, sessions, np.array([[8, 7, 6, 5], [8, 7, 6, 0], [1, 2, 3, 4]]))
    assert filled.tolist() == [[9, 8, 7, 6], [8, 7, 6, 0], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "oracle"}, "--teacher is 'oracle'"),
        ({"teacher": "replay"}, "needs --rankings FILE"),
        ({"candidates": "recorded"}, "needs --data released"),
        ({"model": "m"}, "--model is m with --teacher simulated; expected --teacher openai"),
    ],
)
def test_settings_that_no_stage_can_use_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Settings("synthetic", "fpmc", tmp_path, selection="own", **options).check()


@pytest.mark.slow
def test_rankings_over_http_give_the_student_that_replay_gives_bit_for_bit(release, tmp_path, capsys):
    """ML: the server answers from the recorded file, faults included, and the two distilled students are equal."""
    import jax

    import alkd_jax as alkd
    from alkd_jax.llm import prompts

    def call(command, text):
        line = [sys.executable, "-m", f"experiments.{command}", *text.split()]
        return subprocess.run(line, cwd=paths.ROOT, capture_output=True, text=True)

    def reproduce(out, more=""):
        data = f"--data released:{release}:ML --backbone fpmc --seeds 1 --max-steps 100"
        return call("reproduce", f"{data} --candidates recorded --out {out} {more}")

    replayed, online = tmp_path / "replay", tmp_path / "online"
    assert reproduce(replayed).returncode == 0
    stopped = reproduce(online, "--teacher openai")
    assert "no model was asked yet" in stopped.stderr

    run = Run.reopen(online, readonly=True)
    raw, _ = alkd.data.load_released_rankings(release, "ML", repair=False, dataset=run.dataset)
    clean, _ = alkd.data.load_released_rankings(release, "ML", dataset=run.dataset)
    recorded, repaired = (
        {session: row[row > 0].tolist() for session, row in zip(lists.session_id.tolist(), lists.items, strict=True)}
        for lists in (raw, clean)
    )
    sessions, candidates = llm_settings.sessions_to_rank(online, run.dataset)
    answers = {}
    for question in teachers.build_questions(sessions, candidates, run.dataset.titles, prompts.MOVIES):
        names = {item: f"C{n:02d}" for n, item in enumerate(question.candidates)}
        # The repair removes items of the whole session, whereas the models see and exclude only its last ten.
        valid = repaired[question.session_id]
        listed = [names[item] if item in valid else f"ID_{item}" for item in recorded[question.session_id]]
        answers[question.messages[-1]["content"]] = json.dumps({"ranking": listed})

    def behave(call):
        return [http(completion(call, answers[call.body["messages"][-1]["content"]]))]

    with FaultServer(behave) as server:
        model = f"--base-url {server.url} --model gpt-4o-mini --budget-usd 20 --min-valid 1"
        queried = call("query_llm", f"run --run {online} {model}")
        assert queried.returncode == 0, queried.stdout + queried.stderr
        num_requests = len(server.calls)
        assert reproduce(online, "--teacher openai").returncode == 0
        assert len(server.calls) == num_requests >= 500
    with capsys.disabled():
        print(f"\n{num_requests} rankings over HTTP; {queried.stdout[-900:]}")  # noqa: T201
    assert (online / "rankings.jsonl").read_bytes() == (replayed / "rankings.jsonl").read_bytes()
    for method in ("distilled/ALKDRec", "distilled/Random"):
        first, second = (Run.reopen(folder, readonly=True).params(method) for folder in (replayed, online))
        jax.tree.map(np.testing.assert_array_equal, first, second)
    numbers = [read_json(folder / "metrics.json") for folder in (replayed, online)]
    sources = [(found.pop("teacher"), found.pop("lists")) for found in numbers]
    assert sources == [("replay", "recorded lists"), ("openai", "language model")]
    assert numbers[0] == numbers[1]
