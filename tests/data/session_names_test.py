"""Raw ids of sessions: of the source, of a day and of a first time, kept in a prepared folder."""

import dataclasses
import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.prepared import prepare
from alkd_jax.data.prepared_folder import read_prepared, save_prepared
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.splits import SplitRules

NOON = 1_600_000_000_000
TABLE = "user,session,item,time\n" + "".join(
    f"{user},{visit},i{visit}{step % 3},{NOON // 1000 + 86_400 * visit + 7_200 * (step // 2) + step}\n"
    for user in ("ann", "bob")
    for visit in range(5)
    for step in range(4)
)


def names(tmp_path, text, rules, split="block"):
    (tmp_path / "plays.csv").write_text(text)
    return prepare(alkd.data.load_table(tmp_path / "plays.csv"), rules, split=split).session_ids


def test_each_boundary_names_its_sessions(tmp_path):
    untitled = TABLE.replace("user,session", "user,visit")
    days = names(tmp_path, untitled, SessionRules(min_length=2))
    assert days[:2] == ("ann 2020-09-13", "ann 2020-09-14")
    gaps = names(tmp_path, untitled, SessionRules("gap", min_length=2))
    assert gaps[:2] == ("ann 2020-09-13T12:26:40.000", "ann 2020-09-13T14:26:42.000")
    # Both users have sessions 0 to 4.
    given = names(tmp_path, TABLE, SessionRules("given", min_length=2))
    assert given[:2] == ("ann 0", "ann 1")
    one_user = "".join(line for line in TABLE.splitlines(keepends=True) if not line.startswith("bob"))
    assert names(tmp_path, one_user, SessionRules("given", min_length=2)) == ("0", "1", "2", "3", "4")
    assert all(len(set(found)) == len(found) for found in (days, gaps, given))


def test_a_part_of_a_session_has_the_id_of_the_session(tmp_path):
    (tmp_path / "plays.csv").write_text(TABLE)
    log = alkd.data.load_table(tmp_path / "plays.csv")
    rules = SessionRules("given", min_length=2, duplicates="keep")
    prepared = prepare(log, rules, split=SplitRules("leave-one-out"))
    assert set(prepared.session_ids) == {f"{user} {visit}" for user in ("ann", "bob") for visit in range(5)}
    dataset = prepared.dataset()
    for part in (dataset.train, dataset.validation, dataset.test):
        found = [dataset.session_ids[number] for number in part.session_id.tolist()]
        assert len(set(found)) == len(found)


def test_a_folder_keeps_the_ids_and_one_without_still_loads(tmp_path):
    (tmp_path / "plays.csv").write_text(TABLE)
    prepared = prepare(alkd.data.load_table(tmp_path / "plays.csv"), SessionRules("given", min_length=2))
    save_prepared(tmp_path / "new", prepared)
    assert read_prepared(tmp_path / "new").session_ids == prepared.session_ids
    save_prepared(tmp_path / "old", dataclasses.replace(prepared, session_ids=None))
    old = read_prepared(tmp_path / "old")
    assert old.session_ids is None
    assert old.dataset().fingerprint == prepared.dataset().fingerprint
    (tmp_path / "new" / "session_ids.jsonl").write_text(json.dumps("ann 0") + "\n")
    with pytest.raises(ValueError, match=r"session_ids\.jsonl is not the file that was written with the manifest"):
        read_prepared(tmp_path / "new")
    assert np.asarray(prepared.dataset().train.session_id).tolist() == list(range(6))
