"""Splits that cut sessions: at a time, or before the last items. Each part of a split holds beginnings of sessions."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from alkd_jax.data.catalogue import NumberedSessions
from alkd_jax.data.session_filters import most_recent
from alkd_jax.data.sessions import block_split
from alkd_jax.data.splits import SplitRules, split_rows

_DAY = 86_400_000


@dataclasses.dataclass(frozen=True)
class Prefixes:
    """M beginnings of sessions of a log, each session at most once.

    Attributes:
        row: ``[M]`` row of the session in the log.
        length: ``[M]`` number of events from the session's start, at least 2.
        first_target: ``[M]`` position of the first event to predict, in ``1..length - 1``.
    """

    row: Int64[np.ndarray, " M"]
    length: Int64[np.ndarray, " M"]
    first_target: Int64[np.ndarray, " M"]

    def __len__(self) -> int:
        """Returns the number of sessions M."""
        return len(self.row)


@dataclasses.dataclass(frozen=True)
class EventSplit:
    """Training, validation and test as beginnings of N sessions.

    Attributes:
        train: sessions to train on.
        validation: sessions with known history and targets.
        test: the same for the reported metrics.
        in_gap: ``[T]`` whether an event lies in a gap before a cut.
        cuts: times of the cuts in milliseconds since 1970; empty where there are none.
        not_recent: ``[N]`` whether a session is not trained on because it is not recent; None where none is.
    """

    train: Prefixes
    validation: Prefixes
    test: Prefixes
    in_gap: Bool[np.ndarray, " T"]
    cuts: dict[str, int]
    not_recent: Bool[np.ndarray, " N"] | None = None

    @property
    def parts(self) -> tuple[Prefixes, Prefixes, Prefixes]:
        """Training, validation and test."""
        return self.train, self.validation, self.test


def split_sessions(sessions: NumberedSessions, rules: SplitRules, *, time_zone: str = "UTC") -> EventSplit:
    """Splits N sessions by any rule.

    Args:
        sessions: N sessions of at least two events, in time order.
        rules: the rule and its options.
        time_zone: time zone of the days of "last-days".

    Returns:
        The three parts; a rule that keeps sessions whole gives each session to one part.

    Raises:
        ValueError: as in :func:`alkd_jax.data.splits.split_rows`, or the cuts are not in order.
    """
    split = _split_by_rule(sessions, rules, time_zone)
    if rules.recent_training == 1:
        return split
    rows = split.train.row
    keep = most_recent(sessions.time[sessions.offsets[:-1]][rows], rules.recent_training)
    not_recent = np.zeros(len(sessions.user), bool)
    not_recent[rows[~keep]] = True
    train = Prefixes(rows[keep], split.train.length[keep], split.train.first_target[keep])
    return dataclasses.replace(split, train=train, not_recent=not_recent)


def _split_by_rule(sessions: NumberedSessions, rules: SplitRules, time_zone: str) -> EventSplit:
    length = np.diff(sessions.offsets)
    if rules.rule == "leave-one-out":
        return _leave_one_out(length, refit=rules.refit)
    if rules.rule == "time-events":
        return _split_by_time(sessions, rules)
    if rules.rule == "time-start":
        return _split_by_start(sessions, rules)
    cuts: dict[str, int] = {}
    if rules.rule == "time-end":
        end = sessions.time[sessions.offsets[1:] - 1]
        cuts = _cuts(end, rules)
        part = np.searchsorted([cuts["validation_time"], cuts["test_time"]], end, side="right")
        parts = (np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2))
    else:
        parts = split_rows(
            rules.rule,
            sessions.user,
            sessions.time[sessions.offsets[:-1]],
            fractions=rules.fractions,
            days=rules.days,
            time_zone=time_zone,
            source_split=sessions.split,
            seed=rules.seed,
        )
    train, validation, test = (Prefixes(rows, length[rows], np.ones(len(rows), np.int64)) for rows in parts)
    return EventSplit(train, validation, test, np.zeros(len(sessions.items), bool), cuts)


def _cuts(end: Int64[np.ndarray, " N"], rules: SplitRules) -> dict[str, int]:
    """Returns the times of the cuts of "time-start" and "time-end": those given, or days before the last event.

    Validation of "time-start" is as long as test. That of "time-end" ends with the last event of the sessions before
    test, since these have no event from the test time on.
    """
    test_time = int(end.max()) - rules.days * _DAY if rules.test_time is None else rules.test_time
    last = test_time if rules.rule == "time-start" else int(end[end < test_time].max(initial=0))
    value = last - rules.days * _DAY if rules.validation_time is None else rules.validation_time
    if value >= test_time:
        raise ValueError(
            f"validation_time is {value} and test_time {test_time}; expected validation to begin before test"
        )
    return {"validation_time": value, "test_time": test_time}


def _split_by_start(sessions: NumberedSessions, rules: SplitRules) -> EventSplit:
    """Takes sessions by their start; the events of a part from the next cut on are not used."""
    length, start = np.diff(sessions.offsets), sessions.time[sessions.offsets[:-1]]
    cuts = _cuts(sessions.time[sessions.offsets[1:] - 1], rules)

    def part(first: int | None, end: int | None) -> Prefixes:
        is_inside = np.ones(len(length), bool) if first is None else start >= first
        if end is None:
            return _select(length, np.ones_like(length), is_inside)
        known = np.add.reduceat(sessions.time < end, sessions.offsets[:-1], dtype=np.int64)
        return _select(known, np.ones_like(length), is_inside & (start < end))

    validation_time, test_time = cuts["validation_time"], cuts["test_time"]
    return EventSplit(
        part(None, test_time if rules.refit else validation_time),
        part(validation_time, test_time),
        part(test_time, None),
        np.zeros(len(sessions.items), bool),
        cuts,
    )


def _select(
    length: Int64[np.ndarray, " N"], first_target: Int64[np.ndarray, " N"], among: Bool[np.ndarray, " N"]
) -> Prefixes:
    """Returns the beginnings of these lengths that have an input and a target; the first item has to be an input."""
    first_target = np.maximum(first_target, 1)
    rows = np.flatnonzero(among & (length > first_target))
    return Prefixes(rows, length[rows], first_target[rows])


def _leave_one_out(length: Int64[np.ndarray, " N"], *, refit: bool) -> EventSplit:
    """Holds out the last two items; sessions of fewer than three items are for training only."""
    long = length >= 3
    kept = np.where(long, length - (1 if refit else 2), length)
    return EventSplit(
        _select(kept, np.ones_like(length), np.ones(len(length), bool)),
        _select(length - 1, length - 2, long),
        _select(length, length - 1, long),
        np.zeros(int(length.sum()), bool),
        {},
    )


def _split_by_time(sessions: NumberedSessions, rules: SplitRules) -> EventSplit:
    """Cuts sessions at the test time and, for validation by time, at the validation time."""
    length, time = np.diff(sessions.offsets), sessions.time
    gap = round(rules.gap_days * _DAY)
    first, last = (rows.stop for rows in block_split(len(time), rules.fractions)[:2])
    ordered = np.sort(time)
    test_time = int(ordered[min(last, len(time) - 1)]) if rules.test_time is None else rules.test_time
    cuts = {"test_time": test_time}

    def num_before(cut: int) -> Int64[np.ndarray, " N"]:
        return np.add.reduceat(time < cut, sessions.offsets[:-1], dtype=np.int64)

    in_gap = (time >= test_time - gap) & (time < test_time)
    known = num_before(test_time - gap)
    everyone = np.ones(len(length), bool)
    if rules.validation == "time":
        value = int(ordered[min(first, len(time) - 1)]) if rules.validation_time is None else rules.validation_time
        cuts = {"validation_time": value} | cuts
        if value > test_time - gap:
            raise ValueError(
                f"validation_time is {value} and test_time {test_time} with a gap of {rules.gap_days} days; expected "
                "validation to begin before the gap before test"
            )
        in_gap |= (time >= value - gap) & (time < value)
        train = _select(num_before(value - gap), np.ones_like(length), everyone)
        validation = _select(known, num_before(value), everyone)
    elif rules.validation == "user":
        chosen = _users_at_random(sessions.user, rules)
        train = _select(known, np.ones_like(length), ~chosen)
        validation = _select(known, np.ones_like(length), chosen)
    else:
        train = _select(known - 1, np.ones_like(length), everyone)
        validation = _select(known, known - 1, everyone)
    test = _select(length, num_before(test_time), everyone)
    rng = np.random.default_rng(rules.seed)
    validation, test = (_with_targets(part, rules.targets, rng) for part in (validation, test))
    return EventSplit(train, validation, test, in_gap, cuts)


def _users_at_random(user: np.ndarray, rules: SplitRules) -> Bool[np.ndarray, " N"]:
    """Returns the sessions of users drawn at random: the share that validation has of training and validation."""
    users = np.unique(user)
    train, validation, _ = rules.fractions
    num_users = round(len(users) * validation / (train + validation)) if validation else 0
    return np.isin(user, np.random.default_rng(rules.seed).choice(users, num_users, replace=False))


def _with_targets(part: Prefixes, targets: str, rng: np.random.Generator) -> Prefixes:
    """Restricts the targets of each session to all, the last, the first, or one at random."""
    if targets == "all":
        return part
    target = {
        "last": part.length - 1,
        "first": part.first_target,
        "random": rng.integers(part.first_target, part.length),
    }[targets]
    return Prefixes(part.row, target + 1, target)


def account(length: Int64[np.ndarray, " N"], split: EventSplit) -> dict[str, Any]:
    """Counts what became of every session and of every event.

    Args:
        length: ``[N]`` numbers of events of the sessions that were split.
        split: the parts.

    Returns:
        Plain JSON values. ``events``: each event of the log is in one of ``trained``, ``validation_targets``,
        ``test_targets``, ``history_only`` (known to a query, never trained on or predicted), and ``unused`` by reason;
        these sum to ``total``. ``trained_and_predicted`` counts events in two roles, which are in ``trained``.
        ``sessions``: numbers of sessions of each part, of those in no part, and of those whose training part has fewer
        than two events.
    """
    num_sessions = len(length)
    ends, firsts = [], []
    for part in split.parts:
        end, first = np.zeros(num_sessions, np.int64), np.zeros(num_sessions, np.int64)
        end[part.row], first[part.row] = part.length, part.first_target
        ends.append(np.repeat(end, length))
        firsts.append(np.repeat(first, length))
    position = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    trained = position < ends[0]
    predicted = [(position >= first) & (position < end) for first, end in zip(firsts[1:], ends[1:], strict=True)]
    known = position < np.maximum(ends[1], ends[2])
    unused = ~trained & ~known
    after_target = unused & (np.maximum(ends[1], ends[2]) > 0) & ~split.in_gap
    not_recent = np.zeros(len(position), bool)
    if split.not_recent is not None:
        not_recent = unused & ~split.in_gap & ~after_target & np.repeat(split.not_recent, length)
    after_training = unused & ~split.in_gap & ~after_target & ~not_recent & (ends[0] > 0)
    too_short = unused & ~split.in_gap & ~after_target & ~not_recent & ~after_training
    new_reasons = {"after_training": int(after_training.sum()), "not_recent": int(not_recent.sum())}
    is_validation = predicted[0] & ~trained
    is_test = predicted[1] & ~trained & ~is_validation
    in_part = [np.isin(np.arange(num_sessions), part.row) for part in split.parts]
    return {
        "events": {
            "total": len(position),
            "trained": int(trained.sum()),
            "validation_targets": int(is_validation.sum()),
            "test_targets": int(is_test.sum()),
            "history_only": int((known & ~trained & ~is_validation & ~is_test).sum()),
            "unused": {
                "in_gap": int((unused & split.in_gap).sum()),
                "after_target": int(after_target.sum()),
                "session_too_short": int(too_short.sum()),
                **{reason: count for reason, count in new_reasons.items() if count},
            },
            "trained_and_predicted": int((trained & (predicted[0] | predicted[1])).sum()),
            "in_gap": int(split.in_gap.sum()),
        },
        "sessions": {
            "total": num_sessions,
            **{name: len(part) for name, part in zip(("train", "validation", "test"), split.parts, strict=True)},
            "unused": int(np.sum(~np.logical_or.reduce(in_part))),
            "not_trained_on": int(np.sum(~in_part[0])),
        },
    }
