"""Which sessions train, decide and test: by block, at random, by user, by time, by last days, or as given."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.sessionize import local_day
from alkd_jax.data.sessions import block_split

SPLITS = {
    "block": "blocks in the order of the sessions",
    "block-exchanged": "blocks in the order of the sessions, validation and test exchanged",
    "random": "sessions at random",
    "user": "users at random, each with all sessions",
    "time": "by start time",
    "last-days": "the last days on the calendar, by the day a session starts on",
    "last-session": "each user's last session for test, the one before for validation",
    "given": "as in the files",
}
"""Rules of splitting, and what they mean."""


def split_rows(
    rule: str,
    user: Int32[np.ndarray, " N"],
    start: Int64[np.ndarray, " N"],
    *,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    days: int = 1,
    time_zone: str = "UTC",
    given: Int32[np.ndarray, " N"] | None = None,
    seed: int = 0,
) -> tuple[Int64[np.ndarray, " A"], Int64[np.ndarray, " B"], Int64[np.ndarray, " C"]]:
    """Distribute N sessions over three splits.

    Args:
        rule: a key of :data:`SPLITS`.
        user: ``[N]`` whose session it is.
        start: ``[N]`` when it starts, milliseconds since 1970 in UTC.
        fractions: shares of training, validation and test, for "block", "random", "user" and "time". Sessions that
            start at the very time of a cut lie behind it, and users stay whole, so these shares are met nearly only.
        days: of the test split, and of the validation split before it, for "last-days".
        time_zone: of the days.
        given: ``[N]`` 0, 1 or 2, for "given"; where none is 1, every fifth of the training sessions decides.
        seed: of "random" and "user".

    Returns:
        The rows of training, validation and test, each ascending; together every row once.

    Raises:
        ValueError: the rule is unknown, or lacks what it needs.
    """
    if rule not in SPLITS:
        raise ValueError(f"split: {rule!r}, expected one of {', '.join(SPLITS)}")
    if days < 1:
        raise ValueError(f"days: {days}, expected at least 1")
    num = len(user)
    cuts = block_split(num, fractions)
    if rule == "block-exchanged":
        return np.arange(num)[cuts[0]], np.arange(num)[cuts[2]], np.arange(num)[cuts[1]]
    if rule == "block":
        part = _parts(np.arange(num), cuts)
    elif rule == "random":
        part = _parts(np.random.default_rng(seed).permutation(num), cuts)
    elif rule == "user":
        part = _by_user(user, cuts, seed)
    elif rule == "time":
        part = _by_time(start, cuts)
    elif rule == "last-days":
        day = local_day(start, time_zone)
        part = np.maximum(2 - (day.max() - day) // days, 0)
    elif rule == "last-session":
        part = _by_place_from_end(user, start)
    elif given is None:
        raise ValueError("split: given, but the source is not split")
    else:
        part = given if np.any(given == 1) else np.where((given == 0) & (np.cumsum(given == 0) % 5 == 0), 1, given)
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2)


def _parts(order: Int64[np.ndarray, " N"], cuts: Sequence[slice]) -> Int64[np.ndarray, " N"]:
    part = np.empty(len(order), np.int64)
    for number, rows in enumerate(cuts):
        part[order[rows]] = number
    return part


def _by_user(user: Int32[np.ndarray, " N"], cuts: Sequence[slice], seed: int) -> Int64[np.ndarray, " N"]:
    """A user goes where the first of the user's sessions falls when the shuffled users stand in line."""
    _, who, sessions = np.unique(user, return_inverse=True, return_counts=True)
    line = np.random.default_rng(seed).permutation(len(sessions))
    before = np.empty(len(sessions), np.int64)
    before[line] = np.cumsum(sessions[line]) - sessions[line]
    return np.searchsorted([cuts[1].start, cuts[2].start], before, side="right")[who]


def _by_time(start: Int64[np.ndarray, " N"], cuts: Sequence[slice]) -> Int64[np.ndarray, " N"]:
    ordered = np.sort(start)
    times = [ordered[rows.start] if rows.start < len(start) else ordered[-1] + 1 for rows in cuts[1:]]
    return np.searchsorted(times, start, side="right")


def _by_place_from_end(user: Int32[np.ndarray, " N"], start: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    order = np.lexsort((start, user))
    ends = np.append(np.flatnonzero(np.diff(user[order])), len(user) - 1)
    sessions = np.diff(ends, prepend=-1)
    left = np.repeat(ends, sessions) - np.arange(len(user))
    part = np.empty(len(user), np.int64)
    # a user of one session trains, a user of two has no validation session
    total = np.repeat(sessions, sessions)
    part[order] = np.where((left == 0) & (total > 1), 2, np.where((left == 1) & (total > 2), 1, 0))
    return part
