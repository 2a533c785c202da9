"""Run folders: what is reused, what is run again, and that nothing half-written stays."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

from alkd_jax.io import lock_folder, read_json, unlock_folder, write_json
from experiments import reproduce
from experiments.pipeline.run import OpenRun
from experiments.pipeline.run_folder import RunFolder
from experiments.pipeline.settings import Settings
from experiments.reporting import console
from tests.helpers import paths


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run", announce=lambda line: None)
    folder.open({"data": "world"})
    return folder


def writer(calls, text="x", name="a.txt"):
    def work(partial):
        calls.append(text)
        (partial / name).write_text(text)

    return work


def test_a_hop_is_run_once_for_the_same_inputs_and_again_for_others(folder):
    calls = []
    for budget in (500, 500, 600, 600):
        folder.stage("select", {"budget": budget}, ["a.txt"], writer(calls, str(budget)))
    assert calls == ["500", "600"]
    assert (folder.path / "a.txt").read_text() == "600"


def test_a_hop_is_run_again_when_its_output_is_gone(folder):
    calls = []
    folder.stage("select", {}, ["a.txt"], writer(calls))
    (folder.path / "a.txt").unlink()
    folder.stage("select", {}, ["a.txt"], writer(calls))
    assert len(calls) == 2


def test_a_hop_is_run_again_when_an_earlier_one_changed(folder):
    calls = []
    for dim in (10, 10, 12):
        folder.stage("train", {"dim": dim}, ["a.txt"], writer([]))
        folder.stage("evaluate", {}, ["b.txt"], writer(calls, name="b.txt"), after=["train"])
    assert len(calls) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_hop_leaves_the_former_output_and_no_remains(folder, error):
    folder.stage("select", {"budget": 1}, ["a.txt"], writer([], "old"))

    def breaks(partial):
        (partial / "a.txt").write_text("half")
        raise error

    with pytest.raises(error):
        folder.stage("select", {"budget": 2}, ["a.txt"], breaks)
    assert (folder.path / "a.txt").read_text() == "old"
    assert sorted(p.name for p in folder.path.iterdir()) == [".lock", "a.txt", "hops.json", "run.json"]
    calls = []
    folder.stage("select", {"budget": 1}, ["a.txt"], writer(calls))
    assert calls == []


def test_a_folder_of_another_run_or_of_the_user_is_refused(folder, tmp_path):
    folder.open({"data": "world"})
    with pytest.raises(ValueError, match="data is 'world', asked 'ML'"):
        folder.open({"data": "ML"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not a run's"):
        RunFolder(tmp_path / "mine", announce=lambda line: None).open({})
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "mine" / "thesis.tex", announce=lambda line: None).open({})


OPEN = """
import pathlib, sys
from experiments.pipeline.run_folder import RunFolder
RunFolder(pathlib.Path(sys.argv[1]), announce=print).open({"data": sys.argv[2]})
"""
OPEN_RUN = """
import pathlib, sys
from experiments.pipeline.run import OpenRun
from experiments.pipeline.settings import Settings
OpenRun.open(Settings("synthetic", "fpmc", pathlib.Path(sys.argv[1]), selection="own"))
"""


def elsewhere(path, data="world"):
    """What a process of its own is told when it opens the folder; empty where it may."""
    done = subprocess.run([sys.executable, "-c", OPEN, str(path), data], cwd=paths.ROOT, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2]


@contextlib.contextmanager
def held_elsewhere(path, code=OPEN):
    """Another process works in the folder, until it is killed."""
    line = [sys.executable, "-c", f"{code}print('open', flush=True)\nsys.stdin.read()", str(path), "world"]
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
    folder.open({"data": "world"})
    before = contents(folder.path)
    told = f"ValueError: {folder.path} is in use by process {os.getpid()}; wait until it ends, or choose another folder"
    assert elsewhere(folder.path) == told
    assert contents(folder.path) == before


def test_a_killed_process_locks_nobody_out(tmp_path):
    path = tmp_path / "run"
    mine = RunFolder(path, announce=lambda line: None)
    with held_elsewhere(path) as other, pytest.raises(ValueError, match=f"in use by process {other.pid};"):
        mine.open({"data": "world"})
    mine.open({"data": "world"})
    assert (path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_is_refused_is_not_held(folder):
    unlock_folder(folder.path)
    with pytest.raises(ValueError, match="holds another run"):
        folder.open({"data": "ML"})
    assert elsewhere(folder.path) == ""
    folder.open({"data": "world"})
    with pytest.raises(ValueError, match="holds another run"):
        folder.open({"data": "ML"})
    assert "in use" in elsewhere(folder.path), "refusing something else does not give up what is held"


def test_a_folder_that_was_deleted_and_made_again_is_held_again(folder):
    shutil.rmtree(folder.path)
    folder.open({"data": "world"})
    assert "in use" in elsewhere(folder.path)


def test_one_folder_has_one_lock_under_all_its_names(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder.path)
    assert not lock_folder(tmp_path / "link")
    assert "in use" in elsewhere(tmp_path / "link")


def test_a_lock_alone_makes_no_folder_foreign(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("4711")
    RunFolder(tmp_path / "run", announce=lambda line: None).open({"data": "world"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not a run's"):
        RunFolder(tmp_path / "mine", announce=lambda line: None).open({})
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]


def test_a_command_is_refused_in_one_line_beside_a_run_and_may_look(tmp_path, capsys):
    path = tmp_path / "run"
    with held_elsewhere(path, OPEN_RUN) as other:
        before = contents(path)
        with pytest.raises(SystemExit) as stop, console.cli_errors():
            reproduce.run_pipeline(Settings("synthetic", "fpmc", path, selection="own", max_steps=1))
        assert stop.value.code == 2
        told = f"error: {path} is in use by process {other.pid}; wait until it ends, or choose another folder\n"
        assert capsys.readouterr().out == told
        with pytest.raises(ValueError, match="in use"):
            OpenRun.reopen(path)
        assert OpenRun.reopen(path, readonly=True).settings.out == path
        with pytest.raises(ValueError, match="holds another run"):
            OpenRun.open(Settings("synthetic:1", "fpmc", path, selection="own"), readonly=True)
        assert contents(path) == before
    OpenRun.reopen(path)


def test_looking_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no run's folder"):
        RunFolder(tmp_path / "run", announce=lambda line: None).open({}, readonly=True)
    assert not (tmp_path / "run").exists()


def test_json_round_trip_and_damage(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    (tmp_path / "a.json").write_text('{\n"a": [1,\n')
    with pytest.raises(ValueError, match=r"a\.json:3: "):
        read_json(tmp_path / "a.json")
