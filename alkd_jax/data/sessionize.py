"""Interactions to sessions: where one ends, in which order equal times stand, which are kept.

Users are taken a few million interactions at a time, so that memory grows with the interactions' own arrays only.
"""

import dataclasses
import hashlib
import itertools
import zoneinfo
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from alkd_jax.data.interactions import Interactions

_DAY = 86_400_000
_MINUTE = 60_000
_AT_ONCE = 1 << 22

BOUNDARIES = ("day", "gap", "given")
TIES = ("file", "id", "hash", "random")
DUPLICATES = ("first", "last", "adjacent", "keep")


@dataclasses.dataclass(frozen=True)
class SessionRules:
    """How sessions are made; the defaults are the recipe that gives the authors' released data.

    Attributes:
        boundary: "day" for one session per user and calendar day, "gap" for a new one after inactivity, "given" for
            those of the file.
        time_zone: of the calendar day, as in the IANA data base.
        gap_minutes: of inactivity that end a session.
        min_length: interactions at least, the target included.
        max_length: interactions at most; longer sessions are left out, not cut.
        duplicates: of an item in a session: "first" or "last" keeps that one, "adjacent" drops immediate repeats,
            "keep" keeps all.
        count_duplicates: whether the lengths are those before duplicates are dropped, as in the released data, where
            shorter sessions occur for that reason.
        ties: order of interactions of one user at one time: as in the file, by item id (numerically where all are
            numbers), by a hash of user, item and time, or at random.
        users: order of the sessions' users: "file" for first appearance, "id" for that of their ids.
        seed: of the random ties and the hash.
    """

    boundary: str = "day"
    time_zone: str = "UTC"
    gap_minutes: float | int = 30.0
    min_length: int = 5
    max_length: int = 19
    duplicates: str = "first"
    count_duplicates: bool = True
    ties: str = "file"
    users: str = "file"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError on an option that cannot be."""
        for name, known in (
            ("boundary", BOUNDARIES),
            ("ties", TIES),
            ("duplicates", DUPLICATES),
            ("users", ("file", "id")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(f"min_length, max_length: {self.min_length}, {self.max_length}, expected 1 ≤ min ≤ max")
        if not self.gap_minutes > 0:
            raise ValueError(f"gap_minutes: {self.gap_minutes}, expected more than 0")
        try:
            zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone: {self.time_zone!r}, expected a name such as Europe/Madrid") from error


@dataclasses.dataclass(frozen=True)
class SessionLog:
    """N sessions of T interactions, back to back, ordered by user and then by time.

    Attributes:
        item: ``[T]`` position in the source's ``item_ids``.
        time: ``[T]`` milliseconds since 1970 in UTC.
        offsets: ``[N + 1]`` where each session starts.
        user: ``[N]`` position in the source's ``user_ids``.
        split: ``[N]`` 0, 1 or 2 where the source is split already, or None.
        report: what was dropped; plain JSON values.
    """

    item: Int32[np.ndarray, " T"]
    time: Int64[np.ndarray, " T"]
    offsets: Int64[np.ndarray, " N1"]
    user: Int32[np.ndarray, " N"]
    split: Int32[np.ndarray, " N"] | None
    report: dict[str, Any]

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return len(self.user)


def sessionize(log: Interactions, rules: SessionRules | None = None) -> SessionLog:
    """Cut every user's interactions into sessions.

    Args:
        log: E interactions in any order.
        rules: what ends a session and which are kept; the released recipe where not given.

    Returns:
        The kept sessions and the counts of what was dropped.

    Raises:
        ValueError: ``boundary="given"`` and the file gives no sessions, or no session is left.
    """
    rules = rules or SessionRules()
    if rules.boundary == "given" and log.session is None:
        raise ValueError(f"boundary: given, but {log.name} has no session column")
    tie = _tie_key(log, rules)
    counts = dict.fromkeys(("sessions", "too_short", "too_long", "repeats", "single", "tied", "mixed_split"), 0)
    parts = [_some_users(log, rows, rank, tie, rules, counts) for rows, rank in _user_groups(log, rules)]
    length, user, item, time, split = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(length):
        raise ValueError(
            f"{log.name}: none of {counts['sessions']:,} sessions is left by length {rules.min_length} to "
            f"{rules.max_length}; expected some"
        )
    report = {
        "rules": dataclasses.asdict(rules),
        "sessions_found": counts["sessions"],
        "sessions_dropped": {"too_short": counts["too_short"], "too_long": counts["too_long"]},
        "sessions_without_input": counts["single"],
        "repeats_dropped": counts["repeats"],
        "tied_interactions": counts["tied"],
        "sessions_over_two_given_splits": counts["mixed_split"],
    }
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    return SessionLog(item, time, offsets, user, split if log.split is not None else None, report)


def _user_groups(
    log: Interactions, rules: SessionRules
) -> Iterator[tuple[Int64[np.ndarray, " R"], Int32[np.ndarray, " U"]]]:
    """Rows of a few million interactions of whole users, in file order, and every user's place in the order."""
    num_users = len(log.user_ids)
    rank = np.arange(num_users, dtype=np.int32)
    if rules.users == "id":
        rank[_id_order(log.user_ids)] = np.arange(num_users, dtype=np.int32)
    per_user = np.zeros(num_users, np.int64)
    per_user[rank] = np.bincount(log.user, minlength=num_users)
    group = ((np.cumsum(per_user) - per_user) // _AT_ONCE).astype(np.int32)
    in_order = rules.users == "file" and bool(np.all(log.user[1:] >= log.user[:-1]))
    if in_order:
        edges = np.searchsorted(group[log.user], np.arange(group[-1] + 2)) if group[-1] else [0, len(log)]
        for first, last in itertools.pairwise(edges):
            yield np.arange(first, last), rank
        return
    of_row = group[rank][log.user]
    for number in range(group[-1] + 1):
        yield np.flatnonzero(of_row == number), rank


def _id_order(ids: tuple[str, ...]) -> Int64[np.ndarray, " U"]:
    """The order of identifiers, numeric where all are numbers."""
    if all(name.isascii() and name.isdigit() and len(name) < 19 for name in ids):
        return np.argsort(np.array([int(name) for name in ids], np.int64), kind="stable")
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)


def _tie_key(log: Interactions, rules: SessionRules) -> Any:
    """What decides the order of equal times: per item for "id", a pair of salts for "hash", per row for "random"."""
    if rules.ties == "id":
        place = np.empty(len(log.item_ids), np.int64)
        place[_id_order(log.item_ids)] = np.arange(len(log.item_ids))
        return place
    if rules.ties == "hash":
        return _salts(log.user_ids, rules.seed), _salts(log.item_ids, rules.seed)
    if rules.ties == "random":
        return np.random.default_rng(rules.seed).permutation(len(log))
    return None


def _salts(ids: tuple[str, ...], seed: int) -> UInt64[np.ndarray, " U"]:
    key = seed.to_bytes(16, "little", signed=True)
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(value: UInt64[np.ndarray, " R"]) -> UInt64[np.ndarray, " R"]:
    """The finisher of splitmix64: every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _tie_of_rows(
    log: Interactions, rows: Int64[np.ndarray, " R"], tie: Any, rules: SessionRules
) -> Int64[np.ndarray, " R"] | UInt64[np.ndarray, " R"]:
    if rules.ties == "id":
        return tie[log.item[rows]]
    if rules.ties == "random":
        return tie[rows]
    users, items = tie
    return _mix(_mix(users[log.user[rows]] + items[log.item[rows]]) + log.time[rows].astype(np.uint64))


def _some_users(
    log: Interactions,
    rows: Int64[np.ndarray, " R"],
    rank: Int32[np.ndarray, " U"],
    tie: Any,
    rules: SessionRules,
    counts: dict[str, int],
) -> tuple[np.ndarray, ...]:
    """Length, user of the kept sessions, their items, times, and splits."""
    rows = _sorted(log, rows, rank, tie, rules)
    user, item, time = log.user[rows], log.item[rows], log.time[rows]
    begins = np.ones(len(rows), bool)
    begins[1:] = (user[1:] != user[:-1]) | _ends(log, rows, time, rules)
    counts["tied"] += int(np.sum(_tied(user, time)))
    number = np.cumsum(begins) - 1
    if rules.count_duplicates:
        kept = _fits(number, rules, counts)
        keep = kept[_unrepeated(number[kept], item[kept], log, rules, counts)]
    else:
        fresh = _unrepeated(number, item, log, rules, counts)
        keep = fresh[_fits(number[fresh], rules, counts)]
    keep = keep[_have_input(number[keep], counts)]
    number = number[keep]
    first = np.flatnonzero(np.diff(number, prepend=-1))
    length = np.diff(np.append(first, len(number)))
    split = np.zeros(len(first), np.int32)
    if log.split is not None and len(first):
        of_row = log.split[rows[keep]]
        split = of_row[first + length - 1]
        counts["mixed_split"] += int(np.sum(np.minimum.reduceat(of_row, first) != np.maximum.reduceat(of_row, first)))
    order = _by_start(rank[user[keep][first]], time[keep][first])
    within = np.repeat(first[order], length[order]) + _ramp(length[order])
    keep = keep[within]
    return length[order], user[keep][_starts(length[order])], item[keep], time[keep], split[order]


def _sorted(
    log: Interactions, rows: Int64[np.ndarray, " R"], rank: Int32[np.ndarray, " U"], tie: Any, rules: SessionRules
) -> Int64[np.ndarray, " R"]:
    """Rows by user, given session where that counts, time, and tie; all else as in the file."""
    # the last key counts most; the sort is stable, so that ties by file need no key
    keys: list[np.ndarray] = [] if rules.ties == "file" else [_tie_of_rows(log, rows, tie, rules)]
    keys.append(log.time[rows])
    if rules.boundary == "given" and log.session is not None:
        keys.append(log.session[rows])
    return rows[np.lexsort([*keys, rank[log.user[rows]]])]


def _ends(
    log: Interactions, rows: Int64[np.ndarray, " R"], time: Int64[np.ndarray, " R"], rules: SessionRules
) -> Bool[np.ndarray, " R1"]:
    """Whether a session ends between neighbouring rows of one user."""
    if rules.boundary == "gap":
        return np.diff(time) > rules.gap_minutes * _MINUTE
    if rules.boundary == "given" and log.session is not None:
        return np.diff(log.session[rows]) != 0
    return np.diff(local_day(time, rules.time_zone)) != 0


def local_day(time: Int64[np.ndarray, " R"], time_zone: str) -> Int64[np.ndarray, " R"]:
    """The calendar day in a time zone.

    Args:
        time: ``[R]`` milliseconds since 1970 in UTC.
        time_zone: as in the IANA data base, summer time included.

    Returns:
        ``[R]`` days since 1970-01-01 on that zone's calendar.
    """
    if time_zone == "UTC":
        return time // _DAY
    import polars as pl

    here = pl.Series(time).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone(time_zone)
    return here.dt.date().to_physical().to_numpy().astype(np.int64)


def _tied(user: Int32[np.ndarray, " R"], time: Int64[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
    """Rows that share user and time with a neighbour."""
    same = (np.diff(user) == 0) & (np.diff(time) == 0)
    tied = np.zeros(len(user), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def _fits(number: Int64[np.ndarray, " R"], rules: SessionRules, counts: dict[str, int]) -> Int64[np.ndarray, " K"]:
    """Positions of the rows in sessions of a length that is kept."""
    length = np.bincount(number)
    found = length > 0
    counts["sessions"] += int(np.sum(found))
    counts["too_short"] += int(np.sum(found & (length < rules.min_length)))
    counts["too_long"] += int(np.sum(length > rules.max_length))
    return np.flatnonzero(((length >= rules.min_length) & (length <= rules.max_length))[number])


def _unrepeated(
    number: Int64[np.ndarray, " R"],
    item: Int32[np.ndarray, " R"],
    log: Interactions,
    rules: SessionRules,
    counts: dict[str, int],
) -> Int64[np.ndarray, " K"]:
    """Positions of the rows that are left when repeats within a session are dropped."""
    pair = number * len(log.item_ids) + item
    if rules.duplicates == "keep":
        return np.arange(len(pair))
    if rules.duplicates == "adjacent":
        left = np.flatnonzero(np.diff(pair, prepend=-1))
    elif rules.duplicates == "first":
        left = np.sort(np.unique(pair, return_index=True)[1])
    else:
        left = np.sort(len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1])
    counts["repeats"] += len(pair) - len(left)
    return left


def _have_input(number: Int64[np.ndarray, " R"], counts: dict[str, int]) -> Int64[np.ndarray, " K"]:
    """Positions of the rows in sessions of at least two."""
    length = np.bincount(number)
    counts["single"] += int(np.sum(length == 1))
    return np.flatnonzero(length[number] > 1)


def _by_start(user: Int32[np.ndarray, " N"], start: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    return np.lexsort((start, user))


def _starts(length: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    return np.cumsum(length, dtype=np.int64) - length


def _ramp(length: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " T"]:
    """0..n-1 for each length n, back to back."""
    return np.arange(int(np.sum(length))) - np.repeat(_starts(length), length)
