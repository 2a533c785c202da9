"""Locks of folders: who holds one, what becomes of a dead process's, and where only its record is seen."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from alkd_jax import locks
from alkd_jax.locks import LOCK, lock_folder, locked, unlock_folder
from tests.helpers import paths

HOLD = """
import pathlib, sys
from alkd_jax.locks import lock_folder
lock_folder(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
DEAD_PROCESS = 2**22 - 1
"""Above every process number that Linux gives by default."""


@contextlib.contextmanager
def locked_by_other_process(path, *, end=signal.SIGKILL):
    line = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(line, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        if end is not None:
            process.send_signal(end)
        process.communicate()


def write_record(path, *, age=0.0, **changes):
    """Writes the record that another process left, which was renewed some seconds ago."""
    fields = {"process": DEAD_PROCESS, "host": "node7", "kernel": locks._kernel(), "since": "2026-01-01T00:00:00+00:00"}
    (path / LOCK).write_text(json.dumps(fields | changes) + "\n")
    now = (path / LOCK).stat().st_mtime
    os.utime(path / LOCK, (now - age, now - age))


@pytest.fixture
def without_flock(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)


def test_the_second_process_is_told_which_one_works_in_the_folder_until_that_ends(tmp_path):
    with locked_by_other_process(tmp_path) as other:
        with pytest.raises(ValueError, match=rf"is in use by process {other.pid} on \S+ since \d{{4}}-\S+; wait"):
            lock_folder(tmp_path)
        assert sorted(os.listdir(tmp_path)) == [LOCK], "a refusal leaves nothing"
        # A cleaner may delete the record: the folder stays locked.
        (tmp_path / LOCK).unlink()
        with pytest.raises(ValueError, match="is in use by another process; wait"):
            lock_folder(tmp_path)
    assert lock_folder(tmp_path)
    assert not lock_folder(tmp_path), "it is ours already"
    assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    unlock_folder(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_process_that_ends_leaves_no_record(tmp_path):
    with locked_by_other_process(tmp_path, end=None):
        assert os.listdir(tmp_path) == [LOCK]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("record", "in_use"),
    [
        ({}, False),
        ({"kernel": "another", "age": 10}, True),
        ({"kernel": "another", "age": 10_000}, False),
    ],
)
def test_beside_a_lock_of_the_kernel_only_a_living_process_elsewhere_counts(tmp_path, record, in_use):
    write_record(tmp_path, **record)
    if in_use:
        with pytest.raises(ValueError, match=r"process \d+ on node7 since 2026.* sign of life \d+ s ago"):
            lock_folder(tmp_path)
        assert json.loads((tmp_path / LOCK).read_text())["host"] == "node7"
    else:
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert [name for name in os.listdir(tmp_path) if name != LOCK] == []


@pytest.mark.parametrize(
    ("record", "in_use"),
    [
        ({"process": os.getppid()}, True),
        ({"process": os.getpid()}, False),
        ({"process": DEAD_PROCESS}, False),
        ({"kernel": "another", "age": 10}, True),
        ({"kernel": "another", "age": 10_000}, False),
    ],
)
def test_without_locks_of_the_kernel_the_record_decides(tmp_path, without_flock, record, in_use):
    write_record(tmp_path, **record)
    if in_use:
        with pytest.raises(ValueError, match="in use by process"):
            lock_folder(tmp_path)
    else:
        assert lock_folder(tmp_path)
        unlock_folder(tmp_path)


def test_of_two_processes_that_find_a_stale_record_one_gets_the_folder(tmp_path, without_flock, monkeypatch):
    write_record(tmp_path)
    monkeypatch.setattr(locks, "_is_alive", lambda *args, **options: write_record(tmp_path, process=os.getppid()))
    with pytest.raises(ValueError, match=f"in use by process {os.getppid()} on node7"):
        lock_folder(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [LOCK]


@pytest.mark.parametrize("text", ["", "4711\n", "{", '{"process": "x"}', "[]", "\x00" * 50])
def test_a_damaged_record_or_one_of_an_earlier_version_locks_nothing(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_records_are_renewed_and_written_again_but_no_others(tmp_path):
    for name in ("old", "deleted", "others"):
        (tmp_path / name).mkdir()
        lock_folder(tmp_path / name)
    write_record(tmp_path / "others")
    theirs = (tmp_path / "others" / LOCK).read_text()
    os.utime(tmp_path / "old" / LOCK, (0, 0))
    (tmp_path / "deleted" / LOCK).unlink()
    locks.renew_records()
    assert (tmp_path / "old" / LOCK).stat().st_mtime > 10**9
    assert json.loads((tmp_path / "deleted" / LOCK).read_text())["process"] == os.getpid()
    for name in ("old", "deleted", "others"):
        unlock_folder(tmp_path / name)
    assert (tmp_path / "others" / LOCK).read_text() == theirs


def test_a_folder_that_was_deleted_and_made_again_is_locked_again_and_a_link_is_the_same_folder(tmp_path):
    folder, link = tmp_path / "run", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert lock_folder(folder)
    assert not lock_folder(link)
    shutil.rmtree(folder)
    folder.mkdir()
    assert lock_folder(folder)
    unlock_folder(link)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, number):
    def refuse(*args, **options):
        raise OSError(number, os.strerror(number), str(tmp_path / LOCK))

    monkeypatch.setattr(locks.pathlib.Path, "write_text", refuse)
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be written .*; expected a folder to which"):
        lock_folder(tmp_path)
