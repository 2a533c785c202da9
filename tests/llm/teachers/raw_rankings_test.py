"""Rankings of raw ids: what is used and what is refused adds up, and the two forms are told apart."""

import dataclasses
import json

import numpy as np
import pytest

from alkd_jax.data.sessions import build_dataset, pack
from alkd_jax.llm.teachers.raw_rankings import has_raw_ids, in_words, load_raw_rankings

SESSIONS = tuple(f"user {n}" for n in range(10))
ITEMS = ("", *(f"id {n}" for n in range(1, 10)))


def dataset(session_ids=SESSIONS):
    rows = [[n % 9 + 1, (n + 1) % 9 + 1, (n + 2) % 9 + 1] for n in range(10)]
    return dataclasses.replace(build_dataset("toy", pack(rows), ("",) * 10, ITEMS), session_ids=session_ids)


def written(tmp_path, *records):
    path = tmp_path / "lists.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_used_and_refused_add_up(tmp_path):
    path = written(
        tmp_path,
        {"session": "user 1", "items": ["id 3", "id 9"], "model": "mine"},
        {"session": "user 0", "items": ["id 4", "nothing", "id 4", "id 5", "id 6"]},
        {"session": "user 1", "items": ["id 3"]},
        {"session": "user 9", "items": ["id 3"]},
        {"session": "nobody", "items": ["id 3", "id 4"]},
        {"session": "user 2", "items": ["id 1", "nothing"]},
        {"session": "user 3", "items": []},
    )
    read = load_raw_rankings(path, dataset(), min_valid=3)
    assert read.rankings.session_id.tolist() == [1, 0]
    assert read.rankings.items.tolist() == [[3, 9, 0], [4, 5, 6]]
    assert np.array_equal(read.rankings.mask, read.rankings.items > 0)
    report = read.report
    assert report["lists_refused"] == {
        "unknown session": 1,
        "session not in training": 1,
        "session listed before": 1,
        "too short": 2,
    }
    assert report["items_dropped"] == {"unknown item": 1, "item listed before": 1, "in a refused list": 6}
    assert report["lists_read"] == 7 == report["lists_used"] + sum(report["lists_refused"].values())
    assert report["items_read"] == 13 == report["items_used"] + sum(report["items_dropped"].values())
    assert "7 lists read, 2 used, refused: 1 unknown session, 1 session not in training" in in_words(report)


def test_ids_written_as_numbers_are_texts(tmp_path):
    data = build_dataset("n", pack([[1, 2], [2, 1], [1, 2], [2, 1], [1, 2]]), ("",) * 3, ("", "7", "8"))
    data = dataclasses.replace(data, session_ids=("10", "11", "12", "13", "14"))
    read = load_raw_rankings(written(tmp_path, {"session": 11, "items": [8, "7"]}), data)
    assert (read.rankings.session_id.tolist(), read.rankings.items.tolist()) == ([1], [[2, 1]])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "is empty"),
        ([{"items": [1]}], "expected one of the keys session"),
        ([{"session": "a", "session_id": 1, "items": []}], "expected one of the keys session"),
        ([[1, 2]], "expected one of the keys session"),
    ],
)
def test_the_forms_are_told_apart_by_the_key(tmp_path, records, message):
    assert has_raw_ids(written(tmp_path, {"session": "a", "items": []}))
    assert not has_raw_ids(written(tmp_path, {"session_id": 1, "items": []}))
    with pytest.raises(ValueError, match=message):
        has_raw_ids(written(tmp_path, *records))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"session_id": 3, "items": [1]}, r"lists\.jsonl:2: .*as on the first line"),
        ({"session": "user 0", "items": "id 1"}, r"lists\.jsonl:2: "),
        ({"session": "user 0", "items": [1.5]}, r"lists\.jsonl:2: "),
        ({"session": True, "items": []}, r"lists\.jsonl:2: "),
        ({"session": "user 0"}, r"lists\.jsonl:2: "),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path, record, message):
    path = written(tmp_path, {"session": "user 1", "items": ["id 1"]}, record)
    with pytest.raises(ValueError, match=message):
        load_raw_rankings(path, dataset())


def test_data_without_raw_ids_and_files_without_a_usable_list_are_refused(tmp_path):
    path = written(tmp_path, {"session": "nobody", "items": ["id 1"]})
    with pytest.raises(ValueError, match=r"toy has none; expected lines with session_id, or data that an up-to-date"):
        load_raw_rankings(path, dataset(session_ids=None))
    with pytest.raises(ValueError, match="no list can be used: 1 lists read, 0 used, refused: 1 unknown session"):
        load_raw_rankings(path, dataset())
