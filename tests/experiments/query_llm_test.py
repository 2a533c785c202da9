"""The command line from estimate to export on a run's folder, and the pipeline that reads what was paid for."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from alkd_jax.io import read_json, write_json
from alkd_jax.llm import teachers
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.teachers.replay import load_rankings, save_rankings
from alkd_jax.types import Rankings, Sessions
from experiments import query_llm, summarize_hints
from experiments.pipeline import llm_settings, offline_teachers
from experiments.pipeline.settings import Settings
from experiments.pipeline.stages import Run
from experiments.reporting import teacher_quality
from tests.helpers import paths
from tests.helpers.fault_server import FaultServer, completion, error, faultless, http, ranked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run as it is before the paid hop; what trained teachers would say is drawn, not trained."""
    made = Run.open(Settings("synthetic", "fpmc", tmp_path / "run", seeds=1, selection="own", teacher="openai"))
    ids = np.asarray(made.dataset.train.session_id)
    write_json(made.folder.path / "selection.json", {"Random": ids[:12].tolist(), "ALKDRec": ids[8:20].tolist()})
    done = {"digest": "d", "outputs": [], "seconds": 0.0}
    write_json(made.folder.path / "hops.json", {"teacher": done, "selection": done})

    def drawn(run, sessions, *, num=50, name="teacher"):
        rows = [np.setdiff1d(np.arange(1, run.dataset.num_items + 1), row)[:num] for row in np.asarray(sessions.items)]
        return np.stack(rows).astype(np.int32)

    monkeypatch.setattr(Run, "candidates", drawn)
    return made.folder.path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Calls a command on the folder; its exit status and what it printed."""

    def call(text, *, main=query_llm.main, run="--run"):
        monkeypatch.setattr(sys, "argv", ["command", *text.split(), run, str(folder)])
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        return code, " ".join(capsys.readouterr().out.split())

    return call


def test_from_the_estimate_to_the_export_nothing_is_bought_twice(folder, command):
    with FaultServer() as server:
        whom = f"--base-url {server.url} --model gpt-4o-mini"
        code, told = command(f"estimate {whom}")
        assert (code, server.calls) == (0, [])
        assert "20 questions, 0 answered before" in told
        assert re.search(r"\$0\.\d+ at least, \$0\.\d+ expected, \$0\.\d+ at worst", told)
        code, told = command(f"pilot {whom} --budget-usd 1.00 --pilot 5")
        assert (code, len(server.calls)) == (0, 5)
        assert "measured on 5 answers" in told
        for _ in range(2):
            code, told = command(f"run {whom} --budget-usd 1.00 --pilot 5")
            assert (code, len(server.calls)) == (0, 20)
            assert "20 questions: 20 ok" in told
        paid = sum(prompt * 150_000 + done * 600_000 for _, prompt, done in server.bill)
        code, told = command("status")
        assert f"{dollars(paid)} paid" in told
        code, told = command("export")
        assert "20 answers to 20 questions" in told
    lists = load_rankings(folder / "llm" / "answers.jsonl", num_items=2000)
    assert len(lists) == 20
    calls = read_json(folder / "llm" / "account.json")["calls"]
    assert [call["requests"] for call in calls] == [5, 15, 0]


def test_the_key_is_in_no_file_of_the_run_and_in_nothing_printed(folder, command, monkeypatch):
    """Fault 30, from the command to the export, with a server that says the key in answers and errors."""
    sentinel = "sk-sentinel-5f2d8e1c9b7a4630"
    monkeypatch.setenv("OPENAI_API_KEY", sentinel)

    def behave(call):
        if call.number % 4 == 1:
            return [error(400, sentinel, message=f"Bearer {sentinel}")]
        return [http(completion(call, json.dumps(ranked(call.body)) + sentinel, system_fingerprint=sentinel))]

    with FaultServer(behave) as server:
        whom = f"--base-url {server.url} --model gpt-4o-mini --budget-usd 1.00 --pilot 0"
        told = "".join(command(text)[1] for text in (f"estimate {whom}", f"run {whom}", "status", "export"))
        assert server.calls[0].headers["authorization"] == f"Bearer {sentinel}"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"answers.jsonl", "answers.sqlite", "asking.json", "account.json"} <= {file.name for file in files}
    told += "".join(file.read_bytes().decode("latin-1") for file in files)
    assert "[key]" in told
    assert sentinel[3:] not in told


def test_the_pipeline_reads_the_store_and_opens_no_connection(folder, command):
    settings = Run.reopen(folder).settings
    with pytest.raises(ValueError, match=r"no model was asked yet; run `python -m experiments.query_llm estimate"):
        Run.open(settings).hop_rankings()
    with FaultServer(lambda c: [http(completion(c, "no"))] if c.number == 3 else faultless(c)) as server:
        whom = f"--base-url {server.url} --model any"
        command(f"run {whom} --budget-requests 7 --partial --pilot 2")
        with pytest.raises(ValueError, match=r"1\d of 20 sessions are not answered yet"):
            Run.reopen(folder).hop_rankings()
        code, told = command(f"run {whom} --budget-usd 1")
        assert (code, "free" in told) == (0, True)
    run = Run.reopen(folder)
    run.hop_candidates()
    run.hop_rankings()
    exported = llm_settings.answered_lists(folder, run.dataset)[0]
    np.testing.assert_array_equal(run.rankings().items, exported.items)
    assert len(run.rankings()) == 20


def test_too_small_a_budget_is_said_after_the_pilot_and_kept(folder, command):
    with FaultServer() as server:
        whom = f"--base-url {server.url} --model gpt-4o-mini --pilot 4"
        code, told = command(f"run {whom} --budget-usd 0.004")
        assert (code, len(server.calls)) == (3, 4)
        assert "more than the cap of $0.004000" in told
        code, told = command(f"run {whom} --budget-usd 0.004")
        assert (code, len(server.calls)) == (2, 4)
        code, told = command(f"run {whom} --budget-usd 0.004 --partial")
        assert code == 3
        assert 4 < len(server.calls) < 20
        assert sum(prompt * 150_000 + done * 600_000 for _, prompt, done in server.bill) <= 4 * 10**9


def test_what_cannot_be_asked_is_said_in_one_line(folder, command, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for text, told in (
        ("run --base-url https://example.org/v1 --model x --budget-usd 1", "no price is known for x"),
        ("run --base-url https://example.org/v1 --model gpt-4o-mini --budget-usd 1", "OPENAI_API_KEY is not set"),
        ("run --base-url https://example.org/v1 --model gpt-4o-mini", "nothing is capped"),
        ("run --base-url http://example.org/v1 --model gpt-4o-mini --budget-usd 1", "unencrypted"),
        ("run --base-url http://127.0.0.1:1/v1 --model m --budget-usd much", "--budget-usd is 'much'"),
        ("status", "no such store"),
        ("export", "no model was asked yet"),
    ):
        (folder / "llm").exists() and [file.unlink() for file in (folder / "llm").iterdir()]
        code, out = command(text)
        assert code == 2
        assert told in out
    monkeypatch.setattr(sys, "argv", ["command", "estimate", "--run", str(tmp_path), "--model", "m"])
    with pytest.raises(SystemExit):
        query_llm.main()


def test_hints_are_asked_for_once_and_enter_the_questions(folder, command):
    with FaultServer() as server:
        whom = f"--base-url {server.url} --model any --budget-usd 1"
        for _ in range(2):
            code, told = command(f"{whom} --cases 3", main=summarize_hints.main)
            assert (code, len(server.calls)) == (0, 1)
            assert "- People keep to series." in told
        shown = server.calls[0].body["messages"][-1]["content"]
        assert shown.count(", history:") == shown.count(", suggested:") == 3
        command(f"run {whom} --pilot 0")
        assert json.dumps({"hint": "People keep to genres."}) in server.calls[-1].body["messages"][0]["content"]


@pytest.mark.parametrize("ranker", ["simulated", "conventional", "neighbor", "replay"])
def test_teachers_that_cost_nothing_rank_the_same_sessions(folder, ranker, tmp_path):
    run = Run.reopen(folder)
    run.hop_candidates()
    file = tmp_path / "lists.jsonl"
    settings = dataclasses.replace(run.settings, teacher="conventional")
    save_rankings(file, offline_teachers.ranked(settings, run.dataset)[0])
    settings = dataclasses.replace(run.settings, teacher=ranker, rankings=file if ranker == "replay" else None)
    settings.check()
    lists, account = offline_teachers.ranked(settings, run.dataset)
    assert (len(lists), account["asked"], account["missing"]) == (20, 20, [])
    sessions, candidates = llm_settings.asked_sessions(folder, run.dataset)
    np.testing.assert_array_equal(lists.session_id, sessions.session_id)
    if ranker in ("conventional", "replay"):
        np.testing.assert_array_equal(lists.items, candidates[:, :25])


def test_the_account_of_a_run_with_sessions_missing_is_that_of_the_lists_there_are(folder):
    run = Run.reopen(folder)
    run.hop_candidates()
    lists, _ = offline_teachers.ranked(dataclasses.replace(run.settings, teacher="conventional"), run.dataset)
    some = Rankings(*(np.asarray(leaf)[3:] for leaf in (lists.session_id, lists.items, lists.mask)))
    save_rankings(folder / "rankings.jsonl", some)
    write_json(folder / "rankings.report.json", {})
    account = teacher_quality.teacher_account(run)
    train = run.dataset.train
    target = dict(zip(train.session_id.tolist(), train.target.tolist(), strict=True))
    held = [target[session] in row for session, row in zip(some.session_id.tolist(), some.items.tolist(), strict=True)]
    assert (account["asked"], account["usable"]) == (20, 17)
    assert account["hits@25"] == pytest.approx(np.mean(held))
    # The recommender's own order, for which the fixture stands in, is what these lists are.
    assert account["conventional@25"] == account["hits@25"] == account["similar"]
    assert account["incorrect"] == pytest.approx(1 - np.mean(held))


def test_recorded_lists_filled_up_hold_the_list_and_then_the_teachers_items():
    recorded = teachers.as_rankings({4: (9, 8), 6: ()}, 3)
    sessions = Sessions(*(np.array([[1], [1], [1]]), np.ones((3, 1), bool), np.array([2, 2, 2]), np.array([4, 5, 6])))
    filled = offline_teachers.filled_up(recorded, sessions, np.array([[8, 7, 6, 5], [8, 7, 6, 0], [1, 2, 3, 4]]))
    assert filled.tolist() == [[9, 8, 7, 6], [8, 7, 6, 0], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"teacher": "oracle"}, "--teacher is 'oracle'"),
        ({"teacher": "replay"}, "needs --rankings FILE"),
        ({"candidates": "recorded"}, "needs --data released"),
        ({"model": "m"}, "go together"),
    ],
)
def test_settings_that_no_hop_can_use_are_refused(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        Settings("synthetic", "fpmc", tmp_path, selection="own", **options).check()


@pytest.mark.slow
def test_rankings_over_http_give_the_student_that_replay_gives_bit_for_bit(release, tmp_path, monkeypatch, capsys):
    """ML: the server answers from the recorded file, faults included, and the two distilled students are equal."""
    import jax

    import alkd_jax as alkd
    from alkd_jax.llm import prompts

    def reproduce(out, *more):
        told = (
            f"--data released:{release}:ML --backbone fpmc --seeds 1 --max-steps 100 --candidates recorded --out {out}"
        )
        line = [sys.executable, "-m", "experiments.reproduce", *told.split(), "--candidates", "recorded", *more]
        return subprocess.run(line, cwd=paths.ROOT, capture_output=True, text=True)

    replayed, online = tmp_path / "replay", tmp_path / "online"
    assert reproduce(replayed).returncode == 0
    stopped = reproduce(online, "--teacher", "openai")
    assert "no model was asked yet" in stopped.stdout

    run = Run.reopen(online)
    raw, _ = alkd.data.load_released_rankings(release, "ML", repair=False, dataset=run.dataset)
    clean, _ = alkd.data.load_released_rankings(release, "ML", dataset=run.dataset)
    recorded, repaired = (
        {session: row[row > 0].tolist() for session, row in zip(lists.session_id.tolist(), lists.items, strict=True)}
        for lists in (raw, clean)
    )
    sessions, candidates = llm_settings.asked_sessions(online, run.dataset)
    answers = {}
    for asked in teachers.build_questions(sessions, candidates, run.dataset.titles, prompts.MOVIES):
        names = {item: f"C{n:02d}" for n, item in enumerate(asked.candidates)}
        # The record's repair takes out items of the whole session; the models see, and exclude, its last ten only.
        kept = repaired[asked.session_id]
        listed = [names[item] if item in kept else f"ID_{item}" for item in recorded[asked.session_id]]
        answers[asked.messages[-1]["content"]] = json.dumps({"ranking": listed})

    def behave(call):
        return [http(completion(call, answers[call.body["messages"][-1]["content"]]))]

    with FaultServer(behave) as server:
        line = f"c run --run {online} --base-url {server.url} --model gpt-4o-mini --budget-usd 20 --min-valid 1"
        monkeypatch.setattr(sys, "argv", line.split())
        query_llm.main()
        asked_for = len(server.calls)
        assert reproduce(online, "--teacher", "openai").returncode == 0
        assert len(server.calls) == asked_for >= 500
    with capsys.disabled():
        print(f"\n{asked_for} rankings over HTTP; {capsys.readouterr().out[-900:]}")  # noqa: T201
    assert (online / "rankings.jsonl").read_bytes() == (replayed / "rankings.jsonl").read_bytes()
    for method in ("distilled/ALKDRec", "distilled/Random"):
        first, second = (Run.reopen(folder).params(method) for folder in (replayed, online))
        jax.tree.map(np.testing.assert_array_equal, first, second)
    numbers = [read_json(folder / "metrics.json") for folder in (replayed, online)]
    assert numbers[0] == numbers[1]
