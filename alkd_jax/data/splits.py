"""Rules that split sessions into training, validation and test, and the rules that keep every session whole."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.checks import check_at_least, check_count, check_one_of, check_share
from alkd_jax.data.sessions import block_split
from alkd_jax.data.times import local_day

SPLITS = {
    "block": "blocks in the order of the sessions",
    "block-exchanged": "blocks in the order of the sessions, validation and test exchanged",
    "random": "sessions at random",
    "user": "users at random, each with all sessions",
    "time": "by start time",
    "last-days": "the last days on the calendar, by the day a session starts on",
    "last-session": "each user's last session for test, the one before for validation",
    "given": "as in the files",
    "time-events": "by the time of each event: sessions are cut, and their later events are targets",
    "leave-one-out": "the last item of each session for test, the one before for validation",
    "time-start": "by start time: sessions that start from a time on are for test, and earlier ones end at it",
    "time-end": "by end time: sessions that end from a time on are for test",
    "day-order": "by the day a session starts on, in the order of the sessions within a day, at exact shares",
}
"""Name of a split rule → its description in reports."""

EVENT_SPLITS = ("time-events", "leave-one-out", "time-start")
"""The rules that cut sessions; the others assign every session as a whole to one split."""

TIMED_SPLITS = ("time-events", "time-start", "time-end")
"""The rules that take the times of the cuts."""

VALIDATIONS = ("time", "user", "last-item")
TARGETS = ("all", "last", "first", "random")
UNSEEN_OPTIONS = ("keep", "drop")


@dataclasses.dataclass(frozen=True)
class SplitRules:
    """How sessions are split; the defaults are the recipe of the released data.

    Attributes:
        rule: a key of :data:`SPLITS`.
        fractions: shares of training, validation and test: of the sessions for "block", "random", "user", "time" and
            "day-order", of the events for "time-events".
        days: number of days of the test split, and of the validation split before it: on the calendar for "last-days",
            of 24 hours before the last event for "time-start" and "time-end".
        validation: validation of "time-events". "time" cuts at a second, earlier time; "user" takes users at random,
            each with all events before the test time; "last-item" takes the last event of every session before it.
        validation_time: time of the cut before validation in milliseconds since 1970, in place of ``fractions`` for
            "time-events" and of ``days`` for "time-start" and "time-end".
        test_time: time of the cut before test, in the same way.
        gap_days: days before each cut of "time-events" whose events are neither trained on nor predicted.
        targets: the events that a cut session has to predict, for "time-events": "all" events after the cut one after
            another, each with those before it as history, or only the "last", the "first", or one at "random".
        refit: whether training contains validation too: its items for "leave-one-out", its sessions for "time-start".
        unseen: "keep", or "drop" items of validation and test that no training session contains.
        seed: random seed of "random", of "user", of validation by user and of targets at random.
        recent_training: share of the training sessions that are trained on, the most recent by their start, in (0, 1].

    Reference:
        Gusak, Volodkevich, Klenitskiy, Vasilev, Frolov: Time to Split, 2025, arXiv 2507.16289, for "time-events".
    """

    rule: str = "block"
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    days: int = 1
    validation: str = "time"
    validation_time: int | None = None
    test_time: int | None = None
    gap_days: float | int = 0
    targets: str = "all"
    refit: bool = False
    unseen: str = "keep"
    seed: int = 0
    recent_training: float | int = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError if an option is not valid, or belongs to another rule."""
        for name, value, known in (
            ("split", self.rule, SPLITS),
            ("validation", self.validation, VALIDATIONS),
            ("targets", self.targets, TARGETS),
            ("unseen", self.unseen, UNSEEN_OPTIONS),
        ):
            check_one_of(name, value, known)
        check_at_least(0, gap_days=self.gap_days)
        check_share("recent_training", self.recent_training)
        defaults = {field.name: field.default for field in dataclasses.fields(SplitRules)}
        rules_of: dict[str, tuple[str, ...]] = dict.fromkeys(("validation", "gap_days", "targets"), ("time-events",))
        rules_of |= dict.fromkeys(("validation_time", "test_time"), TIMED_SPLITS)
        for name, rules in {**rules_of, "refit": ("leave-one-out", "time-start")}.items():
            value = getattr(self, name)
            if self.rule not in rules and value != defaults[name]:
                expected = " or ".join(map(repr, rules))
                raise ValueError(f"{name} is {value!r}, but split is {self.rule!r}; expected split {expected} with it")
        if self.validation_time is not None and self.validation != "time":
            raise ValueError(
                f"validation_time is {self.validation_time}, but validation is {self.validation!r}; expected 'time'"
            )

    @property
    def statement(self) -> str:
        """What each part has, in one or two sentences for reports."""
        if self.rule == "leave-one-out":
            training = "includes it, so that validation measures the fit" if self.refit else "does not include it"
            return (
                "The last item of a session is for test and the one before for validation. The history of the test "
                f"query includes the validation item, training {training}; sessions of fewer than three items are for "
                "training only."
            )
        if self.rule == "time-events":
            validation = {
                "time": "Events from the validation time on are for validation and not in training",
                "user": "Users at random are for validation, with all their events before the test time",
                "last-item": "The last event of a session before the test time is for validation and not in training",
            }[self.validation]
            return (
                f"Events from the test time on are for test only. {validation}. What lies before the first target of a "
                f"session is the known history of its query; targets: {self.targets}."
            )
        if self.rule == "time-start":
            training = "All earlier sessions are for training" if self.refit else "Earlier ones are for training"
            return (
                "Sessions that start from the test time on are for test, those that start from the validation time on "
                f"for validation. {training}, and no part has events from the next cut on; the first item of a session "
                "is known, and every later one may be predicted."
            )
        return "Every session is whole and in one part; its first item is known, and every later one may be predicted."


def split_rows(
    rule: str,
    user: Int32[np.ndarray, " N"],
    start: Int64[np.ndarray, " N"],
    *,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    days: int = 1,
    time_zone: str = "UTC",
    source_split: Int32[np.ndarray, " N"] | None = None,
    seed: int = 0,
) -> tuple[Int64[np.ndarray, " A"], Int64[np.ndarray, " B"], Int64[np.ndarray, " C"]]:
    """Assigns N whole sessions to three splits.

    Args:
        rule: a key of :data:`SPLITS` that is none of :data:`EVENT_SPLITS` and of :data:`TIMED_SPLITS`.
        user: ``[N]`` number of each session's user.
        start: ``[N]`` start of each session, milliseconds since 1970 in UTC.
        fractions: shares of training, validation and test, for "block", "random", "user", "time" and "day-order".
            They are approximate for "time", where sessions that start exactly at a cut go to the later split, and for
            "user", where all sessions of a user go to one split.
        days: number of days of the test split, and of the validation split before it, for "last-days".
        time_zone: time zone of the days.
        source_split: ``[N]`` 0, 1 or 2, for "given"; if no session is 1, every fifth training session goes to
            validation.
        seed: random seed of "random" and "user".

    Returns:
        The rows of training, validation and test, each in ascending order; together they contain every row once.

    Raises:
        ValueError: the rule is unknown, ``days`` is too small, or the rule is "given" and the source is not split.
    """
    check_one_of("split", rule, [known for known in SPLITS if known not in (*EVENT_SPLITS, *TIMED_SPLITS)])
    check_count(1, days=days)
    num_sessions = len(user)
    cuts = block_split(num_sessions, fractions)
    if rule == "block-exchanged":
        return np.arange(num_sessions)[cuts[0]], np.arange(num_sessions)[cuts[2]], np.arange(num_sessions)[cuts[1]]
    if rule == "block":
        split = _splits_by_order(np.arange(num_sessions), cuts)
    elif rule == "random":
        split = _splits_by_order(np.random.default_rng(seed).permutation(num_sessions), cuts)
    elif rule == "user":
        split = _splits_by_user(user, cuts, seed)
    elif rule == "time":
        split = _splits_by_time(start, cuts)
    elif rule == "day-order":
        split = _splits_by_order(np.argsort(local_day(start, time_zone), kind="stable"), cuts)
    elif rule == "last-days":
        day = local_day(start, time_zone)
        split = np.maximum(2 - (day.max() - day) // days, 0)
    elif rule == "last-session":
        split = _splits_by_position_from_end(user, start)
    elif source_split is None:
        raise ValueError("split is 'given', but the source is not split; expected another rule")
    else:
        split = _with_validation(source_split)
    return np.flatnonzero(split == 0), np.flatnonzero(split == 1), np.flatnonzero(split == 2)


def _with_validation(split: Int32[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """Moves every fifth training session to validation if the source has no validation sessions."""
    if np.any(split == 1):
        return split
    train = split == 0
    return np.where(train & (np.cumsum(train) % 5 == 0), 1, split)


def _splits_by_order(order: Int64[np.ndarray, " N"], cuts: Sequence[slice]) -> Int64[np.ndarray, " N"]:
    split = np.empty(len(order), np.int64)
    for number, rows in enumerate(cuts):
        split[order[rows]] = number
    return split


def _splits_by_user(user: Int32[np.ndarray, " N"], cuts: Sequence[slice], seed: int) -> Int64[np.ndarray, " N"]:
    """Puts each user into the split in which the user's first session lies when the users are shuffled."""
    _, user_index, num_sessions = np.unique(user, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(num_sessions))
    before = np.empty(len(num_sessions), np.int64)
    before[order] = np.cumsum(num_sessions[order]) - num_sessions[order]
    return np.searchsorted([cuts[1].start, cuts[2].start], before, side="right")[user_index]


def _splits_by_time(start: Int64[np.ndarray, " N"], cuts: Sequence[slice]) -> Int64[np.ndarray, " N"]:
    sorted_start = np.sort(start)
    cut_times = [sorted_start[rows.start] if rows.start < len(start) else sorted_start[-1] + 1 for rows in cuts[1:]]
    return np.searchsorted(cut_times, start, side="right")


def _splits_by_position_from_end(
    user: Int32[np.ndarray, " N"], start: Int64[np.ndarray, " N"]
) -> Int64[np.ndarray, " N"]:
    order = np.lexsort((start, user))
    ends = np.append(np.flatnonzero(np.diff(user[order])), len(user) - 1)
    num_sessions = np.diff(ends, prepend=-1)
    num_later = np.repeat(ends, num_sessions) - np.arange(len(user))
    split = np.empty(len(user), np.int64)
    # The only session of a user is for training; a user of two sessions has none for validation.
    user_sessions = np.repeat(num_sessions, num_sessions)
    split[order] = np.where(
        (num_later == 0) & (user_sessions > 1), 2, np.where((num_later == 1) & (user_sessions > 2), 1, 0)
    )
    return split
