"""Recipes of publications on random logs, against the published steps written out in plain Python."""

import collections
import itertools

import numpy as np
import polars as pl
import pytest

import alkd_jax as alkd
from alkd_jax.data.interactions import build_interactions
from alkd_jax.data.recipes import RECIPES, PartCounts, count_parts, prepare_by
from alkd_jax.data.session_filters import frequent_items, most_recent
from alkd_jax.data.text.bad_rows import BadRows
from tests.helpers.prepared_data import sessions_of

HOUR, DAY = 3_600_000, 86_400_000
START = 1_442_545_200_000 - 30 * DAY


def random_rows(seed, *, num_users=150, days=30):
    """Rows of user, item, time and kind; few items, so that some are rare, and many equal times."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        time = START + int(rng.integers(days * 24)) * HOUR
        for _ in range(rng.integers(1, 9)):
            time += int(rng.choice([0, 400, 20 * 60_000, HOUR, HOUR + 1, 5 * HOUR]))
            item = int(rng.zipf(1.3) % 60)
            rows.append((user, item, min(time, START + days * DAY), str(rng.choice(["view", "view", "addtocart"]))))
    return rows


def as_log(rows, *, name="log", given=False):
    columns = dict(zip(("user", "item", "time", "event"), zip(*rows, strict=True), strict=True))
    frame = pl.DataFrame({key: [str(value) for value in values] for key, values in columns.items()})
    if given:
        frame = frame.rename({"user": "session"}).drop("event")
    frame = frame.with_columns(line=pl.int_range(1, len(rows) + 1))
    return build_interactions(name, [("f", frame)], BadRows(), time_format="ms")


def without_repeats(sessions):
    return [[event for n, event in enumerate(row) if n == 0 or event[0] != row[n - 1][0]] for row in sessions]


def filtered(sessions, *, rounds=None):
    while rounds is None or rounds > 0:
        before = sessions
        sessions = [row for row in sessions if len(row) > 1]
        support = collections.Counter(item for row in sessions for item, _ in row)
        sessions = [kept for row in sessions if (kept := [event for event in row if support[event[0]] >= 5])]
        if sessions == before:
            return sessions
        rounds = None if rounds is None else rounds - 1
    return [row for row in sessions if len(row) > 1]


def items_of(sessions, known=None):
    rows = [[str(item) for item, _ in row if known is None or item in known] for row in sessions]
    return sorted(row for row in rows if len(row) > 1)


def parts_of(prepared):
    rows, ends = sessions_of(prepared), np.cumsum([0, *prepared.sizes])
    return [sorted(rows[first:end]) for first, end in itertools.pairwise(ends)]


def expected_parts(sessions, first, second):
    """GRU4Rec's split: sessions by their start; events of a part from the next cut on are dropped."""
    train = [[event for event in row if event[1] < first] for row in sessions if row[0][1] < first]
    middle = [[event for event in row if event[1] < second] for row in sessions if first <= row[0][1] < second]
    test = [row for row in sessions if row[0][1] >= second]
    train = [row for row in train if len(row) > 1]
    known = {item for row in train for item, _ in row}
    return [items_of(train), items_of(middle, known), items_of(test, known)]


@pytest.mark.parametrize("seed", range(4))
def test_gru4rec_retailrocket(seed):
    rows, end = random_rows(seed), 1_442_545_200_000
    sessions, last = [], None
    for user, item, time, kind in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
        if last is None or last[0] != user or time - last[1] > HOUR:
            sessions.append([])
        last = (user, time)
        if kind == "view":
            sessions[-1].append((item, time))
    expected = expected_parts(filtered(without_repeats(sessions)), end - 14 * DAY, end - 7 * DAY)
    assert min(map(len, expected)) > 0
    prepared = prepare_by(RECIPES["gru4rec-retailrocket"], as_log(rows))
    assert parts_of(prepared) == expected
    assert prepared.report["sessionise"]["interactions_of_other_kinds"] == sum(row[3] != "view" for row in rows)


@pytest.mark.parametrize(("name", "days", "step"), [("gru4rec-yoochoose", 1, 1000), ("gru4rec-diginetica", 7, 1)])
def test_gru4rec_with_given_sessions(name, days, step):
    rows = [(user, item, time // step * step, kind) for user, item, time, kind in random_rows(7, num_users=600)]
    by_session = collections.defaultdict(list)
    for user, item, time, _ in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
        by_session[user].append((item, time))
    sessions = filtered(without_repeats(by_session.values()))
    cut = max(time for row in sessions for _, time in row) - days * DAY
    # the rows as they come have their milliseconds, which the recipe rounds down
    prepared = prepare_by(RECIPES[name], as_log(random_rows(7, num_users=600), given=True))
    assert parts_of(prepared) == expected_parts(sessions, cut - days * DAY, cut)
    account = prepared.report["account"]["events"]
    parts = ("trained", "validation_targets", "test_targets", "history_only")
    assert sum(account[part] for part in parts) + sum(account["unused"].values()) == account["total"]


def test_session_rec_takes_sessions_by_their_end_and_filters_once():
    rows = random_rows(3, num_users=600)
    by_session = collections.defaultdict(list)
    for user, item, time, _ in sorted(rows, key=lambda row: (row[0], row[2])):
        by_session[user].append((item, time))
    sessions = filtered(list(by_session.values()), rounds=1)
    last = max(row[-1][1] for row in sessions)
    train_full = [row for row in sessions if row[-1][1] < last - DAY]
    last_of_train = max(row[-1][1] for row in train_full)
    train = [row for row in train_full if row[-1][1] < last_of_train - DAY]
    known = {item for row in train for item, _ in row}
    middle = [row for row in train_full if row[-1][1] >= last_of_train - DAY]
    test = [row for row in sessions if row[-1][1] >= last - DAY]
    prepared = prepare_by(RECIPES["session-rec"], as_log(rows, name="Yoochoose", given=True))
    assert parts_of(prepared) == [items_of(train), items_of(middle, known), items_of(test, known)]
    counts = count_parts(prepared)
    assert counts["train"] == PartCounts(len(train), len(known), sum(map(len, train)))
    recipe = prepared.report["recipe"]
    assert recipe["unverified"]
    assert len(recipe["comparisons"]) == 9
    assert recipe["comparisons"][0] == {"what": "train sessions", "published": 7_953_885, "here": len(train)}


def test_core_takes_days_in_the_order_of_the_file():
    rows = random_rows(5, num_users=400)
    by_session = collections.defaultdict(list)
    for user, item, time, _ in sorted(rows, key=lambda row: (row[0], row[2])):
        by_session[user].append((item, time))
    sessions = filtered(list(by_session.values()), rounds=1)
    starts = {user: events[0][1] // DAY for user, events in by_session.items()}
    assert len(set(starts.values())) < len(starts)
    prepared = prepare_by(RECIPES["core-diginetica"], as_log(rows, given=True))
    ordered = sorted(sessions, key=lambda row: row[0][1] // DAY)
    first, second = len(ordered) * 8 // 10, len(ordered) * 9 // 10
    known = {item for row in ordered[:first] for item, _ in row}
    expected = [items_of(ordered[:first]), items_of(ordered[first:second], known), items_of(ordered[second:], known)]
    assert parts_of(prepared) == expected


def test_refit_of_a_split_by_start_trains_up_to_test():
    log = as_log(random_rows(2, num_users=600), given=True)
    recipe = RECIPES["gru4rec-diginetica"]
    plain, refitted = prepare_by(recipe, log), prepare_by(recipe.refitted(), log)
    cut = refitted.options["split"]["test_time"]
    assert plain.options["split"]["test_time"] == cut
    assert refitted.time[: np.diff(refitted.sequences.offsets)[: refitted.sizes[0]].sum()].max() < cut
    assert refitted.sizes[0] > plain.sizes[0]


@pytest.mark.parametrize("seed", range(5))
def test_repeated_filtering_leaves_the_largest_set_with_enough_of_each(seed):
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 6, 80)
    item = (rng.zipf(1.4, int(length.sum())) % 40).astype(np.int32)
    keep = frequent_items(length, item, min_count=4, min_length=2, repeat=True)
    session = np.repeat(np.arange(80), length)
    pairs, before = list(zip(session.tolist(), item.tolist(), strict=True)), None
    kept = set(range(len(pairs)))
    while kept != before:
        before = kept
        support, sizes = (collections.Counter(pairs[n][axis] for n in kept) for axis in (1, 0))
        kept = {n for n in kept if support[pairs[n][1]] >= 4 and sizes[pairs[n][0]] >= 2}
    assert set(np.flatnonzero(keep).tolist()) == kept


def test_the_most_recent_sessions_are_a_share():
    start = np.array([5, 1, 9, 9, 3, 7])
    assert np.flatnonzero(most_recent(start, 0.5)).tolist() == [2, 3, 5]
    assert most_recent(start, 0.01).tolist() == [False, False, False, True, False, False]
    log = as_log(random_rows(1, num_users=300), given=True)
    rules = alkd.data.SessionRules(boundary="given", min_length=2, max_length=None)
    whole = alkd.data.sessionize(log, rules)
    recent = alkd.data.sessionize(
        log, alkd.data.SessionRules(boundary="given", min_length=2, max_length=None, recent=0.25)
    )
    starts = np.sort(whole.time[whole.offsets[:-1]])
    assert len(recent) == len(whole) // 4
    assert recent.time[recent.offsets[:-1]].min() >= starts[-len(recent)]
    split = alkd.data.SplitRules("time", recent_training=1 / 4)
    full, part = alkd.data.prepare(log, rules, "time"), alkd.data.prepare(log, rules, split)
    assert part.sizes == (full.sizes[0] // 4, *full.sizes[1:])
    unused = part.report["account"]["events"]["unused"]
    assert unused["not_recent"] == len(full.time) - len(part.time)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: alkd.data.SessionRules(recent=0), "recent is 0; expected a number in"),
        (lambda: alkd.data.SessionRules(min_item_count=0), "min_item_count is 0"),
        (
            lambda: alkd.data.SplitRules("block", test_time=5),
            "expected split 'time-events' or 'time-start' or 'time-end'",
        ),
        (lambda: alkd.data.SplitRules(recent_training=2), "recent_training is 2"),
        (
            lambda: alkd.data.sessionize(as_log(random_rows(0)), alkd.data.SessionRules(events=("buy",))),
            "events contain 'buy', but log has 'view, addtocart'|events contain 'buy', but log has 'addtocart, view'",
        ),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
