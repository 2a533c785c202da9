"""Run folders: which stages are reused, which run again, and that no partial output remains."""

import contextlib
import dataclasses
import errno
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from alkd_jax.errors import FullDiskError, explain
from alkd_jax.evaluation import Protocol
from alkd_jax.io import read_json, save_arrays, write_json
from alkd_jax.locks import unlock_folder
from experiments import record, reproduce
from experiments.pipeline import console, stage_records
from experiments.pipeline.run import RunContext
from experiments.pipeline.run_folder import RunFolder
from experiments.pipeline.settings import Settings
from experiments.pipeline.stage_records import checked_output
from tests.helpers import paths
from tests.helpers.kills import Killed, killed_at


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run", announce=lambda line: None)
    folder.open({"data": "synthetic"})
    return folder


def writer(calls, text="x", name="a.txt"):
    def work(partial):
        calls.append(text)
        (partial / name).write_text(text)

    return work


def overwriting(folder):
    return dataclasses.replace(folder, overwrite=True)


def test_older_folders_continue_with_the_defaults_of_the_protocol():
    assert stage_records.PROTOCOL_DEFAULTS == {"seen": Protocol().seen, "targets": Protocol().targets}


def test_a_stage_runs_once_for_the_same_inputs_and_again_for_others_with_overwrite(folder):
    calls = []
    for budget in (500, 500, 600, 600):
        overwriting(folder).run_stage("select", {"budget": budget}, ["a.txt"], writer(calls, str(budget)))
    assert calls == ["500", "600"]
    assert (folder.path / "a.txt").read_text() == "600"


def test_options_that_would_replace_results_are_listed_and_refused(folder):
    calls = []
    inputs = {"select": {"budget": 500, "row": {"steps": 10}}, "train": {"ratios": (1, 5, 4)}, "new": {"x": 1}}
    for name in ("select", "train"):
        folder.run_stage(name, inputs[name], [name], writer(calls, name, name))
    folder.refuse_replacing(inputs)
    changed = {"select": {"budget": 40, "row": {"steps": 20}}, "train": {"ratios": (1, 4, 5)}, "new": {"x": 2}}
    line = (
        f"{folder.path} holds finished results of other options, which would be replaced: "
        "select (budget 500 → 40, row.steps 10 → 20); train (ratios [1, 5, 4] → [1, 4, 5]); "
        "expected the same options, --overwrite, or another folder"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        folder.refuse_replacing(changed)
    overwriting(folder).refuse_replacing(changed)
    with pytest.raises(ValueError, match="budget 500 → 40"):
        folder.run_stage("select", changed["select"], ["select"], writer(calls, name="select"))
    (folder.path / "select").unlink()
    folder.run_stage("select", changed["select"], ["select"], writer(calls, "missing", "select"))
    assert calls == ["select", "train", "missing"], "a stage whose outputs are missing replaces nothing"


def test_more_methods_and_stages_that_follow_run_again_without_being_asked(folder):
    calls = []
    for methods in (["A"], ["A", "B"]):
        folder.run_stage("lists", {"methods": methods}, ["a.txt"], writer(calls))
        folder.run_stage("ranks", {}, ["b.txt"], writer(calls, name="b.txt"), after=["lists"])
    assert len(calls) == 4


def test_records_of_earlier_versions_are_completed(folder):
    """They have neither the options nor the digests."""
    lines = []
    folder = dataclasses.replace(folder, announce=lines.append)
    for name in ("select", "train"):
        folder.run_stage(name, {"budget": 500}, [name], writer([], name=name))
    kept = ("digest", "outputs", "seconds")
    old = {name: {key: record[key] for key in kept} for name, record in folder.finished_stages.items()}
    write_json(folder.path / "stages.json", old)
    folder.run_stage("select", {"budget": 500}, ["select"], writer([], name="select"))
    assert "which are recorded as they are now" in lines[-1]
    (folder.path / "select").write_text("y")
    with pytest.raises(ValueError, match="select is damaged or was edited"):
        folder.run_stage("select", {"budget": 500}, ["select"], writer([], name="select"))
    with pytest.raises(ValueError, match="stage train of other options, which an earlier version did not record"):
        folder.run_stage("train", {"budget": 600}, ["train"], writer([], name="train"))
    stage_records.add_inputs(folder.path, {"train": {"budget": 500}})
    with pytest.raises(ValueError, match=r"train \(budget 500 → 600\)"):
        folder.run_stage("train", {"budget": 600}, ["train"], writer([], name="train"))


def write_params(partial):
    for name in ("a.npz", "params/_METADATA", "params/d/0"):
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_bytes(bytes(range(100)))


@pytest.mark.parametrize("name", ["a.npz", "params/_METADATA", "params/d/0"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:50]),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
        lambda file: file.with_name("further").write_bytes(b"") if file.parent.name != "run" else file.write_bytes(b""),
        lambda file: file.rename(file.with_name("renamed")) if file.parent.name != "run" else file.write_bytes(b"1"),
    ],
)
def test_a_damaged_output_is_named_and_its_stage_runs_again_when_it_is_deleted_or_with_overwrite(folder, name, damage):
    outputs, lines = ["a.npz", "params"], []
    folder.run_stage("train", {}, outputs, write_params)
    assert checked_output(folder.path, "a.npz") == folder.path / "a.npz"
    damage(folder.path / name)
    output = folder.path / name.partition("/")[0]
    line = f"^{re.escape(str(output))} is damaged or was edited: it is not what the stage train wrote; .*--overwrite"
    with pytest.raises(ValueError, match=line):
        folder.run_stage("train", {}, outputs, write_params)
    with pytest.raises(ValueError, match=line):
        checked_output(folder.path, output.name)
    again = dataclasses.replace(folder, announce=lines.append, overwrite=True)
    again.run_stage("train", {}, outputs, write_params)
    assert "runs again" in lines[0]
    assert [checked_output(folder.path, output).name for output in outputs] == outputs


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"a": 1}', '{"a": {"digest": 1}}', "\x00\x00", "[" * 10**5]
)
def test_a_damaged_record_or_identity_is_named_with_what_to_do(folder, content):
    folder.run_stage("select", {}, ["a.txt"], writer([]))
    (folder.path / "stages.json").write_text(content)
    with pytest.raises(ValueError, match=r"stages\.json.*expected .*delete it to run all stages again$") as caught:
        folder.run_stage("select", {}, ["a.txt"], writer([]))
    assert "\n" not in str(caught.value)
    (folder.path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json|holds another run") as caught:
        folder.open({"data": "synthetic"})
    assert "\n" not in str(caught.value)


def test_a_stage_runs_again_when_its_output_is_missing(folder):
    calls = []
    folder.run_stage("select", {}, ["a.txt"], writer(calls))
    (folder.path / "a.txt").unlink()
    folder.run_stage("select", {}, ["a.txt"], writer(calls))
    assert len(calls) == 2


def test_a_stage_runs_again_when_an_earlier_one_changed(folder):
    calls, folder = [], overwriting(folder)
    for dim in (10, 10, 12):
        folder.run_stage("train", {"dim": dim}, ["a.txt"], writer([]))
        folder.run_stage("evaluate", {}, ["b.txt"], writer(calls, name="b.txt"), after=["train"])
    assert len(calls) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_stage_leaves_the_former_output_and_no_partial_one(folder, error):
    folder.run_stage("select", {"budget": 1}, ["a.txt"], writer([], "old"))

    def breaks(partial):
        (partial / "a.txt").write_text("half")
        raise error

    with pytest.raises(error):
        overwriting(folder).run_stage("select", {"budget": 2}, ["a.txt"], breaks)
    assert (folder.path / "a.txt").read_text() == "old"
    assert sorted(p.name for p in folder.path.iterdir()) == [".lock", "a.txt", "run.json", "stages.json"]
    calls = []
    folder.run_stage("select", {"budget": 1}, ["a.txt"], writer(calls))
    assert calls == []


def test_a_folder_of_another_run_or_of_the_user_is_refused(folder, tmp_path):
    folder.open({"data": "synthetic"})
    with pytest.raises(ValueError, match="data is 'synthetic', not 'ML'"):
        folder.open({"data": "ML"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="belong to no run"):
        RunFolder(tmp_path / "mine", announce=lambda line: None).open({})
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "mine" / "thesis.tex", announce=lambda line: None).open({})


def test_the_run_of_an_earlier_version_is_refused_and_left_unchanged(tmp_path, capsys):
    """Its record of stages has another name, and its files and configuration may have other names and keys."""
    path = tmp_path / "run"
    path.mkdir()
    write_json(path / "run.json", {"data": "synthetic"})
    write_json(path / "hops.json", {"neighbors": {"digest": "0", "outputs": ["neighbor_ranks.npz"], "seconds": 1.0}})
    write_json(path / "config.json", {"data": "synthetic", "backbone": "fpmc", "an_option_of_old": 1})
    before = contents(path)
    settings = Settings("synthetic", "fpmc", path, selection="own", max_steps=1)
    for command in (
        lambda: reproduce.run_pipeline(settings),
        lambda: RunContext.reopen(path),
        lambda: RunContext.reopen(path, readonly=True),
        lambda: record.condensed_results(path),
        lambda: RunFolder(path, announce=print).open({"data": "synthetic"}),
    ):
        with pytest.raises(SystemExit) as stop, console.cli_errors():
            command()
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"error: {path} was made by an earlier version; choose another folder\n"
    assert contents(path) == before


OPEN = """
import pathlib, sys
from experiments.pipeline.run_folder import RunFolder
RunFolder(pathlib.Path(sys.argv[1]), announce=print).open({"data": sys.argv[2]})
"""
OPEN_RUN = """
import pathlib, sys
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings
RunContext.open(Settings("synthetic", "fpmc", pathlib.Path(sys.argv[1]), selection="own"))
"""


def open_in_other_process(path, data="synthetic"):
    """The last line of the error that another process gets when it opens the folder; empty where it succeeds."""
    done = subprocess.run([sys.executable, "-c", OPEN, str(path), data], cwd=paths.ROOT, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2]


@contextlib.contextmanager
def locked_by_other_process(path, code=OPEN):
    """Another process works in the folder until the block ends, which kills it."""
    line = [sys.executable, "-c", f"{code}print('open', flush=True)\nsys.stdin.read()", str(path), "synthetic"]
    process = subprocess.Popen(line, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_second_process_is_refused_while_the_first_is_alive(folder):
    folder.open({"data": "synthetic"})
    before = contents(folder.path)
    error = f"ValueError: {folder.path} is in use by process {os.getpid()} on {socket.gethostname()} since "
    assert open_in_other_process(folder.path).startswith(error)
    assert contents(folder.path) == before


def test_a_killed_process_leaves_no_lock(tmp_path):
    path = tmp_path / "run"
    mine = RunFolder(path, announce=lambda line: None)
    with locked_by_other_process(path) as other, pytest.raises(ValueError, match=f"in use by process {other.pid} on"):
        mine.open({"data": "synthetic"})
    mine.open({"data": "synthetic"})
    assert read_json(path / ".lock")["process"] == os.getpid()


def test_a_folder_that_is_refused_is_not_locked(folder):
    unlock_folder(folder.path)
    with pytest.raises(ValueError, match="holds another run"):
        folder.open({"data": "ML"})
    assert open_in_other_process(folder.path) == ""
    folder.open({"data": "synthetic"})
    with pytest.raises(ValueError, match="holds another run"):
        folder.open({"data": "ML"})
    assert "in use" in open_in_other_process(folder.path), "a refusal does not release the lock of an open folder"


def test_a_folder_that_holds_only_a_lock_is_accepted(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("4711")
    RunFolder(tmp_path / "run", announce=lambda line: None).open({"data": "synthetic"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="belong to no run"):
        RunFolder(tmp_path / "mine", announce=lambda line: None).open({})
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]


def test_a_command_is_refused_in_one_line_beside_a_run_and_may_read(tmp_path, capsys):
    path = tmp_path / "run"
    with locked_by_other_process(path, OPEN_RUN) as other:
        before = contents(path)
        with pytest.raises(SystemExit) as stop, console.cli_errors():
            reproduce.run_pipeline(Settings("synthetic", "fpmc", path, selection="own", max_steps=1))
        assert stop.value.code == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: {path} is in use by process {other.pid} on ")
        assert line.count("\n") == 1
        with pytest.raises(ValueError, match="in use"):
            RunContext.reopen(path)
        assert RunContext.reopen(path, readonly=True).settings.out == path
        with pytest.raises(ValueError, match="holds another run"):
            RunContext.open(Settings("synthetic:1", "fpmc", path, selection="own"), readonly=True)
        assert contents(path) == before
    RunContext.reopen(path)


def test_opening_readonly_creates_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"has no run\.json"):
        RunFolder(tmp_path / "run", announce=lambda line: None).open({}, readonly=True)
    assert not (tmp_path / "run").exists()


def run_two_stages(path, identity=None):
    folder = RunFolder(path, announce=lambda line: None)
    folder.open(identity or {"data": "synthetic"})
    folder.run_stage("train", {}, ["a.npz", "params"], write_params)
    folder.run_stage("rank", {}, ["ranks.txt"], writer([], name="ranks.txt"), after=["train"])


def test_a_kill_at_any_write_leaves_a_run_that_the_same_command_ends(tmp_path):
    run_two_stages(tmp_path / "whole")
    whole = {name: data for name, data in contents(tmp_path / "whole").items() if name.suffix != ".json"}
    for step in range(1, 200):
        path = tmp_path / str(step)
        try:
            with killed_at(step):
                run_two_stages(path)
        except Killed:
            if (path / ".lock").exists():
                with contextlib.suppress(KeyError):
                    unlock_folder(path)
            run_two_stages(path)
            left = contents(path)
            assert {name: left[name] for name in whole if name.name != ".lock"} == {
                name: data for name, data in whole.items() if name.name != ".lock"
            }
            assert not list(path.rglob("*.partial")), "what the killed process left is removed"
        else:
            break
    assert step > 20


def test_a_disk_that_is_full_stops_a_stage_with_the_name_of_the_file_and_the_same_command_continues(
    folder, monkeypatch
):
    def write(partial):
        save_arrays(partial / "a.npz", x=np.arange(9))

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(FullDiskError) as caught:
            folder.run_stage("train", {}, ["a.npz"], write)
    line = explain(caught.value)
    assert re.search(r"a\.npz: no space left on the disk, at least 4 bytes needed, [\d,]+ bytes free; make room", line)
    folder.run_stage("train", {}, ["a.npz"], write)
    assert checked_output(folder.path, "a.npz").exists()
