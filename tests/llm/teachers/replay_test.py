"""Recorded rankings: found again by session, written whole or not at all, read strictly."""

import json
import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm.teachers.replay import ReplayTeacher, load_rankings, lookup_rankings, save_rankings
from alkd_jax.types import Rankings


def rankings(lists):
    """Rankings of a dictionary from session to list."""
    items = np.zeros((len(lists), max(map(len, lists.values()), default=0)), np.int32)
    for row, listed in enumerate(lists.values()):
        items[row, : len(listed)] = listed
    return Rankings(np.array(list(lists), np.int32), items, items > 0)


def as_lists(ranked):
    rows = zip(ranked.session_id.tolist(), ranked.items, ranked.mask, strict=True)
    return {session: items[mask].tolist() for session, items, mask in rows}


RECORDED = {17: [3, 9, 1], 4: [2], 8: [], 11: [5, 6]}


def test_lists_come_in_the_order_queried_and_the_rest_is_reported():
    lists, missing = lookup_rankings(rankings(RECORDED), np.array([11, 99, 8, 17, 5]))
    assert list(as_lists(lists).items()) == [(11, [5, 6]), (8, []), (17, [3, 9, 1])]
    assert missing.tolist() == [99, 5]


def test_asking_for_nothing_or_of_nothing():
    lists, missing = lookup_rankings(rankings(RECORDED), np.array([], np.int32))
    assert len(lists) == len(missing) == 0
    lists, missing = lookup_rankings(rankings({}), np.array([3, 1]))
    assert len(lists) == 0
    assert missing.tolist() == [3, 1]


def test_a_session_recorded_or_queried_twice_is_refused():
    twice = Rankings(np.array([2, 5, 5], np.int32), np.ones((3, 1), np.int32), np.ones((3, 1), bool))
    with pytest.raises(ValueError, match=r"^recorded: session 5 is there 2 times; expected once$"):
        lookup_rankings(twice, np.array([2]))
    with pytest.raises(ValueError, match=r"^session_ids: session 4 is there 3 times; expected once$"):
        lookup_rankings(rankings(RECORDED), np.array([4, 17, 4, 4]))


@given(st.dictionaries(st.integers(0, 2**31 - 1), st.lists(st.integers(1, 30), unique=True, max_size=6), max_size=6))
def test_what_is_saved_is_loaded(tmp_path_factory, lists):
    path = tmp_path_factory.mktemp("rankings") / "rankings.jsonl"
    save_rankings(path, rankings(lists))
    loaded = load_rankings(path, num_items=30)
    assert list(as_lists(loaded).items()) == list(lists.items())
    np.testing.assert_array_equal(loaded.items > 0, loaded.mask)
    assert os.listdir(path.parent) == ["rankings.jsonl"]


def test_the_file_is_one_object_a_line(tmp_path):
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, rankings({17: [3, 9], 4: [2]}))
    assert path.read_bytes() == b'{"session_id": 17, "items": [3, 9]}\n{"session_id": 4, "items": [2]}\n'


def test_lists_of_a_device_are_saved_too(tmp_path):
    import jax

    path = tmp_path / "rankings.jsonl"
    save_rankings(path, jax.tree.map(jax.numpy.asarray, rankings(RECORDED)))
    assert as_lists(load_rankings(path, num_items=9)) == RECORDED


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, rankings({1: [2]}))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync" if fails == "write" else "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_rankings(path, rankings(RECORDED))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rankings.jsonl"]


@pytest.mark.parametrize(
    ("session_id", "items", "message"),
    [
        ([4, 4], [[1], [2]], "rankings: session 4 is there 2 times; expected once"),
        ([4, -5], [[1], [2]], "rankings, session -5: session_id is -5; expected an integer from 0 to 2147483647"),
        ([4, 5], [[1, 2], [7, 7]], "rankings, session 5: item 7 is twice in a list; expected it once"),
        ([4, 5], [[1, 2], [7, 0]], "rankings, session 5: item is 0; expected an integer from 1 to 2147483647"),
        (
            [4],
            [[1], [2]],
            r"rankings have session_id \(1,\), items \(2, 1\), .*; expected \(M,\), \(M, K\) and bool .*",
        ),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, session_id, items, message):
    items = np.array(items, np.int32)
    with pytest.raises(ValueError, match=f"^{message}$"):
        save_rankings(tmp_path / "rankings.jsonl", Rankings(np.array(session_id), items, np.ones_like(items, bool)))
    assert not os.listdir(tmp_path)


def test_repeats_in_a_list_travel_only_when_asked_for(tmp_path):
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, rankings({1: [2, 3, 2]}), distinct=False)
    assert as_lists(load_rankings(path, num_items=3, distinct=False)) == {1: [2, 3, 2]}
    with pytest.raises(ValueError, match="item 2 is twice in a list"):
        load_rankings(path, num_items=3)


GOOD = '{"session_id": 1, "items": [3, 2]}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'session_id': 2, 'items': [3]}\n", r"not JSON \("),
        ("\n", r"not JSON \("),
        ("\xff\xfe\n", r"not JSON \("),
        ("[" * 200_000 + "\n", r"not JSON \("),
        ('{"session_id": ' + "1" * 5000 + ', "items": []}\n', r"not JSON \("),
        ('{"session_id": 2, "items": [3], "items": [4]}\n', r"not JSON \(an object has two values of one name\)"),
        ('{"session_id": 2, "items": [3', "the last line is cut off; expected a JSON object$"),
        ("[2, [3]]\n", "a JSON list; expected an object with session_id and items$"),
        ('{"items": [3]}\n', "no session_id; expected an object with session_id and items$"),
        ('{"session_id": 2}\n', "no items; expected an object with session_id and items$"),
        ('{"session_id": "2", "items": [3]}\n', "session_id is '2'; expected an integer from 0 to 2147483647$"),
        ('{"session_id": true, "items": [3]}\n', "session_id is True; expected an integer from 0 to 2147483647$"),
        (
            '{"session_id": 2147483648, "items": [3]}\n',
            "session_id is 2147483648; expected an integer from 0 to 2147483647$",
        ),
        ('{"session_id": 2, "items": "3"}\n', "items is '3'; expected a list$"),
        ('{"session_id": 2, "items": [3, 0]}\n', "item is 0; expected an integer from 1 to 9$"),
        ('{"session_id": 2, "items": [3, 10]}\n', "item is 10; expected an integer from 1 to 9$"),
        ('{"session_id": 2, "items": [3.0]}\n', "item is 3.0; expected an integer from 1 to 9$"),
        ('{"session_id": 2, "items": [NaN]}\n', "item is nan; expected an integer from 1 to 9$"),
        ('{"session_id": 2, "items": [3, 4, 3]}\n', "item 3 is twice in a list; expected it once$"),
        ('{"session_id": 1, "items": [5]}\n', "session_id is 1, as on line 1; expected each session once$"),
    ],
)
def test_damage_is_named_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "rankings.jsonl"
    path.write_bytes((GOOD + "\n" + line).encode("latin-1"))
    with pytest.raises(ValueError, match=rf"^[^\n]*rankings\.jsonl:2: {message}") as caught:
        load_rankings(path, num_items=9)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_recorded_lists_with_other_white_space_become_a_teacher(tmp_path):
    path = tmp_path / "rankings.jsonl"
    path.write_bytes(b'{"session_id": 6,\r "items": [4]}\r\n{"items": [], "session_id": 7}\n')
    assert as_lists(ReplayTeacher.from_file(path, num_items=4).recorded) == {6: [4], 7: []}


def fuzz(path, cases, seed):
    """Reads damaged recorded lists: the number of lists is that of the lines, or the file is refused in one line."""
    rng, whole = (
        random.Random(seed),
        "".join(json.dumps({"session_id": n, "items": [n, 30 - n]}) + "\n" for n in range(9)),
    )
    for _ in range(cases):
        data = bytearray(whole.encode())
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randrange(3)] = rng.choice([b"", b"\n", b"\r", b"}", b'"', b"\0", b"\xff", b"1e9"])
        path.write_bytes(data)
        try:
            assert len(ReplayTeacher.from_file(path, num_items=30).recorded) == bytes(data).count(b"{")
        except ValueError as error:
            assert str(error).isprintable()  # noqa: PT017


def test_damaged_recorded_lists_are_read_whole_or_refused(tmp_path):
    fuzz(tmp_path / "rankings.jsonl", 100, 0)


@pytest.mark.slow
def test_many_damaged_recorded_lists_are_read_whole_or_refused(tmp_path):
    fuzz(tmp_path / "rankings.jsonl", 30_000, 1)


def test_every_way_to_cut_a_file_short_is_seen_or_loses_whole_lines_only(tmp_path):
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, rankings(RECORDED))
    text = path.read_bytes()
    for end in range(len(text)):
        path.write_bytes(text[:end])
        lines = text[:end].splitlines()
        whole_lines = [line for line in lines if line.endswith(b"}")]
        if len(whole_lines) == len(lines):
            assert len(load_rankings(path, num_items=9)) == len(lines)
        else:
            with pytest.raises(ValueError, match=f":{len(lines)}: the last line is cut off"):
                load_rankings(path, num_items=9)


def test_further_keys_and_a_missing_last_newline_are_allowed(tmp_path):
    path = tmp_path / "rankings.jsonl"
    path.write_text(json.dumps({"items": [4], "session_id": 6, "model": "m"}))
    assert as_lists(load_rankings(path, num_items=4)) == {6: [4]}


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load_rankings(tmp_path / "none.jsonl", num_items=4)
