"""All teachers rank through the same protocol."""

import json

import numpy as np
import pytest

from alkd_jax import baselines, data
from alkd_jax.llm import prompts, teachers
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import ConventionalTeacher, OnlineTeacher, ReplayTeacher, SimulatedTeacher
from alkd_jax.llm.teachers.protocol import lists_to_rankings
from alkd_jax.llm.teachers.simulated import rank_by_titles
from alkd_jax.types import Sessions
from tests.helpers.fault_server import FaultServer, completion, http, ranked
from tests.helpers.llm_questions import client


@pytest.fixture(scope="module")
def dataset():
    return data.synthetic(num_items=200, num_sessions=300, seed=0)


@pytest.fixture(scope="module")
def queried(dataset):
    train = dataset.train
    some = Sessions(*(np.asarray(leaf)[:40] for leaf in (train.items, train.mask, train.target, train.session_id)))
    rows = [np.setdiff1d(np.arange(1, 201), row)[7:57] for row in some.items]
    candidates = np.stack(rows).astype(np.int32)
    candidates[3, 30:] = 0
    return some, candidates


def check(queried, rankings, report):
    sessions, candidates = queried
    row_of = {session: row for row, session in enumerate(sessions.session_id.tolist())}
    assert report["asked"] == 40
    assert rankings.session_id.tolist() == list(row_of)
    for session, items, mask in zip(rankings.session_id.tolist(), rankings.items, rankings.mask, strict=True):
        listed = items[mask].tolist()
        assert len(set(listed)) == len(listed) > 0
        assert set(listed) <= set(candidates[row_of[session]].tolist())
    assert report["missing"] == []


def test_the_simulated_teacher_ranks_by_titles(dataset, queried):
    ranked, report = SimulatedTeacher(dataset.titles, seed=3, accuracy=0.7).rank(*queried)
    check(queried, ranked, report)
    assert report["accuracy"] == 0.7
    expected = rank_by_titles(3, *queried, dataset.titles, accuracy=0.7)
    np.testing.assert_array_equal(ranked.items, expected.items)


def test_the_conventional_teacher_gives_its_own_list(queried):
    ranked, report = ConventionalTeacher().rank(*queried)
    check(queried, ranked, report)
    np.testing.assert_array_equal(ranked.items, queried[1][:, :25])


def test_a_neighbor_teacher_gives_lists_that_never_saw_the_session(dataset, queried):
    lists = baselines.held_out_lists(
        baselines.method("co_occurrence"), dataset.train_sequences, dataset.num_items, dataset.train, 25, folds=5
    )
    ranked, report = ReplayTeacher(lists).rank(*queried)
    assert report == {"asked": 40, "missing": []}
    np.testing.assert_array_equal(ranked.session_id, queried[0].session_id)


def test_replay_raises_or_skips_what_is_not_recorded(queried):
    ranked, _ = ConventionalTeacher().rank(*queried)
    few = lists_to_rankings({7: (1, 2)}, 25)
    with pytest.raises(ValueError, match=r"have none for \d+ sessions"):
        ReplayTeacher(few).rank(*queried)
    _, report = ReplayTeacher(few, missing="skip").rank(*queried)
    assert len(report["missing"]) >= 39
    again, _ = ReplayTeacher(ranked).rank(*queried)
    np.testing.assert_array_equal(again.items, ranked.items)


def test_the_online_teacher_asks_the_server_once_and_ranks_from_the_store(tmp_path, dataset, queried):
    with FaultServer() as server, Store.open(tmp_path / "s") as store:
        teacher = OnlineTeacher(client(server, store, min_valid=15), dataset.titles, prompts.ITEMS)
        assert teacher.rank(*queried)[1]["open"] == queried[0].session_id.tolist()
        assert teacher.estimate(*queried).questions == 40
        assert server.calls == []
        assert teacher.ask(*queried).statuses == {"ok": 40}
        ranked, report = teacher.rank(*queried)
        check(queried, ranked, report)
        assert (report["statuses"], report["open"]) == ({"ok": 40}, [])
        assert teacher.ask(*queried).cached == 40
        assert len(server.calls) == 40
        np.testing.assert_array_equal(teacher.rank(*queried)[0].items, ranked.items)


def test_short_lists_are_judged_by_the_number_of_entries_of_now(tmp_path, dataset, queried):
    def short(call):
        return [http(completion(call, json.dumps({"ranking": ranked(call.body)["ranking"][: 10 + call.number % 10]})))]

    with FaultServer(short) as server, Store.open(tmp_path / "s") as store:
        for least, usable in ((10, 40), (15, 20), (12, 32)):
            teacher = OnlineTeacher(client(server, store, min_valid=least), dataset.titles, prompts.ITEMS)
            teacher.client.forget_short()
            lists, report = teacher.rank(*queried)
            if least == 10:
                assert report["open"] == queried[0].session_id.tolist()
                teacher.ask(*queried)
                lists, report = teacher.rank(*queried)
            assert len(lists) == usable == 40 - len(report["open"])
        assert len(server.calls) == 40
        # Nothing is asked again of a list that suffices, and once more of each of the others.
        assert teacher.ask(*queried).cached == 32
        assert len(server.calls) == 48


def test_sessions_that_ask_the_same_get_an_answer_each_whatever_their_numbers():
    items, candidates = np.array([[3, 4]] * 3, np.int32), np.array([[10, 11, 12, 13, 14, 15]] * 3, np.int32)
    titles = [f"T{n}" for n in range(20)]
    sessions = [Sessions(items, items > 0, items[:, 0], np.array(ids)) for ids in ([1, 2, 3], [7, 8, 9])]
    rendered = [[q.messages for q in teachers.build_questions(s, candidates, titles, prompts.ITEMS)] for s in sessions]
    assert rendered[0] == rendered[1]
    assert len({messages[1]["content"] for messages in rendered[0]}) == 3
