"""Teachers of every kind say the same things in the same form."""

import numpy as np
import pytest

from alkd_jax import baselines, data
from alkd_jax.llm import prompts, teachers
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import ConventionalTeacher, OnlineTeacher, ReplayTeacher, SimulatedTeacher
from alkd_jax.llm.teachers.simulated import rank_by_titles
from alkd_jax.types import Sessions
from tests.helpers.fault_server import FaultServer
from tests.helpers.llm_questions import client


@pytest.fixture(scope="module")
def world():
    return data.synthetic(num_items=200, num_sessions=300, seed=0)


@pytest.fixture(scope="module")
def asked(world):
    train = world.train
    some = Sessions(*(np.asarray(leaf)[:40] for leaf in (train.items, train.mask, train.target, train.session_id)))
    rows = [np.setdiff1d(np.arange(1, 201), row)[7:57] for row in some.items]
    candidates = np.stack(rows).astype(np.int32)
    candidates[3, 30:] = 0
    return some, candidates


def check(asked, rankings, account, *, complete=True):
    sessions, candidates = asked
    row_of = {session: row for row, session in enumerate(sessions.session_id.tolist())}
    assert account["asked"] == 40
    assert sorted(rankings.session_id.tolist() + account["missing"]) == sorted(row_of)
    for session, items, mask in zip(rankings.session_id.tolist(), rankings.items, rankings.mask, strict=True):
        listed = items[mask].tolist()
        assert len(set(listed)) == len(listed) > 0
        assert set(listed) <= set(candidates[row_of[session]].tolist())
    if complete:
        assert account["missing"] == []


def test_the_simulated_teacher_says_what_it_reads_in_titles_and_without_faults_is_read_whole(world, asked):
    ranked, account = SimulatedTeacher(world.titles, prompts.ITEMS, seed=3, accuracy=0.7).rank(*asked)
    check(asked, ranked, account)
    plain = rank_by_titles(3, *asked, world.titles, accuracy=0.7)
    np.testing.assert_array_equal(ranked.items, plain.items)
    assert account["statuses"] == {"ok": 40}


@pytest.mark.parametrize(
    ("fault", "status", "usable"),
    [
        ("duplicate", "partial", True),
        ("unknown", "partial", True),
        ("short", "partial", True),
        ("prose", "repaired", True),
        ("truncated", "truncated", True),
        ("refused", "refused", False),
        ("empty", "invalid", False),
    ],
)
def test_a_fault_of_the_simulated_teacher_is_what_it_says(world, asked, fault, status, usable):
    some = (Sessions(*(leaf[4:] for leaf in (asked[0].items, asked[0].mask, asked[0].target, asked[0].session_id))),)
    ranked, account = SimulatedTeacher(world.titles, prompts.ITEMS, faults={fault: 1.0}).rank(*some, asked[1][4:])
    assert account["statuses"] == {status: 36}
    assert len(ranked) == (36 if usable else 0)


def test_faults_come_in_their_shares_and_depend_on_the_session_alone(world, asked):
    teacher = SimulatedTeacher(world.titles, prompts.ITEMS, faults={"refused": 0.3, "empty": 0.2})
    ranked, account = teacher.rank(*asked)
    check(asked, ranked, account, complete=False)
    assert 10 <= len(account["missing"]) <= 30
    half = Sessions(*(leaf[::2] for leaf in (asked[0].items, asked[0].mask, asked[0].target, asked[0].session_id)))
    again, _ = teacher.rank(half, asked[1][::2])
    assert set(again.session_id.tolist()) == set(ranked.session_id.tolist()) & set(half.session_id.tolist())
    with pytest.raises(ValueError, match="faults: 'odd'"):
        SimulatedTeacher(world.titles, prompts.ITEMS, faults={"odd": 0.1})
    with pytest.raises(ValueError, match="add up"):
        SimulatedTeacher(world.titles, prompts.ITEMS, faults={"short": 0.6, "empty": 0.6})


def test_the_conventional_teacher_gives_its_own_list(asked):
    ranked, account = ConventionalTeacher().rank(*asked)
    check(asked, ranked, account)
    np.testing.assert_array_equal(ranked.items, asked[1][:, :25])


def test_a_neighbour_teacher_gives_lists_that_never_saw_the_session(world, asked):
    lists = baselines.held_out_lists(
        baselines.co_occurrence, world.train_sequences, world.num_items, world.train, 25, folds=5
    )
    ranked, account = ReplayTeacher(lists).rank(*asked)
    assert account == {"asked": 40, "missing": []}
    np.testing.assert_array_equal(ranked.session_id, asked[0].session_id)


def test_replay_raises_or_skips_what_is_not_recorded(asked):
    """Fault 33."""
    ranked, _ = ConventionalTeacher().rank(*asked)
    few = teachers.as_rankings({7: (1, 2)}, 25)
    with pytest.raises(ValueError, match="none for session"):
        ReplayTeacher(few).rank(*asked)
    _, account = ReplayTeacher(few, missing="skip").rank(*asked)
    assert len(account["missing"]) >= 39
    again, _ = ReplayTeacher(ranked).rank(*asked)
    np.testing.assert_array_equal(again.items, ranked.items)


def test_the_online_teacher_asks_the_server_and_asks_nothing_twice(tmp_path, world, asked):
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        teacher = OnlineTeacher(client(server, store, min_valid=15), world.titles, prompts.ITEMS)
        ranked, account = teacher.rank(*asked)
        check(asked, ranked, account)
        assert account["statuses"] == {"ok": 40}
        again, account = teacher.rank(*asked)
        assert account["cached"] == 40
        assert len(server.calls) == 40
        np.testing.assert_array_equal(again.items, ranked.items)


def test_sessions_that_ask_the_same_get_an_answer_each_whatever_their_numbers():
    items, candidates = np.array([[3, 4]] * 3, np.int32), np.array([[10, 11, 12, 13, 14, 15]] * 3, np.int32)
    titles = [f"T{n}" for n in range(20)]
    sessions = [Sessions(items, items > 0, items[:, 0], np.array(ids)) for ids in ([1, 2, 3], [7, 8, 9])]
    asked = [[q.messages for q in teachers.build_questions(s, candidates, titles, prompts.ITEMS)] for s in sessions]
    assert asked[0] == asked[1]
    assert len({messages[1]["content"] for messages in asked[0]}) == 3
