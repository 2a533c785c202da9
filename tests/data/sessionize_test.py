"""Sessions by rules against a plain reading of the rules, and splits by their definitions."""

import datetime
import importlib
import itertools
import zoneinfo

import numpy as np
import pytest

from alkd_jax.data.catalogue import number_items
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import sessionize
from alkd_jax.data.splits import EVENT_SPLITS, SPLITS, TIMED_SPLITS, split_rows
from alkd_jax.data.times import local_day

HOUR = 3_600_000
module = importlib.import_module("alkd_jax.data.sessionize")  # the package exports the function by this name


def random_log(seed=0, size=400, users=9, items=6, *, sessions=False):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, size).astype(np.int32)
    return Interactions(
        name="random",
        user=user,
        item=rng.integers(0, items, size).astype(np.int32),
        time=1_206_700_000_000 + rng.integers(0, 400, size) * HOUR // 2,
        session=rng.integers(0, 5, size).astype(np.int32) if sessions else None,
        user_ids=tuple(f"u{n * 37 % 100:02d}" for n in range(users)),
        item_ids=tuple(str(n * 7 % 11) for n in range(items)),
        titles=None,
        report={},
    )


def day_of(time, zone):
    return datetime.datetime.fromtimestamp(time / 1000, zoneinfo.ZoneInfo(zone)).date()


def by_hand(log, rules):
    """The rules read aloud, one row at a time; ties by file or id."""
    tie = [int(log.item_ids[item]) if rules.ties == "id" else 0 for item in log.item]
    rows = sorted(range(len(log)), key=lambda row: (log.time[row], tie[row], row))
    users = range(len(log.user_ids))
    if rules.users == "id":
        users = sorted(users, key=log.user_ids.__getitem__)
    found = []
    for user in users:
        own = [row for row in rows if log.user[row] == user]
        sessions = []
        for row in own:
            last = sessions[-1][-1] if sessions else None
            if rules.boundary == "given":
                same = [s for s in sessions if log.session[s[0]] == log.session[row]]
                if same:
                    same[0].append(row)
                    continue
            elif last is not None:
                gap = log.time[row] - log.time[last] <= rules.gap_minutes * 60_000
                day = day_of(log.time[row], rules.time_zone) == day_of(log.time[last], rules.time_zone)
                if gap if rules.boundary == "gap" else day:
                    sessions[-1].append(row)
                    continue
            sessions.append([row])
        if rules.boundary == "given":
            sessions.sort(key=lambda session: (log.time[session[0]], log.session[session[0]]))
        found += sessions
    kept = []
    for session in found:
        items = [int(log.item[row]) for row in session]
        fresh = {
            "keep": lambda items: items,
            "first": lambda items: list(dict.fromkeys(items)),
            "last": lambda items: list(dict.fromkeys(items[::-1]))[::-1],
            "adjacent": lambda items: [item for item, _ in itertools.groupby(items)],
        }[rules.duplicates](items)
        length = len(items if rules.count_duplicates else fresh)
        if rules.min_length <= length <= rules.max_length and len(fresh) > 1:
            kept.append((int(log.user[session[0]]), fresh))
    return kept


def as_lists(sessions):
    rows = np.split(sessions.item, sessions.offsets[1:-1])
    return [(int(user), row.tolist()) for user, row in zip(sessions.user, rows, strict=True)]


@pytest.mark.parametrize("at_once", [1 << 22, 40])
@pytest.mark.parametrize(
    "rules",
    [
        SessionRules(min_length=2),
        SessionRules(min_length=3, max_length=4, count_duplicates=False),
        SessionRules(min_length=2, time_zone="Asia/Kathmandu", duplicates="last"),
        SessionRules(min_length=2, time_zone="America/Chicago", duplicates="adjacent", ties="id"),
        SessionRules(boundary="gap", gap_minutes=90, min_length=2, users="id", duplicates="keep"),
        SessionRules(boundary="given", min_length=2, duplicates="keep", ties="id", users="id"),
        SessionRules(boundary="given", min_length=1, max_length=9),
    ],
    ids=str,
)
def test_sessions_are_those_of_the_rules_read_aloud(rules, at_once, monkeypatch):
    monkeypatch.setattr(module, "_INTERACTIONS_PER_GROUP", at_once)
    for seed in range(3):
        log = random_log(seed, sessions=rules.boundary == "given")
        assert as_lists(sessionize(log, rules)) == by_hand(log, rules)


def test_file_order_in_and_out_of_user_order_agree(monkeypatch):
    log = random_log(5)
    order = np.argsort(log.user, kind="stable")
    in_order = random_log(5)
    for name in ("user", "item", "time"):
        object.__setattr__(in_order, name, getattr(log, name)[order])
    monkeypatch.setattr(module, "_INTERACTIONS_PER_GROUP", 30)
    rules = SessionRules(min_length=2)
    assert as_lists(sessionize(log, rules)) == as_lists(sessionize(in_order, rules))


def test_the_day_ends_where_the_zone_says():
    # 2006-10-29, the night the clocks of Madrid went back: 21:30 UTC is 22:30 there, 23:30 is the next day
    times = np.array([1_162_157_400_000, 1_162_157_400_000 + 2 * HOUR])
    np.testing.assert_array_equal(np.diff(local_day(times, "UTC")), [0])
    np.testing.assert_array_equal(np.diff(local_day(times, "Europe/Madrid")), [1])
    # in the summer the same clock times are an hour apart from UTC's
    for zone in ("Europe/Madrid", "America/Chicago", "Asia/Singapore"):
        many = np.arange(0, 500 * 24 * HOUR, 7 * HOUR)
        wanted = [(day_of(time, zone) - datetime.date(1970, 1, 1)).days for time in many]
        np.testing.assert_array_equal(local_day(many, zone), wanted)


def tied_log(num_users=40, num_items=12, seed=3):
    rng = np.random.default_rng(seed)
    item = np.concatenate([rng.permutation(num_items) for _ in range(num_users)]).astype(np.int32)
    return Interactions(
        name="tied",
        user=np.repeat(np.arange(num_users, dtype=np.int32), num_items),
        item=item,
        time=np.full(item.shape, 1_400_000_000_000),
        session=None,
        user_ids=tuple(f"u{n}" for n in range(num_users)),
        item_ids=tuple(f"{n:02d}" for n in range(num_items)),
        titles=None,
        report={},
    )


def orders(log, **rules):
    return np.array([items for _, items in as_lists(sessionize(log, SessionRules(**rules)))])


def test_ties_follow_the_policy():
    log = tied_log()
    np.testing.assert_array_equal(orders(log, ties="file").ravel(), log.item)
    np.testing.assert_array_equal(orders(log, ties="id"), np.tile(np.arange(12), (40, 1)))
    for ties in ("hash", "random"):
        ascending = np.mean(np.diff(orders(log, ties=ties), axis=1) > 0)
        assert 0.4 < ascending < 0.6
        np.testing.assert_array_equal(orders(log, ties=ties, seed=4), orders(log, ties=ties, seed=4))
        assert not np.array_equal(orders(log, ties=ties, seed=4), orders(log, ties=ties, seed=5))


def test_hashed_ties_do_not_know_the_order_of_the_file():
    log, shuffled = tied_log(seed=3), tied_log(seed=4)
    np.testing.assert_array_equal(orders(log, ties="hash"), orders(shuffled, ties="hash"))
    assert not np.array_equal(orders(log, ties="random"), orders(shuffled, ties="random"))
    # nor is there one order of items for all users, which a model could learn
    assert len(np.unique(orders(log, ties="hash"), axis=0)) == 40


def test_number_ids_sort_as_numbers():
    log = tied_log(num_users=1)
    object.__setattr__(log, "item_ids", tuple(str(n) for n in range(12)))
    np.testing.assert_array_equal(orders(log, ties="id")[0], np.arange(12))


def test_counts_tell_what_was_dropped():
    log = random_log(1)
    report = sessionize(log, SessionRules(min_length=3, max_length=4)).report
    kept = len(by_hand(log, SessionRules(min_length=3, max_length=4)))
    dropped = report["sessions_dropped"]["too_short"] + report["sessions_dropped"]["too_long"]
    assert report["sessions_found"] == dropped + report["sessions_without_input"] + kept
    pairs = list(zip(log.user.tolist(), log.time.tolist(), strict=True))
    assert report["tied_interactions"] == sum(pairs.count(pair) > 1 for pair in pairs)


def test_wrong_rules_are_refused():
    for wrong, message in (
        ({"boundary": "week"}, "boundary is 'week'"),
        ({"time_zone": "Mars/Base"}, "time_zone is 'Mars/Base'"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "localtime"}, "time_zone is 'localtime'"),
        ({"time_zone": "posix/Europe/Madrid"}, "time_zone is 'posix/Europe/Madrid'"),
        ({"time_zone": ""}, "time_zone is ''"),
        ({"min_length": 6, "max_length": 5}, "min ≤ max"),
        ({"gap_minutes": 0}, "gap_minutes"),
        ({"gap_minutes": float("inf")}, "gap_minutes is inf; expected a finite number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            SessionRules(**wrong)
    with pytest.raises(ValueError, match="has no session column"):
        sessionize(random_log(), SessionRules(boundary="given"))
    with pytest.raises(ValueError, match="has no session of 300 to 400"):
        sessionize(random_log(), SessionRules(min_length=300, max_length=400))


def titled(log, names):
    object.__setattr__(log, "titles", {name: f"Title {name}" for name in names})
    return log


def test_items_stand_in_the_order_of_the_titles_and_untitled_ones_leave():
    log = tied_log(num_users=3, num_items=6)
    sessions = sessionize(log, SessionRules())
    log = titled(log, ["99", "05", "03", "01", "02", "04"])
    numbered = number_items(log, sessions)
    assert numbered.item_ids == ("", "05", "03", "01", "02", "04")
    assert numbered.titles[1] == "Title 05"
    found = {tuple(numbered.item_ids[item] for item in row) for row in np.split(numbered.items, numbered.offsets[1:-1])}
    wanted = {tuple(f"{item:02d}" for item in items if item != 0) for _, items in as_lists(sessions) if items[-1] != 0}
    assert found == wanted
    assert numbered.report["items_without_title_row"] == 1
    assert number_items(log, sessions, untitled="keep").item_ids[-1] == "00"
    with pytest.raises(ValueError, match="match the items of no session"):
        number_items(titled(log, ["other"]), sessions)


@pytest.fixture
def users_and_starts():
    rng = np.random.default_rng(0)
    return rng.integers(0, 60, 500).astype(np.int32), np.sort(rng.integers(0, 40 * 24, 500)) * HOUR


@pytest.mark.parametrize("rule", [rule for rule in SPLITS if rule not in ("given", *EVENT_SPLITS, *TIMED_SPLITS)])
def test_every_session_is_in_one_split(rule, users_and_starts):
    parts = split_rows(rule, *users_and_starts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    assert all(len(part) for part in parts)


def test_splits_keep_what_they_promise(users_and_starts):
    user, start = users_and_starts
    train, validation, test = split_rows("user", user, start)
    assert not set(user[train]) & (set(user[validation]) | set(user[test]))
    assert not set(user[validation]) & set(user[test])
    assert abs(len(train) - 300) < 30
    train, validation, test = split_rows("time", user, start)
    assert start[train].max() < start[validation].min() <= start[validation].max() < start[test].min()
    train, validation, test = split_rows("last-days", user, start, days=3)
    day = start // (24 * HOUR)
    assert day[test].min() == day.max() - 2
    assert day[validation].min() == day.max() - 5
    assert day[train].max() == day.max() - 6
    train, validation, test = split_rows("last-session", user, start)
    assert len(test) == len(set(user[test]))
    assert all(start[user == who].max() == start[row] for row, who in zip(test, user[test], strict=True))
    train, validation, test = split_rows("block-exchanged", user, start)
    assert (train[0], test[0], validation[0]) == (0, 300, 400)
    first, again, other = (split_rows("random", user, start, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.mean(np.diff(first) == 1) < 0.8


def test_wrong_splits_are_refused(users_and_starts):
    with pytest.raises(ValueError, match="split is 'magic'"):
        split_rows("magic", *users_and_starts)
    with pytest.raises(ValueError, match="not split"):
        split_rows("given", *users_and_starts)
    with pytest.raises(ValueError, match="days is 0"):
        split_rows("last-days", *users_and_starts, days=0)
