"""Splits that cut sessions: equal to a plain loop, no training event after the cut, every event accounted for."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from alkd_jax.data.catalogue import NumberedSessions
from alkd_jax.data.event_splits import account, split_sessions
from alkd_jax.data.splits import SplitRules

DAY = 86_400_000


def numbered(times, users=None):
    """Sessions of these times of events; every event has an item of its own."""
    length = [len(row) for row in times]
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    return NumberedSessions(
        items=np.arange(1, offsets[-1] + 1, dtype=np.int32),
        time=np.concatenate([np.sort(row) for row in times]).astype(np.int64),
        offsets=offsets,
        user=np.asarray(range(len(times)) if users is None else users, np.int32),
        split=None,
        item_ids=(),
        titles=(),
        report={},
    )


def as_tuples(part):
    return list(zip(part.row.tolist(), part.length.tolist(), part.first_target.tolist(), strict=True))


def by_loop(times, validation_time, test_time, gap):
    """The split by time, event by event."""
    train, validation, test = [], [], []
    for row, session in enumerate(times):
        session = sorted(session)
        known = [t for t in session if t < test_time - gap]
        trained = [t for t in session if t < validation_time - gap]
        if len(trained) >= 2:
            train.append((row, len(trained), 1))
        first = max(sum(t < validation_time for t in session), 1)
        if len(known) > first:
            validation.append((row, len(known), first))
        first = max(sum(t < test_time for t in session), 1)
        if len(session) > first:
            test.append((row, len(session), first))
    return train, validation, test


logs = st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=7), min_size=1, max_size=12)


@settings(max_examples=60)
@given(logs, st.integers(0, 22), st.integers(0, 22), st.integers(0, 3))
def test_cuts_are_those_of_a_loop_over_events(times, first, second, gap):
    validation_time, test_time = min(first, second), max(first, second) + gap
    rules = SplitRules("time-events", validation_time=validation_time, test_time=test_time, gap_days=gap / DAY)
    split = split_sessions(numbered(times), rules)
    assert [as_tuples(part) for part in split.parts] == list(by_loop(times, validation_time, test_time, gap))


@settings(max_examples=100)
@given(
    logs,
    st.sampled_from(["time", "user", "last-item"]),
    st.sampled_from(["all", "last", "first", "random"]),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
)
def test_nothing_is_trained_on_after_the_test_time_and_every_event_is_accounted_for(
    times, validation, targets, gap, rng
):
    sessions = numbered(times, users=[rng.randrange(4) for _ in times])
    rules = SplitRules("time-events", validation=validation, targets=targets, gap_days=gap / DAY, seed=1)
    try:
        split = split_sessions(sessions, rules)
    except ValueError:
        reject()
    cut = split.cuts["test_time"]
    roles = [[], [], []]
    for number, part in enumerate(split.parts):
        for row, length, first in as_tuples(part):
            start = sessions.offsets[row]
            roles[number] += range(start + (first if number else 0), start + length)
    trained, validated, tested = roles
    assert all(sessions.time[event] < cut - gap for event in trained + validated)
    assert all(sessions.time[event] >= cut for event in tested)
    assert len({*trained, *validated}) == len(trained) + len(validated)
    counts = account(np.diff(sessions.offsets), split)
    events = counts["events"]
    assert events["trained"] == len(trained)
    assert events["validation_targets"] == len(validated)
    assert events["test_targets"] == len(tested)
    parts = ("trained", "validation_targets", "test_targets", "history_only")
    assert (
        sum(events[name] for name in parts) + sum(events["unused"].values()) == events["total"] == len(sessions.items)
    )
    rows = {row for part in split.parts for row in part.row.tolist()}
    assert counts["sessions"]["unused"] == len(times) - len(rows)


def test_an_event_at_the_cut_belongs_to_the_later_part_and_a_share_cuts_events():
    times = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    split = split_sessions(numbered(times), SplitRules("time-events", fractions=(0.5, 0.2, 0.3)))
    assert split.cuts == {"validation_time": 5, "test_time": 7}
    assert as_tuples(split.train) == [(0, 4, 1)]
    assert as_tuples(split.validation) == [(1, 3, 1)]
    assert as_tuples(split.test) == [(1, 4, 3), (2, 2, 1)]


def test_targets_of_a_cut_session_are_chosen():
    times = [[0, 1, 5, 6, 7, 8]]
    for targets, expected in (("all", [(0, 6, 2)]), ("last", [(0, 6, 5)]), ("first", [(0, 3, 2)])):
        rules = SplitRules("time-events", validation_time=1, test_time=5, targets=targets)
        assert as_tuples(split_sessions(numbered(times), rules).test) == expected
    found = set()
    for seed in range(60):
        rules = SplitRules("time-events", validation_time=1, test_time=5, targets="random", seed=seed)
        ((_, length, first),) = as_tuples(split_sessions(numbered(times), rules).test)
        assert length == first + 1
        found.add(first)
    assert found == {2, 3, 4, 5}


def test_validation_by_user_and_by_last_item():
    times, users = [[0, 1, 2, 9], [1, 2, 3], [2, 3, 4], [3, 9]], [0, 1, 0, 2]
    rules = SplitRules("time-events", (0.5, 0.5, 0.0), validation="last-item", test_time=8)
    split = split_sessions(numbered(times, users), rules)
    assert as_tuples(split.train) == [(0, 2, 1), (1, 2, 1), (2, 2, 1)]
    assert as_tuples(split.validation) == [(0, 3, 2), (1, 3, 2), (2, 3, 2)]
    assert as_tuples(split.test) == [(0, 4, 3), (3, 2, 1)]
    log = numbered([[0, 1, 2]] * 40, np.arange(40) // 2)
    rules = SplitRules("time-events", (0.6, 0.2, 0.2), validation="user", test_time=2)
    split = split_sessions(log, rules)
    assert len(np.unique(log.user[split.validation.row])) == 5
    assert not set(log.user[split.validation.row]) & set(log.user[split.train.row])
    assert {length for _, length, _ in as_tuples(split.validation)} == {2}


@pytest.mark.parametrize("refit", [False, True])
def test_leave_one_out_by_length(refit):
    split = split_sessions(numbered([[1] * n for n in (2, 3, 4, 5)]), SplitRules("leave-one-out", refit=refit))
    train = [(0, 2, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1)] if refit else [(0, 2, 1), (2, 2, 1), (3, 3, 1)]
    assert as_tuples(split.train) == train
    assert as_tuples(split.validation) == [(1, 2, 1), (2, 3, 2), (3, 4, 3)]
    assert as_tuples(split.test) == [(1, 3, 2), (2, 4, 3), (3, 5, 4)]
    events = account(np.array([2, 3, 4, 5]), split)["events"]
    # Without refit the first item of the session of three is history only.
    expected = (11, 0, 3, 0, 3) if refit else (7, 3, 3, 1, 0)
    names = ("trained", "validation_targets", "test_targets", "history_only", "trained_and_predicted")
    assert tuple(events[name] for name in names) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "time", "gap_days": 1}, "gap_days is 1, but split is 'time'; expected split 'time-events'"),
        ({"rule": "block", "refit": True}, "expected split 'leave-one-out' or 'time-start' with it"),
        ({"rule": "time-events", "validation": "nothing"}, "validation is 'nothing'"),
        ({"rule": "time-events", "validation": "user", "validation_time": 1}, "validation is 'user'; expected 'time'"),
        ({"rule": "time-events", "gap_days": -1}, "gap_days is -1"),
        ({"rule": "magic"}, "split is 'magic'"),
    ],
)
def test_options_of_another_rule_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitRules(**options)


def test_a_gap_that_leaves_no_validation_is_refused():
    with pytest.raises(ValueError, match="expected validation to begin before the gap before test"):
        split_sessions(numbered([[0, 1, 2]]), SplitRules("time-events", validation_time=2, test_time=3, gap_days=1))
