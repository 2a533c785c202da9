"""The prepared folder: one writer at a time, replaced only as a whole, and damage named with what to do."""

import dataclasses
import errno
import json
import os
import pathlib

import numpy as np
import pytest

from alkd_jax import locks
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.prepared_folder import load_prepared, read_prepared, save_prepared
from alkd_jax.types import Sequences
from tests.helpers.kills import Killed, killed_at

FILES = ("sessions.npz", "items.jsonl", "session_ids.jsonl", "manifest.json")
AGAIN = "put back a copy of it, or repeat the experiments.prepare that made the folder"


def made(*, first=1):
    """Six sessions of three items of nine; ``first`` tells two datasets apart."""
    items = (np.arange(18, dtype=np.int32) + first) % 9 + 1
    return Prepared(
        name="toy",
        sequences=Sequences(items=items, offsets=np.arange(0, 19, 3, dtype=np.int64)),
        time=np.arange(18, dtype=np.int64),
        user=np.arange(6, dtype=np.int32),
        sizes=(4, 1, 1),
        titles=("", *(f"title {n}" for n in range(1, 10))),
        item_ids=("", *(f"id {n}" for n in range(1, 10))),
        options={"split": {"rule": "block"}},
        report={},
        session_ids=tuple(f"session {n + first}" for n in range(6)),
    )


def is_sound(folder, first):
    return load_prepared(folder).fingerprint == made(first=first).dataset().fingerprint


def is_sound_or_refused(folder):
    try:
        return is_sound(folder, 1) or is_sound(folder, 2)
    except ValueError as error:
        return AGAIN in str(error)


def test_a_kill_at_any_write_leaves_a_dataset_that_is_sound_or_refused_and_a_repetition_ends(tmp_path):
    for is_new in (True, False):
        for step in range(1, 100):
            folder = tmp_path / f"{is_new} {step}"
            if not is_new:
                save_prepared(folder, made(first=1))
            try:
                with killed_at(step):
                    save_prepared(folder, made(first=2))
            except Killed:
                assert is_new or is_sound_or_refused(folder)
                save_prepared(folder, made(first=2))
                assert is_sound(folder, 2)
                assert sorted(os.listdir(folder)) == sorted(FILES)
            else:
                break
        assert step > 8


def test_a_failure_for_lack_of_space_names_the_file_leaves_what_was_there_and_can_be_repeated(tmp_path, monkeypatch):
    save_prepared(tmp_path, made(first=1))

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(OSError, match="No space left") as caught:
                save_prepared(folder, made(first=2))
            assert pathlib.Path(caught.value.filename).name == "sessions.npz"
    assert is_sound(tmp_path, 1)
    assert os.listdir(tmp_path / "new") == []
    save_prepared(tmp_path / "new", made(first=2))
    save_prepared(tmp_path, made(first=2))
    assert is_sound(tmp_path, 2)


def test_a_second_process_is_refused_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_process_exists", lambda process: True)
    record = {"process": 4711, "host": "node7", "kernel": "another", "since": "now"}
    (tmp_path / ".lock").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"{tmp_path} is in use by process 4711 on node7"):
        save_prepared(tmp_path, made())
    assert os.listdir(tmp_path) == [".lock"]


DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, damage):
    save_prepared(tmp_path, made())
    file = tmp_path / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(ValueError, match=f"{name}.*; {AGAIN}") as caught:
        read_prepared(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"sessions": 6', '"sessions": 7'),
        ('"items": 9', '"items": 8'),
        ('"train": 4', '"train": 3'),
        ('"train": 4', '"train": "4"'),
        ('"rule": "block"', '"rule": "none"'),
        ('"report": {}', '"report": []'),
        ('"files": {', '"fils": {'),
    ],
)
def test_an_edited_manifest_is_named(tmp_path, old, new):
    save_prepared(tmp_path, made())
    text = (tmp_path / "manifest.json").read_text()
    assert old in text
    (tmp_path / "manifest.json").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_prepared(tmp_path)


def test_sessions_that_an_edit_moves_between_the_splits_are_noticed(tmp_path):
    save_prepared(tmp_path, made())
    text = (tmp_path / "manifest.json").read_text()
    text = text.replace('"train": 4', '"train": 3').replace('"validation": 1', '"validation": 2')
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json was edited: fingerprint is"):
        load_prepared(tmp_path)


def test_only_remains_of_our_own_are_replaced(tmp_path):
    (tmp_path / "sessions.npz").write_bytes(b"mine")
    with pytest.raises(ValueError, match="contains other files"):
        save_prepared(tmp_path, made())
    assert (tmp_path / "sessions.npz").read_bytes() == b"mine"


def test_a_dataset_has_the_times_of_its_source_and_none_where_they_are_row_numbers():
    timed, untimed = (dataclasses.replace(made(), report={"has_times": has}).dataset() for has in (True, False))
    assert timed.test_sequences.sequences.time.tolist() == [15, 16, 17]
    assert timed.train_sequences.time.tolist() == list(range(12))
    assert untimed.train_sequences.time is None
    assert timed.fingerprint == untimed.fingerprint == made().dataset().fingerprint
